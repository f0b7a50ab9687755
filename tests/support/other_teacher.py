"""A RoBERTa that reads letters: a teacher whose tokenizer has nothing in common with that of `small_run`."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import kdistill as kd
from support.small_run import LABELS

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TOKENS = [*_SPECIAL, "Ġ", *string.ascii_lowercase, "Ġg", "oo", "Ġgoo"]
"""Byte-level BPE of letters, and the merges that make a few longer tokens."""
_MERGES = ["Ġ g", "o o", "Ġg oo"]


def other_config(**changes: Any) -> kd.RobertaConfig:
    fields: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 130,
        "initializer_range": 0.3,
        "id2label": LABELS,
    }
    return kd.RobertaConfig(**(fields | changes))


def write_other_teacher(
    directory: Path, head: str = "ForSequenceClassification", seed: int = 3, **changes: Any
) -> Path:
    """A model directory with its vocabulary, as `--teacher` takes it."""
    getattr(kd, f"Roberta{head}")(other_config(**changes), seed=3).save_pretrained(directory)
    (directory / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *_MERGES]) + "\n")
    return directory
