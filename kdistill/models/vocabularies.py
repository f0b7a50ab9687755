"""Tokens that two vocabularies of different kinds have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Tokens with a meaning of their own, by what they are for.
_SPECIAL = {
    "[CLS]": "first", "<s>": "first", "[SEP]": "last", "</s>": "last", "[PAD]": "padding", "<pad>": "padding",
    "[UNK]": "unknown", "<unk>": "unknown", "[MASK]": "mask", "<mask>": "mask",
}  # fmt: skip
_CONTINUES, _SENTENCE_PIECE, _BYTE_LEVEL = "##", "\u2581", "\u0120"  # WordPiece's, Unigram's and byte-level BPE's marks


class CommonTokens(NamedTuple):
    """Ids of the same tokens in two vocabularies, int64 (tokens,), ascending in the first."""

    ours: NDArray[np.int64]
    theirs: NDArray[np.int64]


def common_tokens(vocabulary: Mapping[str, int], teacher_vocabulary: Mapping[str, int]) -> CommonTokens:
    """Return the tokens that both know: the same text, at the beginning of a word or inside of one.

    "##ing" of WordPiece, "ing" of byte-level BPE and of Unigram are one token, and so are "the", "\u0120the" and
    "\u2581the". Special tokens are compared by what they are for: "[CLS]" is "<s>".

    Args:
        vocabulary: token -> id, as a tokenizer's `get_vocab()` returns it.
        teacher_vocabulary: likewise.

    Raises:
        TypeError: a vocabulary is not a mapping.
        ValueError: no token is common.
    """
    for name, given in (("vocabulary", vocabulary), ("teacher_vocabulary", teacher_vocabulary)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{name} is of type {type(given).__name__}; expected token -> id: tokenizer.get_vocab()")
    theirs = dict(_pieces(teacher_vocabulary))
    pairs = sorted({(index, theirs[piece]) for piece, index in _pieces(vocabulary) if piece in theirs})
    if not pairs:
        raise ValueError("vocabulary and teacher_vocabulary have no token in common; expected those of two tokenizers")
    ids = np.array(pairs, np.int64)
    return CommonTokens(ids[:, 0].copy(), ids[:, 1].copy())


def _pieces(vocabulary: Mapping[str, int]) -> Iterator[tuple[tuple[Any, str], int]]:
    """Yield ((whether it begins a word, text), id) of each token; special ones have their use in place of a text."""
    mark = max((_CONTINUES, _SENTENCE_PIECE, _BYTE_LEVEL), key=lambda m: sum(t.startswith(m) for t in vocabulary))
    for token, index in vocabulary.items():
        if token in _SPECIAL:
            yield ("special", _SPECIAL[token]), index
            continue
        marked = token.startswith(mark) and token != mark
        text = token.removeprefix(mark) if marked else token
        if mark == _BYTE_LEVEL:
            text = _decoded(text)
        if text:
            yield (marked != (mark == _CONTINUES), text), index


def _decoded(token: str) -> str:
    """Return the text of a token of byte-level BPE; "" for one that is a part of a character."""
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return ""


def _bytes_of_characters() -> dict[str, int]:
    """Return the byte that each character of byte-level BPE stands for, as `bytes_to_unicode` of GPT-2 has it."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _bytes_of_characters()
