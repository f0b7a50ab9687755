"""Texts to token ids in blocks that take little memory and time, so that signals are answered between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..system.unicode import check_characters

# A block has at most this many rows (enough to keep all cores busy, some 15 ms of work), and this many characters
# unless a single row has more: a hundred bytes of memory for each, and 0.2 s.
BLOCK_ROWS = 1024
BLOCK_CHARACTERS = 1 << 18

Input = str | tuple[str, str]


class TokenRow(NamedTuple):
    """The token ids and token types of a row, and whether truncation left some out."""

    ids: list[int]
    type_ids: list[int]
    is_cut: bool


class WordRow(NamedTuple):
    """The tokens of a row of words, without special tokens: ids, token types, and the word that each belongs to."""

    ids: list[int]
    type_ids: list[int]
    words: list[int]


class OffsetRow(NamedTuple):
    """The tokens of a text: ids, token types, places in characters, which are special, and the word of each."""

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]]
    specials: list[int]
    words: list[int | None]


def inputs_of(text: Any, text_pair: str | Sequence[str] | None) -> list[Any]:
    """Return the rows to encode: texts, or (text, pair) tuples. Raises TypeError or ValueError for anything else."""
    if not isinstance(text, str | Iterable):
        raise TypeError(f"text is {text!r} of type {type(text).__name__}; expected a string or a list of strings")
    if isinstance(text_pair, str) != (isinstance(text, str) and text_pair is not None):
        raise TypeError("text and text_pair must both be a string or both be a list of strings")
    texts = [text] if isinstance(text, str) else list(text)
    if text_pair is None and texts and all(isinstance(row, (tuple, list)) and len(row) == 2 for row in texts):
        firsts, pairs = map(list, zip(*texts, strict=True))
    else:
        firsts, pairs = texts, [text_pair] if isinstance(text_pair, str) else list(text_pair or ())
    for name, rows in (("text", firsts), ("text_pair", pairs)):
        for index, row in enumerate(rows):
            if not isinstance(row, str):
                raise TypeError(f"{name}[{index}] is {row!r} of type {type(row).__name__}; expected a string")
    if text_pair is None and not pairs:
        return texts
    if len(pairs) != len(firsts):
        raise ValueError(f"text has {len(firsts)} rows and text_pair {len(pairs)}; expected one pair for each text")
    return list(zip(firsts, pairs, strict=True))


def blocks_of(rows: Iterable[Input]) -> Iterator[list[Input]]:
    """Cut rows into blocks."""
    block: list[Input] = []
    characters = 0
    for row in rows:
        length = len(row) if isinstance(row, str) else len(row[0]) + len(row[1])
        if block and (len(block) == BLOCK_ROWS or characters + length > BLOCK_CHARACTERS):
            yield block
            block, characters = [], 0
        block.append(row)
        characters += length
    if block:
        yield block


def call_backend(call: Callable[[], Any], rows: Sequence[Input], doing: str) -> Any:
    """Call the package `tokenizers`, with its errors and panics as `ValueError`.

    Args:
        call: what to call.
        rows: the rows that it reads.
        doing: the beginning of an error, such as "the text cannot be tokenized".

    Raises:
        ValueError: a row holds a lone surrogate, or the package fails.
    """
    try:
        return call()
    except Exception as error:  # the package raises plain Exception
        check_text(rows)
        raise ValueError(f"{doing}: {error}") from error
    except BaseException as error:
        # A panic of Rust is no Exception. Regular expressions that backtrack without end are the usual reason.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"{doing}: the package tokenizers failed ({error}); expected a tokenizer.json whose regular expressions "
            "match any text in little time"
        ) from error


def check_text(rows: Iterable[Input]) -> None:
    """Raise `ValueError` for the first row with half a character."""
    for index, row in enumerate(rows):
        for text in (row,) if isinstance(row, str) else row:
            check_characters(f"text[{index}]", text)
