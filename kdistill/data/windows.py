"""Rows that are windows of longer examples, and how their outputs are joined again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ragged import Ragged, runs_of, starts_of, units_of

PART_OF_OVERLAP = 4
"""Windows of a long row overlap by this part of their length, where nothing else is asked for."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Which example each row is a window of, and which word each token answers for.

    The windows of an example follow each other and overlap. A word that lies in several of them is answered by the one
    in which it has most context, and has no label in the others. So the outputs of an example are those of its rows,
    one after another.

    Attributes:
        examples: int64 (rows,), the example of each row, not falling.
        words: int64 (tokens,), the word of its example that a token answers for; -1 for none.
        texts: the words of each example, kept where a teacher needs them, see `Dataset.texts`; else None.
    """

    examples: NDArray[np.int64]
    words: NDArray[np.int64]
    texts: Sequence[Sequence[str]] | None = None

    def starts(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the tokens of each example begin, int64 (examples + 1,), given the `starts` of the rows."""
        first = np.flatnonzero(np.concatenate(([True], np.diff(self.examples) != 0)))
        return np.concatenate((starts[first], starts[-1:]))

    def targets(self, labels: NDArray[Any], starts: NDArray[np.int64]) -> Ragged:
        """Return the labels of all tokens of each example, given those of all tokens of the rows."""
        return Ragged(labels, self.starts(starts))

    def take(self, indices: NDArray[np.integer[Any]] | Sequence[int], starts: NDArray[np.int64]) -> Windows:
        """Return those of the rows at `indices`, each run of rows of one example as one example."""
        examples, texts = self.examples[np.asarray(indices, dtype=np.int64)], self.texts
        runs = runs_of(examples)
        if texts is not None:
            texts = [texts[example] for example in examples[np.unique(runs, return_index=True)[1]].tolist()]
        return Windows(runs, self.words[units_of(starts, indices)], texts)


class WordWindow(NamedTuple):
    """A window of a row of words.

    Attributes:
        tokens: which tokens of the row it has.
        own: bool (tokens of the window,), which of them it answers for.
    """

    tokens: slice
    own: NDArray[np.bool_]


def overlap_of(name: str, asked: int | None, size: int) -> int:
    """Return how many tokens windows of `size` tokens share: those that are asked for, or else a quarter.

    Raises ValueError, which calls the argument `name`, where windows cannot overlap so.
    """
    if asked is None:
        return size // PART_OF_OVERLAP
    if not 0 <= asked < size:
        raise ValueError(f"{name} is {asked}; expected 0 to {size - 1}: windows have room for {size} tokens")
    return asked


def windows_of_words(lengths: NDArray[np.int64], size: int, overlap: int) -> list[WordWindow]:
    """Cut a row of words into windows, each word answered in the one in which it has most context.

    Of a word that is longer than a window the first `size` tokens are in it.

    Args:
        lengths: tokens of each word, int64 (words,).
        size: most tokens of a window.
        overlap: most tokens that two windows share.
    """
    ends, windows = starts_of(lengths), cut_between_words(lengths, size, overlap)
    owner = np.repeat(owners(lengths, windows), lengths)
    parts = (slice(int(ends[first]), min(int(ends[end]), int(ends[first]) + size)) for first, end in windows)
    return [WordWindow(part, owner[part] == window) for window, part in enumerate(parts)]


def cut_between_words(lengths: NDArray[np.int64], size: int, overlap: int) -> list[tuple[int, int]]:
    """Return the windows of a row of words: (first word, end) of each, none longer than `size` tokens.

    A window ends between two words, and the next begins with the last words of it, at most `overlap` tokens and never
    all of it. A word that is longer than a window is a window alone. Arguments are those of `windows_of_words`.
    """
    ends = starts_of(lengths)
    if ends[-1] <= size:
        return [(0, len(lengths))]
    windows, first = [], 0
    while True:
        end = max(int(np.searchsorted(ends, ends[first] + size, side="right")) - 1, first + 1)
        windows.append((first, end))
        if end >= len(lengths):
            return windows
        first = max(int(np.searchsorted(ends, ends[end] - overlap, side="left")), first + 1)


def owners(lengths: NDArray[np.int64], windows: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the window in which each word has most context, int64 (words,); of equal ones the first.

    The context is the smaller number of tokens beside the word, to the left or the right.
    """
    ends = starts_of(lengths)
    best = np.full(len(lengths), -1, dtype=np.int64)
    owner = np.zeros(len(lengths), dtype=np.int64)
    for window, (first, end) in enumerate(windows):
        context = np.minimum(ends[first:end] - ends[first], ends[end] - ends[first + 1 : end + 1])
        better = context > best[first:end]
        best[first:end][better] = context[better]
        owner[first:end][better] = window
    return owner
