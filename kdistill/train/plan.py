"""The rows that each step of a run reads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..data.sampler import RandomSampler

RowIndices = NDArray[np.int64]


class EpochPlan:
    """The rows that each step of a run reads.

    An epoch goes over all rows in a new random order, `batch_size * accumulation` a step; its last step has the rows
    that are left. With `drop_last` an epoch's last batch is left out unless it is full.
    """

    def __init__(self, rows: int, *, batch_size: int, accumulation: int, drop_last: bool, seed: int) -> None:
        self._sampler = RandomSampler(rows, seed)
        self._rows_per_step = batch_size * accumulation
        self.rows_per_epoch = rows - rows % batch_size if drop_last else rows
        if self.rows_per_epoch == 0:
            raise ValueError(
                f"dataloader_drop_last is True and {rows} rows do not fill a batch of {batch_size}; lower "
                "per_device_train_batch_size"
            )
        self.steps_per_epoch = math.ceil(self.rows_per_epoch / self._rows_per_step)

    def max_steps(self, epochs: float, limit: int) -> int:
        """Return the steps of a run: `limit` if it is above 0, else those of so many epochs."""
        return limit if limit > 0 else math.ceil(epochs * self.steps_per_epoch)

    def rows_of_epoch(self, epoch: int, first: int) -> Iterator[RowIndices]:
        """Yield the rows of an epoch's steps from `first` on, counted from 0 in each epoch."""
        size, left = self._rows_per_step, self.rows_per_epoch - first * self._rows_per_step
        rest = np.zeros(0, np.int64)
        for piece in self._sampler.pieces(epoch, first * size):
            rest, left = np.concatenate((rest, piece[:left])), left - len(piece[:left])
            whole = len(rest) if left == 0 else len(rest) - len(rest) % size
            yield from (rest[begin : begin + size] for begin in range(0, whole, size))
            rest = rest[whole:]
