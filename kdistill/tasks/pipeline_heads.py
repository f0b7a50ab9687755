"""Which head the models of each pipeline have, and the refusal of a model with another one."""

from __future__ import annotations

from ..models.head_names import HEADS, MASKED, SEQUENCE, SPAN, TOKEN
from ..models.model import Model

TEXTS, TOKENS, QUESTIONS, MASKS = "text-classification", "token-classification", "question-answering", "fill-mask"
"""Names of pipelines, as the hub calls their tasks."""
_HEADS = {TEXTS: SEQUENCE, TOKENS: TOKEN, QUESTIONS: SPAN, MASKS: MASKED}


def check_head(model: Model, pipeline: str) -> None:
    """Raise ValueError, which names the class to load, for a model with another head than this pipeline reads."""
    if model.config.head == _HEADS[pipeline]:
        return
    ending = next(ending for ending, head in HEADS.items() if head == _HEADS[pipeline])
    other = next((name for name, head in _HEADS.items() if head == model.config.head), None)
    remedy = "" if other is None else f", or pipeline({other!r}, ...) for this one"
    raise ValueError(
        f"model is a {type(model).__name__}; expected one for {pipeline}, such as "
        f"{model.architecture.name}{ending}.from_pretrained(...){remedy}"
    )
