"""Rows that have no teacher's answer, NaN in its place: which they are, and what the others are a mean over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.blocks import blocks_of
from ..data.dataset import Dataset
from ..data.labels import NO_LABEL
from ..data.ragged import Outputs, Ragged, units
from ..metrics.prediction import Labels
from ..tasks.base import Task


def answered_rows(outputs: Outputs, rows: Dataset) -> NDArray[np.bool_]:
    """Return which rows have an answer, bool (rows,): no NaN, but for tokens that take no part.

    Args:
        outputs: of a teacher for the rows.
        rows: the rows.
    """
    values = units(outputs)
    there = np.zeros(len(values), np.bool_)
    for block in blocks_of(len(values)):
        there[block] = ~np.isnan(values[block]).any(axis=1)
    if isinstance(outputs, Ragged):
        if rows.per_token:
            there |= rows.labels == NO_LABEL
        there = np.logical_and.reduceat(there, outputs.starts[:-1])
    return np.asarray(there)


def taught_parts(task: Task, taught: Outputs, labels: Labels) -> int:
    """Return over how many rows, or tokens that take part, of a batch the teachers' part of the loss is a mean.

    Args:
        task: the student's.
        taught: the teachers' answers, NaN where there are none.
        labels: of the rows.
    """
    there = ~np.isnan(units(taught)).any(axis=1)
    if task.taught is not None:
        return int((there & task.taught(labels)).sum())
    return int(there.sum() if not isinstance(taught, Ragged) else there[taught.starts[:-1]].sum())
