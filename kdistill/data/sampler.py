"""The order in which training reads the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RandomSampler:
    """The order of the rows in each epoch: a permutation that depends on (n, seed, epoch) and nothing else.

    Made from the raw stream of NumPy's Philox generator, which never changes between versions of NumPy, while
    `Generator.permutation` may; so a run resumes with the same order anywhere.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError(f"n is {n}; expected at least one row")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}; expected 0 <= seed < 2**64")
        self.n, self.seed = n, seed

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the rows in this epoch (counted from 0): int64 (n,), each of 0..n-1 once."""
        key = np.array([self.seed, epoch], dtype=np.uint64)
        return np.argsort(np.random.Philox(key=key).random_raw(self.n), kind="stable").astype(np.int64, copy=False)
