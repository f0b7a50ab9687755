"""Names of heads, and the endings of the classes of `transformers` that have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SEQUENCE, TOKEN, SPAN, MASKED, ENCODER = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "encoder",
)
"""Names of heads."""
HEADS = {
    "ForSequenceClassification": SEQUENCE,
    "ForTokenClassification": TOKEN,
    "ForQuestionAnswering": SPAN,
    "ForMaskedLM": MASKED,
    "Model": ENCODER,
}
"""What the name of a class of transformers ends with -> the head of the model."""
LABELLED = (SEQUENCE, TOKEN)
"""Heads whose outputs are labels of the configuration."""
OF_TASKS = (*LABELLED, SPAN)
"""Heads that learn a task of theirs; an encoder and a language model can begin any."""


def named_head(content: Mapping[str, Any]) -> str | None:
    """Return the head of a task that a config.json, parsed, names among its `architectures`; None for no such."""
    named = content.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    heads = (head for name in names for ending, head in HEADS.items() if name.endswith(ending))
    return next((head for head in heads if head in OF_TASKS), None)
