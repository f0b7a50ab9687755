"""One update of the parameters, and the rows that each update reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.sampler import RandomSampler
from ..metrics.prediction import Labels, Logits
from .optim import AdamW, clip_grad_norm_

MOST_ROWS_NAMED = 8
RowIndices = NDArray[np.int64]
LossFunction = Callable[[Logits, Labels, RowIndices], tuple[float, Logits]]
"""(logits, labels, rows' places in the data) -> (mean loss, its gradient by the logits)."""


class EpochPlan:
    """Which rows each step of a run reads.

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
        """Steps of a run: `limit` if it is above 0, else those of so many epochs."""
        return limit if limit > 0 else math.ceil(epochs * self.steps_per_epoch)

    def rows_of_epoch(self, epoch: int, first: int) -> Iterator[RowIndices]:
        """The rows of an epoch's steps from `first` on, counted from 0 in each epoch."""
        order = self._sampler.permutation(epoch)[: self.rows_per_epoch]
        for step in range(first, self.steps_per_epoch):
            yield order[step * self._rows_per_step : (step + 1) * self._rows_per_step]


def training_step(
    optimizer: AdamW,
    dataset: Dataset,
    rows: RowIndices,
    *,
    batch_size: int,
    max_grad_norm: float,
    compute_loss: LossFunction,
    on_event: Callable[[str], object],
) -> tuple[float, float]:
    """Update the optimiser's model once from `rows`, in micro-batches of `batch_size`.

    Each micro-batch's gradient counts by its share of the rows, so that the update is that of one large batch. A
    `max_grad_norm` of 0 clips nothing. `on_event` is called with the names of the callbacks' events inside of a step.

    Returns the mean loss over the rows and the gradient's norm before clipping. Raises FloatingPointError, which names
    rows, when either is not finite; the parameters are then as before.
    """
    model, loss = optimizer.model, 0.0
    for start in range(0, len(rows), batch_size):
        micro = rows[start : start + batch_size]
        share = len(micro) / len(rows)
        batch, labels = dataset.batch(micro)
        logits = model.forward(batch, train=True)
        try:
            micro_loss, dlogits = compute_loss(logits, labels, micro)
        except FloatingPointError as error:
            bad = _rows_without_finite_loss(compute_loss, logits, labels, micro)
            raise _not_finite("loss", bad) from error
        model.backward(dlogits * np.float32(share))
        loss += share * micro_loss
        if start + batch_size < len(rows):
            on_event("on_substep_end")
    grad_norm = clip_grad_norm_(model, max_grad_norm or math.inf)
    if not math.isfinite(grad_norm):
        raise _not_finite("gradient", rows)
    on_event("on_pre_optimizer_step")
    optimizer.step()
    on_event("on_optimizer_step")
    optimizer.zero_grad()
    return loss, grad_norm


def _rows_without_finite_loss(
    compute_loss: LossFunction, logits: Logits, labels: Labels, rows: RowIndices
) -> RowIndices:
    bad = []
    for place in range(len(rows)):
        one = slice(place, place + 1)
        try:
            compute_loss(logits[one], labels[one], rows[one])
        except FloatingPointError:
            bad.append(place)
    return rows[bad]


def _not_finite(what: str, rows: RowIndices) -> FloatingPointError:
    named = ", ".join(map(str, rows[:MOST_ROWS_NAMED]))
    others = f" and {len(rows) - MOST_ROWS_NAMED} others" if len(rows) > MOST_ROWS_NAMED else ""
    return FloatingPointError(
        f"the {what} is not finite, from row{'s' * (len(rows) > 1)} {named}{others} of the training data "
        "(the first is row 0). The parameters are those before this step; lower learning_rate, or look for NaN in the "
        "weights that training began with"
    )
