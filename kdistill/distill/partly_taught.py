"""The loss of a batch in which some rows have no teacher's answer: these learn from their labels alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.labels import labelled_rows
from ..data.ragged import Outputs, Ragged, take_rows, units, units_of
from ..losses.kinds import LossParts
from ..metrics.prediction import Labels
from ..tasks.base import Task


class TaughtLoss(NamedTuple):
    """The loss of a batch, and over how many rows, or tokens, the teachers' part is a mean."""

    parts: LossParts
    taught: int


def answered_rows(outputs: Outputs) -> NDArray[np.bool_]:
    """Return which rows have an answer, bool (rows,): those without NaN."""
    there = ~np.isnan(units(outputs)).any(axis=1)
    if isinstance(outputs, Ragged):
        there = np.logical_and.reduceat(there, outputs.starts[:-1])
    return np.asarray(there)


def taught_loss(task: Task, logits: Outputs, taught: Outputs, labels: Labels, **settings: Any) -> TaughtLoss:
    """Return `Task.teacher_loss`, in which a row without a teacher's answer counts as alpha = 1.

    The loss is the mean over all rows as ever: that of the rows with an answer and that of the others, weighted by how
    many they are (of tokens that take part, where labels are of tokens). A row with neither adds 0.

    Args:
        task: the student's.
        logits: the student's.
        taught: the teacher's, NaN in rows that have none.
        labels: of the rows.
        **settings: alpha, temperature and label_smoothing.
    """
    there = answered_rows(taught)
    if there.all():
        return TaughtLoss(task.teacher_loss(logits, taught, labels, **settings), task.parts(labels, len(there)))
    gradient, loss, hard, labelled = np.zeros_like(units(logits)), 0.0, 0.0, 0
    soft, count = 0.0, task.parts(labels, len(there))
    rows = np.flatnonzero(there)
    parts_taught = 0
    if len(rows):
        own = _labels_of(task, logits, labels, rows)
        found = task.teacher_loss(take_rows(logits, rows), take_rows(taught, rows), own, **settings)
        parts_taught, labelled, soft = task.parts(own, len(rows)), _labelled(task, own), found.soft
        loss, hard = found.loss * parts_taught, found.hard * labelled
        gradient[_units(logits, rows)] = found.dlogits * np.float32(parts_taught / max(count, 1))
    rows = np.flatnonzero(~there)
    own = _labels_of(task, logits, labels, rows)
    if not task.labels_per_token:
        rows = rows[labelled_rows(own)]
        own = _labels_of(task, logits, labels, rows)
    if len(rows) and _labelled(task, own):
        of_labels, by_logits = task.label_loss(
            take_rows(logits, rows), own, label_smoothing=settings["label_smoothing"]
        )
        more = _labelled(task, own)
        loss, hard, labelled = loss + of_labels * more, hard + of_labels * more, labelled + more
        gradient[_units(logits, rows)] = by_logits * np.float32(more / max(count, 1))
    parts = LossParts(loss / max(count, 1), gradient, hard / max(labelled, 1), soft)
    return TaughtLoss(parts, parts_taught)


def _labels_of(task: Task, logits: Outputs, labels: Labels, rows: NDArray[np.int64]) -> Labels:
    return labels[_units(logits, rows) if task.labels_per_token else rows]


def _units(logits: Outputs, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return units_of(logits.starts, rows) if isinstance(logits, Ragged) else rows


def _labelled(task: Task, labels: Labels) -> int:
    return int((labels >= 0).sum() if task.labels_per_token else labelled_rows(labels).sum())
