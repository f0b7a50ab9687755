"""Tokens that two vocabularies of different kinds have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Tokens with a meaning of their own, by what they are for: BERT's name and RoBERTa's.
_SPECIAL = {
    "first": ("[CLS]", "<s>"), "last": ("[SEP]", "</s>"), "padding": ("[PAD]", "<pad>"), "unknown": ("[UNK]", "<unk>"),
    "mask": ("[MASK]", "<mask>"),
}  # fmt: skip
_CONTINUES, _SENTENCE_PIECE, _BYTE_LEVEL = "##", "\u2581", "\u0120"  # WordPiece's, Unigram's and byte-level BPE's marks


class CommonTokens(NamedTuple):
    """Ids of the same tokens in two vocabularies, int64 (tokens,), ascending in the first."""

    ours: NDArray[np.int64]
    theirs: NDArray[np.int64]


def common_tokens(vocabulary: Mapping[str, int], teacher_vocabulary: Mapping[str, int]) -> CommonTokens:
    """Return the tokens that both know: the same text, at the beginning of a word or inside of one.

    "##ing" of WordPiece, "ing" of byte-level BPE and of Unigram are one token, and so are "the", "\u0120the" and
    "\u2581the". Special tokens are compared by what they are for: "[CLS]" is "<s>". Of two for the same, as MPNet's
    vocabulary has them, it is the one that its models use; the other one is compared by its text.

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
    theirs: dict[tuple[Any, str], int] = {}
    for piece, index in _pieces(teacher_vocabulary):
        theirs.setdefault(piece, index)
    pairs = sorted({(index, theirs[piece]) for piece, index in _pieces(vocabulary) if piece in theirs})
    if not pairs:
        raise ValueError("vocabulary and teacher_vocabulary have no token in common; expected those of two tokenizers")
    ids = np.array(pairs, np.int64)
    return CommonTokens(ids[:, 0].copy(), ids[:, 1].copy())


def _pieces(vocabulary: Mapping[str, int]) -> Iterator[tuple[tuple[Any, str], int]]:
    """Yield ((whether it begins a word, text), id) of each token, by id; special ones have their use as the text."""
    mark = max((_CONTINUES, _SENTENCE_PIECE, _BYTE_LEVEL), key=lambda m: sum(t.startswith(m) for t in vocabulary))
    special = _special_tokens(vocabulary, mark)
    for token, index in sorted(vocabulary.items(), key=lambda item: (item[1], item[0])):
        if token in special:
            yield ("special", special[token]), index
            continue
        marked = token.startswith(mark) and token != mark
        text = token.removeprefix(mark) if marked else token
        if mark == _BYTE_LEVEL:
            text = _decoded(text)
        if text:
            yield (marked != (mark == _CONTINUES), text), index


def _special_tokens(vocabulary: Mapping[str, int], mark: str) -> dict[str, str]:
    """Return what each special token is for, one token for each use.

    Where a vocabulary has BERT's names and RoBERTa's, those of the kind whose first token has the lower id are used.
    The unknown token of WordPiece is "[UNK]" in any case: MPNet has "<s>" 0, "<unk>" 3, "[UNK]" 104, "[CLS]" 105 and
    "<mask>" 30526, and uses all of these but "<unk>" and "[CLS]".
    """
    first = [vocabulary.get(name, float("inf")) for name in _SPECIAL["first"]]
    found = {}
    for use, names in _SPECIAL.items():
        from_bert = mark == _CONTINUES if use == "unknown" else first[0] <= first[1]
        used = next((name for name in (names if from_bert else names[::-1]) if name in vocabulary), None)
        if used is not None:
            found[used] = use
    return found


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
