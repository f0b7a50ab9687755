"""What the tokens of a vocabulary are to the words of a text: which begin one, and which go on with it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .pipelines import SPACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Byte-level BPE writes a space so.
_SPACE_BYTE = "\u0120"
# What a part of a character's bytes is decoded to.
_PART = "\ufffd"
# The first letters of the categories of Unicode that words are made of: letters, marks such as accents, and digits.
_OF_WORDS = ("L", "M", "N")


class Piece(NamedTuple):
    """A token as a part of a text; one that neither begins a word nor goes on with one stands alone, such as a comma.

    Attributes:
        text: its text, without the mark of its place in a word.
        begins: whether it begins a word.
        goes_on: whether it goes on with the word before it.
    """

    text: str
    begins: bool
    goes_on: bool


def reader_of_pieces(backend: Tokenizer) -> Callable[[str], Piece] | None:
    """Return what tells of a token of this tokenizer which part of a word it is; None where tokens do not show it.

    WordPiece marks what goes on with a word (`##`). BPE of bytes and Unigram mark what begins one, with the space in
    front of it; the first word of a text has that mark only where the tokenizer adds the space.
    """
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    if prefix:
        return lambda token: Piece(token.removeprefix(prefix), not token.startswith(prefix), token.startswith(prefix))
    decoder = backend.decoder
    if type(decoder).__name__ == "ByteLevel":
        return lambda token: _with_space(decoder.decode([token.removeprefix(_SPACE_BYTE)]), token, _SPACE_BYTE)
    if type(decoder).__name__ == "Metaspace":
        return lambda token: _with_space(token.removeprefix(SPACE), token, SPACE)
    return None


def _with_space(text: str, token: str, space: str) -> Piece:
    begins = token.startswith(space)
    of_word = text[:1] == _PART or (text != "" and unicodedata.category(text[0])[0] in _OF_WORDS)
    return Piece(text, begins, of_word and not begins)
