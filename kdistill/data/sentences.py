"""Texts that are embedded, each a row: alone, or two that belong together and perhaps have a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ragged import runs_of

Reference = Callable[[], NDArray[np.float32]]
"""Returns the embeddings that another model gives the same rows, float32 (rows, C)."""


class Pairs(NamedTuple):
    """The rows of the pairs that have a score: both int64 (pairs,), and the scores, float64 (pairs,)."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SentenceTargets:
    """What embeddings are compared with: an entry for each example, a text or a pair.

    Attributes:
        scores: float32 (rows,), the score of the pair that a row is of, NaN without one.
        examples: int64 (rows,), the example of each row, not falling.
        reference: the embeddings of a teacher, which are asked for when they are needed; None without one.
    """

    scores: NDArray[np.float32]
    examples: NDArray[np.int64]
    reference: Reference | None

    def __len__(self) -> int:
        return int(self.labelled().sum())

    def labelled(self) -> NDArray[np.bool_]:
        """Return for which examples there is something to compare with, bool (examples,)."""
        first = np.flatnonzero(np.diff(self.examples, prepend=-1))
        return np.asarray(~np.isnan(self.scores[first]) | (self.reference is not None))

    def pairs(self) -> Pairs:
        """Return the pairs that have a score."""
        first = np.flatnonzero((np.diff(self.examples, append=-1) == 0) & ~np.isnan(self.scores))
        return Pairs(first, first + 1, self.scores[first].astype(np.float64))


@dataclass(frozen=True, eq=False)
class Sentences:
    """Which example each row is a text of: one, or two for a pair, which follow each other.

    Attributes:
        examples: int64 (rows,), the example of each row, not falling.
        reference: see `SentenceTargets`.
    """

    examples: NDArray[np.int64]
    reference: Reference | None = None

    def take(self, indices: NDArray[np.integer[Any]] | Sequence[int], starts: NDArray[np.int64]) -> Sentences:
        """Return those of the rows at `indices`, each run of rows of one example as one example."""
        rows, reference = np.asarray(indices, dtype=np.int64), self.reference
        return Sentences(runs_of(self.examples[rows]), None if reference is None else lambda: reference()[rows])

    def targets(self, labels: NDArray[Any], starts: NDArray[np.int64]) -> SentenceTargets:
        """Return what the embeddings of the rows are compared with."""
        return SentenceTargets(labels, self.examples, self.reference)
