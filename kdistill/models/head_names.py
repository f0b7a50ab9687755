"""The list of heads: their names, and what the names of their classes in `transformers` end with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SEQUENCE, TOKEN, SPAN, MASKED, ENCODER = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "feature-extraction",
)
"""Names of heads."""
ENDINGS: Mapping[str, str] = {
    SEQUENCE: "ForSequenceClassification",
    TOKEN: "ForTokenClassification",
    SPAN: "ForQuestionAnswering",
    MASKED: "ForMaskedLM",
    ENCODER: "Model",
}
"""Name of a head -> what the name of its class ends with, behind that of the architecture."""
LABELLED = (SEQUENCE, TOKEN)
"""Heads whose outputs are labels of the configuration."""
OF_TASKS = (*LABELLED, SPAN, MASKED)
"""Heads that learn a task; an encoder has none."""


def named_head(content: Mapping[str, Any], *, language_models: bool = False) -> str | None:
    """Return the head of a task that a config.json, parsed, names among its `architectures`; None for no such.

    A language model begins any task, as an encoder does, so its head counts with `language_models` alone: where a model
    is to answer as it is.
    """
    named = content.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    heads = (head for name in names for head, ending in ENDINGS.items() if name.endswith(ending))
    return next((head for head in heads if head in OF_TASKS and (language_models or head != MASKED)), None)
