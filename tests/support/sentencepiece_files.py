"""Write the file of a SentencePiece model without the package, field by field as sentencepiece_model.proto has them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
UNIGRAM, BPE = 1, 2


def varint(value: int) -> bytes:
    """Return a number in groups of 7 bits, the lowest first."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def text_field(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def sentencepiece_file(
    pieces: Sequence[tuple[str, float, int]], model_type: int = UNIGRAM, charsmap: bytes = b""
) -> bytes:
    """Return the content of a model of pieces, each (text, score, type)."""
    written = b""
    for text, score, kind in pieces:
        piece = text_field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + varint(3 << 3)
        written += text_field(1, piece + varint(kind))
    written += text_field(2, varint(3 << 3) + varint(model_type))
    return written + text_field(3, text_field(1, b"test") + (text_field(2, charsmap) if charsmap else b""))


FAIRSEQ_PIECES = [
    ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("\u2581the", -2.0, NORMAL),
    ("\u2581film", -2.5, NORMAL), ("s", -3.0, NORMAL), ("\u2581", -4.0, NORMAL), ("!", -4.5, NORMAL),
]  # fmt: skip
ALBERT_PIECES = [
    ("<pad>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN), ("[CLS]", 0.0, CONTROL), ("[SEP]", 0.0, CONTROL),
    ("[MASK]", 0.0, CONTROL), ("(", 0.0, USER_DEFINED), ("\u2581the", -2.0, NORMAL), ("\u2581film", -2.5, NORMAL),
    ("s", -3.0, NORMAL), ("\u2581", -4.0, NORMAL), ('"', -4.5, NORMAL),
]  # fmt: skip
