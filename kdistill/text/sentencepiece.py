"""Read the file of a SentencePiece model: its pieces with their scores, and its table of replacements.

The file is a protocol buffer, of which the few fields that a tokenizer needs are read here; their numbers are those of
sentencepiece_model.proto.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..formats.protobuf import fields

# A model has a few megabytes; one of a million pieces has 20.
MAX_BYTES = 1 << 28
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
_UNIGRAM = 1
_MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}


@dataclass(frozen=True)
class Piece:
    """A piece of the vocabulary: its text, its log probability, and its type, such as `CONTROL`."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a tokenizer needs of a SentencePiece model.

    Attributes:
        pieces: by their ids in the model.
        charsmap: the table of replacements that normalise text; None without one.
    """

    pieces: list[Piece]
    charsmap: bytes | None


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a model of type Unigram. Raises `ValueError`, which names the file, for anything else."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes; expected a SentencePiece model of at most {MAX_BYTES}")
    pieces, charsmap, model_type = [], None, _UNIGRAM
    try:
        for number, value in fields(path.read_bytes()):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                model_type = int(dict(fields(value)).get(3, _UNIGRAM))
            elif number == 3 and isinstance(value, bytes):
                table = dict(fields(value)).get(2)
                charsmap = table if isinstance(table, bytes) and table else None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
    if model_type != _UNIGRAM:
        kind = _MODEL_TYPES.get(model_type, model_type)
        raise ValueError(
            f"{path} is a SentencePiece model of type {kind}; expected Unigram: save its fast form (tokenizer.json) "
            "with transformers"
        )
    if not pieces:
        raise ValueError(f"{path} is not a SentencePiece model: it has no pieces")
    return SentencePieceModel(pieces, charsmap)


def _piece(data: bytes) -> Piece:
    found = dict(fields(data))
    text, score, kind = found.get(1, b""), found.get(2, 0.0), found.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, float) or not math.isfinite(score):
        raise ValueError(f"a piece has the text {text!r} and the score {score!r}")
    return Piece(text.decode("utf-8"), score, int(kind))
