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
OF_TASKS = (*LABELLED, SPAN)
"""Heads that learn a task of theirs; an encoder and a language model can begin any."""


def named_head(content: Mapping[str, Any]) -> str | None:
    """Return the head of a task that a config.json, parsed, names among its `architectures`; None for no such."""
    named = content.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    heads = (head for name in names for head, ending in ENDINGS.items() if name.endswith(ending))
    return next((head for head in heads if head in OF_TASKS), None)
