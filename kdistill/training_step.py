"""One update of the parameters, and the rows that each update reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .data import Dataset, RandomSampler
from .metrics import Labels, Logits
from .optim import AdamW, clip_grad_norm_

RowIndices = NDArray[np.int64]
LossFunction = Callable[[Logits, Labels, RowIndices], tuple[float, Logits]]
"""(logits, labels, rows' places in the data) -> (mean loss, its gradient by the logits)."""


def rows_of_steps(sampler: RandomSampler, rows_per_step: int, first: int, last: int) -> Iterator[RowIndices]:
    """The rows of steps first..last-1, counted over all epochs; an epoch's last step has the rows that are left."""
    steps_per_epoch = math.ceil(sampler.n / rows_per_step)
    for step in range(first, last):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first:
            order = sampler.permutation(epoch)
        yield order[position * rows_per_step : (position + 1) * rows_per_step]


def training_step(
    optimizer: AdamW,
    dataset: Dataset,
    rows: RowIndices,
    *,
    batch_size: int,
    max_grad_norm: float,
    compute_loss: LossFunction,
) -> tuple[float, float]:
    """Update the optimiser's model once from `rows`, in micro-batches of `batch_size`.

    Each micro-batch's gradient counts by its share of the rows, so that the update is that of one large batch. A
    `max_grad_norm` of 0 clips nothing.

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
    grad_norm = clip_grad_norm_(model, max_grad_norm or math.inf)
    if not math.isfinite(grad_norm):
        raise _not_finite("gradient", rows)
    optimizer.step()
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
    return FloatingPointError(
        f"the {what} is not finite, from row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} of the training data "
        "(the first is row 0). The parameters are those before this step; lower learning_rate, or look for NaN in the "
        "weights that training began with"
    )
