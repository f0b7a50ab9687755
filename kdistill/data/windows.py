"""Rows that are windows of longer examples, and how their outputs are joined again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ragged import Ragged, units_of


@dataclass(frozen=True, eq=False)
class Windows:
    """Which example each row is a window of, and which word each token answers for.

    The windows of an example follow each other and overlap. A word that lies in several of them is answered by the one
    in which it has most context, and has no label in the others. So the outputs of an example are those of its rows,
    one after another.

    Attributes:
        examples: int64 (rows,), the example of each row, not falling.
        words: int64 (tokens,), the word of its example that a token answers for; -1 for none.
    """

    examples: NDArray[np.int64]
    words: NDArray[np.int64]

    def starts(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the tokens of each example begin, int64 (examples + 1,), given the `starts` of the rows."""
        first = np.flatnonzero(np.concatenate(([True], np.diff(self.examples) != 0)))
        return np.concatenate((starts[first], starts[-1:]))

    def targets(self, labels: NDArray[Any], starts: NDArray[np.int64]) -> Ragged:
        """Return the labels of all tokens of each example, given those of all tokens of the rows."""
        return Ragged(labels, self.starts(starts))

    def take(self, indices: NDArray[np.integer[Any]] | Sequence[int], starts: NDArray[np.int64]) -> Windows:
        """Return those of the rows at `indices`, each run of rows of one example as one example."""
        examples = self.examples[np.asarray(indices)]
        runs = np.cumsum(np.concatenate(([0], np.diff(examples) != 0)))
        return Windows(runs.astype(np.int64), self.words[units_of(starts, indices)])
