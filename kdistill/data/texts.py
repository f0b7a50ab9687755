"""The texts of rows, kept beside their tokens for whoever reads them otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Texts:
    """The text or the pair of texts of each row: for teachers with tokenizers of their own, and functions.

    Attributes:
        first: the texts.
        second: the second texts of pairs; None where there are none.
    """

    first: Sequence[str]
    second: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def inputs(self) -> list[Any]:
        """Return a text for each row, or (text, second text), as a tokenizer takes them."""
        return list(self.first) if self.second is None else list(zip(self.first, self.second, strict=True))

    def take(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> Texts:
        """Return those of the rows at these places, in that order."""
        places = np.asarray(rows, dtype=np.int64).tolist()
        second = None if self.second is None else [self.second[place] for place in places]
        return Texts([self.first[place] for place in places], second)

    def followed_by(self, others: Texts) -> Texts:
        """Return these texts and behind them others of the same kind."""
        if self.second is None or others.second is None:
            return Texts([*self.first, *others.first])
        return Texts([*self.first, *others.first], [*self.second, *others.second])
