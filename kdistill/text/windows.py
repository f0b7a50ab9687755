"""A question with each part of its context that fits beside it: overlapping windows over a text that is too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .blocks import blocks_of
from .tokenizer import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from tokenizers import Encoding

MAX_LENGTH, DOC_STRIDE = 384, 128
"""Tokens of a window, and those of the context that two share, where nothing else is asked for and there is room."""
_CONTEXT = 1  # the second of the texts of a row


class Window(NamedTuple):
    """One row of a question and a part of its context.

    Attributes:
        ids: the row's token ids.
        type_ids: its token types.
        offsets: for each token, the characters of the context (or question) that it stands for: first, and behind the
            last.
        words: for each token, the number of the word that it is a part of; None for special tokens.
        begin: the first token of the context ...
        end: ... and the place behind its last.
    """

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]
    begin: int
    end: int


def stride_of(asked: int | None, max_length: int) -> int:
    """Return how many tokens of a context two windows share: those asked for, or else `DOC_STRIDE` if there is room."""
    return min(DOC_STRIDE, max_length // 3) if asked is None else asked


class UnfitError(ValueError):
    """A row that cannot be cut into windows.

    Attributes:
        row: its place among those that were given.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


def windows_of(
    tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], max_length: int, doc_stride: int
) -> Iterator[list[Window]]:
    """Yield the windows of each question and context, in order.

    They are the rows that a tokenizer of transformers makes with `truncation="only_second"`, `stride=doc_stride` and
    `return_overflowing_tokens=True`: the question is whole in each, and only the context is cut.

    Args:
        tokenizer: the model's.
        pairs: (question, context).
        max_length: tokens of a row, special tokens included.
        doc_stride: tokens of the context that a window has in common with the one before it.

    Raises:
        UnfitError: a question leaves no room for its context, or too little for the stride.
        ValueError: a text holds half a character, or no window can have doc_stride tokens in common with another.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 1:
        raise ValueError(
            f"max_length is {max_length}; expected room for the {max_length - room} special tokens of a row, a "
            "question and a part of its context"
        )
    if not 0 <= doc_stride < room:
        raise ValueError(
            f"doc_stride is {doc_stride}, the tokens that two windows have in common; expected 0 to {room - 1} with "
            f"max_length {max_length}"
        )
    done = 0
    for inputs in blocks_of(pairs):
        block = pairs[done : done + len(inputs)]
        _check_fits(tokenizer, block, done, max_length, doc_stride)
        rows = tokenizer.encode_overlapping(block, max_length, doc_stride)
        for row in rows:
            yield [_window(part) for part in (row, *row.overflowing)]
        done += len(block)


def _check_fits(
    tokenizer: PreTrainedTokenizerFast, block: Sequence[tuple[str, str]], first: int, max_length: int, doc_stride: int
) -> None:
    """Raise `UnfitError` for the first row whose question leaves too little room."""
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    questions = tokenizer.encode_rows([question for question, _ in block], None, add_special_tokens=False)
    for row, length in enumerate(len(question.ids) for question in questions):
        room = max_length - specials - length
        if room > doc_stride:
            continue
        (context,) = tokenizer.encode_rows([block[row][1]], None, add_special_tokens=False)
        if room >= max(len(context.ids), 1):
            continue  # the context is cut nowhere
        if room < 1:
            raise UnfitError(
                first + row,
                f"the question has {length} tokens, and max_length {max_length} with {specials} special tokens leaves "
                f"none for the context; expected max_length of at least {length + specials + doc_stride + 1}",
            )
        raise UnfitError(
            first + row,
            f"doc_stride is {doc_stride}, and max_length {max_length} leaves {room} tokens for the context beside a "
            f"question of {length}; expected a doc_stride below {room}, so that a window goes on from the one before",
        )


def _window(encoding: Encoding) -> Window:
    """Return what is needed of an encoded row."""
    sequences = encoding.sequence_ids
    length = sequences.count(_CONTEXT)
    begin = sequences.index(_CONTEXT) if length else len(sequences)
    return Window(encoding.ids, encoding.type_ids, encoding.offsets, encoding.word_ids, begin, begin + length)
