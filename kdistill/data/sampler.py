"""The order in which training reads the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Sorted at once, in 40 MB; of more rows the numbers are drawn anew for each bucket, in 5 ms a million.
_BUCKET_ROWS = 1 << 20


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
        return np.concatenate(list(self.pieces(epoch)))

    def pieces(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the same order from its entry `first` on in pieces, with the memory of one of them.

        A piece is a bucket of the numbers that the order sorts: those with the same upper bits.
        """
        bits = max(self.n - 1, 0).bit_length() - _BUCKET_ROWS.bit_length() + 1
        if bits <= 0:
            yield np.argsort(next(self._draws(epoch, self.n)), kind="stable").astype(np.int64, copy=False)[first:]
            return
        shift, begin = np.uint64(64 - bits), 0
        for bucket in range(1 << bits):
            rows, keys = [], []
            for block, draws in enumerate(self._draws(epoch, _BUCKET_ROWS)):
                chosen = np.flatnonzero(draws >> shift == np.uint64(bucket))
                rows.append(chosen + block * _BUCKET_ROWS)
                keys.append(draws[chosen])
            piece = np.concatenate(rows)[np.argsort(np.concatenate(keys), kind="stable")]
            yield piece[max(first - begin, 0) :]
            begin += len(piece)

    def _draws(self, epoch: int, rows: int) -> Iterator[NDArray[np.uint64]]:
        """Yield the numbers that an epoch's order sorts, of so many rows at a time."""
        stream = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64))
        for begin in range(0, self.n, rows):
            yield stream.random_raw(min(rows, self.n - begin))
