"""Losses on logits: value and gradient, computed in the C core in double precision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdistill import _core

NO_LABEL: int = _core.NO_LABEL
"""The label of a row that has none (PyTorch's ignore_index, -100)."""


class LossParts(NamedTuple):
    """A loss, its gradient, and what it is made of.

    loss: the mean over the rows. dlogits: float32 (B, K). hard: mean cross-entropy of the rows with labels (0 if
    there are none). soft: mean T^2 KL.
    """

    loss: float
    dlogits: NDArray[np.float32]
    hard: float
    soft: float


def cross_entropy(
    logits: ArrayLike, labels: ArrayLike, label_smoothing: float = 0.0
) -> tuple[float, NDArray[np.float32]]:
    """Returns the mean softmax cross-entropy and its gradient.

    Args:
        logits: float32 (B, K).
        labels: whole numbers (B,), 0 to K - 1.
        label_smoothing: share of each label's probability that is spread evenly over all K, 0 to 1 (Szegedy et al.,
            2016, arXiv:1512.00567); the onehot below becomes (1 - share) * onehot + share / K.

    Returns:
        (loss, dlogits), dlogits float32 (B, K) = d loss / d logits = (softmax(logits) - onehot(labels)) / B.

    Raises:
        ValueError: shapes differ, or a label or label_smoothing is out of range.
        TypeError: labels are not whole numbers.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    checked = _labels(labels)
    _check_smoothing(label_smoothing)
    if (missing := np.flatnonzero(checked == NO_LABEL)).size:
        raise ValueError(
            f"labels[{missing[0]}] is {NO_LABEL}, which marks a row without a label; "
            "cross_entropy needs one for every row (distillation_loss does not)"
        )
    student = _logits("logits", logits)
    hard, _, dlogits = _core.distillation_loss(student, None, checked, 1.0, 1.0)
    hard += _smooth(student, checked, label_smoothing, np.ones(len(hard)), dlogits)
    _require_finite(hard, student)
    return float(hard.mean()), dlogits


def distillation_loss(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> tuple[float, NDArray[np.float32]]:
    """Returns the distillation loss of Hinton, Vinyals and Dean (arXiv:1503.02531) and its gradient.

        alpha * CE(labels) + (1 - alpha) * T^2 * KL(softmax(teacher / T) || softmax(student / T))

    averaged over the rows. A row without a label (-100, or labels=None) counts as alpha = 0.

    Args:
        logits: the student's, float32 (B, K).
        teacher_logits: the teacher's, before temperature, float32 (B, K).
        labels: whole numbers (B,), 0 to K - 1 or -100.
        alpha: weight of the labels, 0 to 1.
        temperature: T > 0.
        label_smoothing: as in `cross_entropy`, for the labels' part alone.

    Returns:
        (loss, dlogits), dlogits float32 (B, K).

    Raises:
        ValueError: shapes differ, or alpha, temperature, label_smoothing or a label is out of range.
        TypeError: labels are not whole numbers.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    parts = distillation_loss_parts(logits, teacher_logits, labels, alpha, temperature, label_smoothing)
    return parts.loss, parts.dlogits


def distillation_loss_parts(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> LossParts:
    """Returns what `distillation_loss` does, and both parts of the loss; same arguments, same errors."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number from 0 (teacher only) to 1 (labels only)")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; expected a finite number above 0")
    _check_smoothing(label_smoothing)
    student, teacher = _logits("logits", logits), _logits("teacher_logits", teacher_logits)
    checked = None if labels is None else _labels(labels)
    hard, soft, dlogits = _core.distillation_loss(student, teacher, checked, alpha, temperature)
    labelled = np.zeros(len(hard), bool) if checked is None else checked != NO_LABEL
    weight = np.where(labelled, alpha, 0.0)
    if checked is not None:
        hard += _smooth(student, checked, label_smoothing, weight, dlogits)
    with np.errstate(invalid="ignore"):  # 0 * inf: refused below, by row
        rows = weight * hard + (1 - weight) * soft
    _require_finite(rows, student, teacher)
    hard_mean = float(hard[labelled].mean()) if labelled.any() else 0.0
    return LossParts(float(rows.mean()), dlogits, hard_mean, float(soft.mean()))


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number from 0 (none) to 1")


def _smooth(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    share: float,
    weight: NDArray[np.float64],
    dlogits: NDArray[np.float32],
) -> NDArray[np.float64]:
    """What label smoothing adds to each row's cross-entropy, float64 (B,); dlogits takes its gradient times weight.

    -(1 - share) log p_y - share * mean_k(log p_k) = -log p_y + share * (z_y - mean_k(z_k)), as log p_k is z_k less a
    number that is the same for all k: the gradient does not depend on the logits. Rows without a label have weight 0.
    """
    rows, labels_of_rows = np.flatnonzero(labels != NO_LABEL), labels[labels != NO_LABEL]
    added = np.zeros(len(labels))
    if share == 0:
        return added
    gradient = np.full(logits.shape, -1.0 / logits.shape[1])
    gradient[rows, labels_of_rows] += 1.0
    dlogits += (share / len(labels)) * weight[:, None] * gradient
    with np.errstate(invalid="ignore"):  # a logit that is not finite is refused by the caller, which names its row
        added[rows] = share * (gradient * logits.astype(np.float64)).sum(axis=1)[rows]
    return added


def _logits(name: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected (rows, labels)")
    return array


def _labels(values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"labels are {array.dtype}; expected whole numbers (a class index for each row)")
    if array.ndim != 1:
        raise ValueError(f"labels have shape {array.shape}; expected one label for each row")
    return np.ascontiguousarray(array, dtype=np.int64)


def _require_finite(row_losses: NDArray[np.float64], *logits: NDArray[np.float32]) -> None:
    """A logit of -inf can leave the loss finite, but no working model has one."""
    finite = np.isfinite(row_losses)
    for array in logits:
        finite &= np.isfinite(array).all(axis=1)
    bad = np.flatnonzero(~finite)
    if bad.size:
        shown = ", ".join(map(str, bad[:8])) + (", ..." if bad.size > 8 else "")
        raise FloatingPointError(
            f"the loss of {bad.size} of {row_losses.size} rows is not finite (rows {shown} of the batch): "
            "lower the learning rate, or look for NaN in the weights"
        )
