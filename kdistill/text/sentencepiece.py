"""Read the file of a SentencePiece model: its pieces with their scores, and its table of replacements.

The file is a protocol buffer (https://protobuf.dev/programming-guides/encoding), of which the few fields that a
tokenizer needs are read here; their numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A model has a few megabytes; one of a million pieces has 20.
MAX_BYTES = 1 << 28
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
_UNIGRAM = 1
_MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
        for number, value in _fields(path.read_bytes()):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                model_type = int(dict(_fields(value)).get(3, _UNIGRAM))
            elif number == 3 and isinstance(value, bytes):
                table = dict(_fields(value)).get(2)
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
    fields = dict(_fields(data))
    text, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, float) or not math.isfinite(score):
        raise ValueError(f"a piece has the text {text!r} and the score {score!r}")
    return Piece(text.decode("utf-8"), score, int(kind))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | float | int]]:
    """Yield (number, value) of the fields of a message; bytes, floats of 32 bits and whole numbers."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, place = _varint(data, place)
            yield number, value
        elif wire_type == _BYTES:
            length, place = _varint(data, place)
            yield number, _part(data, place, length)
            place += length
        elif wire_type == _FIXED32:
            yield number, float(struct.unpack("<f", _part(data, place, 4))[0])
            place += 4
        elif wire_type == _FIXED64:
            place += len(_part(data, place, 8))
        else:
            raise ValueError(f"byte {place} has the wire type {wire_type}")


def _part(data: bytes, place: int, length: int) -> bytes:
    if length > len(data) - place:
        raise ValueError(f"it ends after byte {len(data)}, within a field of {length} bytes")
    return data[place : place + length]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and the place behind it."""
    value = 0
    for index in range(10):
        if place + index >= len(data):
            break
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError(f"no number ends behind byte {place}")
