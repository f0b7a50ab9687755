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
Words = list[str] | tuple[list[str], list[str]]
"""A row, or a pair of rows, that is split into words already."""


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


def inputs_of(text: Any, text_pair: Any) -> list[Any]:
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


def word_inputs_of(text: Any, text_pair: Any) -> tuple[list[Any], bool]:
    """Return rows that are split into words, as lists or pairs of lists, and whether `text` is a single row.

    Args:
        text: the words of one row, a list of such rows, or a list of pairs of such rows.
        text_pair: the second text of each pair, in the same form as `text`.

    Raises:
        TypeError: a row is not a list of words, or `text` and `text_pair` differ in form.
        ValueError: `text` and `text_pair` differ in length.
    """
    single = not (_is_list(text) and len(text) and _is_list(text[0]))
    if text_pair is not None and single != (not (_is_list(text_pair) and len(text_pair) and _is_list(text_pair[0]))):
        raise TypeError("text and text_pair must both be a list of words or both be a list of rows")
    firsts = [text] if single else list(text)
    pairs = None if text_pair is None else [text_pair] if single else list(text_pair)
    if pairs is None and all(_is_list(row) and len(row) == 2 and all(map(_is_list, row)) for row in firsts):
        firsts, pairs = map(list, zip(*firsts, strict=True))
    if pairs is not None and len(pairs) != len(firsts):
        raise ValueError(f"text has {len(firsts)} rows and text_pair {len(pairs)}; expected one pair for each text")
    words = [_words("text", index, row) for index, row in enumerate(firsts)]
    if pairs is None:
        return words, single
    seconds = [_words("text_pair", index, row) for index, row in enumerate(pairs)]
    return list(zip(words, seconds, strict=True)), single


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and hasattr(value, "__getitem__") and not isinstance(value, str | dict)


def _words(name: str, index: int, row: Any) -> list[str]:
    if not _is_list(row):
        raise TypeError(
            f"{name}[{index}] is {row!r} of type {type(row).__name__}; expected a list of words, as "
            "is_split_into_words=True has them"
        )
    for place, word in enumerate(row):
        if not isinstance(word, str):
            raise TypeError(f"{name}[{index}][{place}] is {word!r} of type {type(word).__name__}; expected a word")
    return list(row)


def _characters(row: Input | Words) -> int:
    """Return the length of a row in characters."""
    return len(row) if isinstance(row, str) else sum(map(_characters, row))


def blocks_of(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut rows into blocks: texts, pairs, or those of words."""
    block: list[Any] = []
    characters = 0
    for row in rows:
        length = _characters(row)
        if block and (len(block) == BLOCK_ROWS or characters + length > BLOCK_CHARACTERS):
            yield block
            block, characters = [], 0
        block.append(row)
        characters += length
    if block:
        yield block


def call_backend(call: Callable[[], Any], rows: Sequence[Input | Words], doing: str) -> Any:
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
        if "`stride`" in str(error):
            raise ValueError(
                f"{doing} with that stride: beside its pair a text has no more tokens than the stride; expected a "
                "smaller stride, a larger max_length or a shorter pair"
            ) from error
        raise ValueError(
            f"{doing}: the package tokenizers failed ({error}); expected a tokenizer.json whose regular expressions "
            "match any text in little time"
        ) from error


def check_text(rows: Iterable[Input | Words]) -> None:
    """Raise `ValueError` for the first row with half a character."""
    for index, row in enumerate(rows):
        for text in _texts(row):
            check_characters(f"text[{index}]", text)


def _texts(row: Any) -> Iterator[str]:
    """Yield the texts or words of a row."""
    if isinstance(row, str):
        yield row
    else:
        for part in row:
            yield from _texts(part)
