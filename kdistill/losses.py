"""Losses on logits: value and gradient, computed in the C core in double precision.

There is one loss for each problem type of `transformers`, with and without a teacher; `kd_loss.h` holds the formulas.
"""

from __future__ import annotations

import math
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .runtime import get_num_threads

NO_LABEL: int = _core.NO_LABEL
"""The label of a row that has none (PyTorch's ignore_index, -100)."""

_KINDS = {
    SINGLE_LABEL: _core.LOSS_SINGLE_LABEL,
    MULTI_LABEL: _core.LOSS_MULTI_LABEL,
    REGRESSION: _core.LOSS_REGRESSION,
}


class LossParts(NamedTuple):
    """A loss, its gradient, and what it is made of.

    loss: the mean over the rows. dlogits: float32 (B, K). hard: mean loss against the labels, over the rows that have
    one (0 if there are none). soft: mean loss against the teacher (0 without one).
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
    return label_loss(logits, labels, SINGLE_LABEL, label_smoothing)


def label_loss(
    logits: ArrayLike, labels: ArrayLike, problem_type: str, label_smoothing: float = 0.0
) -> tuple[float, NDArray[np.float32]]:
    """Returns the mean loss against the labels and its gradient, float32 (B, K), as `transformers` defines it.

    Single-label: `cross_entropy`. Regression: the mean of (logits - labels)^2, as torch's MSELoss. Multi-label: the
    mean over rows and labels of -(y log sigmoid(z) + (1 - y) log(1 - sigmoid(z))), as torch's BCEWithLogitsLoss.

    Args:
        logits: float32 (B, K).
        labels: whole numbers (B,) for single_label_classification; numbers (B, K), or (B,) when K is 1, otherwise.
        problem_type: single_label_classification, multi_label_classification or regression.
        label_smoothing: as in `cross_entropy`; the other problem types have none.

    Raises:
        ValueError: a label is missing (-100, or NaN), and what `cross_entropy` raises.
        TypeError: labels are not numbers of the problem type's kind.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    student = _logits("logits", logits)
    checked = _labels(labels, problem_type, student)
    missing = checked == NO_LABEL if problem_type == SINGLE_LABEL else np.isnan(checked)
    if missing.any():
        row = np.argwhere(missing)[0][0]
        raise ValueError(
            f"labels[{row}] is {checked[row]}, which marks a row without a label; "
            "a loss against labels needs one for every row (distillation_loss does not)"
        )
    parts = _loss(student, None, checked, problem_type, 1.0, 1.0, label_smoothing)
    return parts.loss, parts.dlogits


def distillation_loss(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    problem_type: str = SINGLE_LABEL,
) -> tuple[float, NDArray[np.float32]]:
    """Returns the distillation loss and its gradient: alpha * hard + (1 - alpha) * soft, averaged over the rows.

    hard is `label_loss`. soft, with T the temperature, is for

    single_label_classification: T^2 KL(softmax(teacher / T) || softmax(student / T)), of Hinton, Vinyals and Dean
        (arXiv:1503.02531).
    multi_label_classification: T^2 times the mean over the labels of KL(p || q), with the two-way distributions
        (p, 1 - p) of p = sigmoid(teacher / T) and q = sigmoid(student / T): the one-versus-all reduction of Yang et al.
        (arXiv:2308.06453), averaged as the hard loss is.
    regression: the mean of (student - teacher)^2; temperature takes no part.

    A row without a label (-100, or NaN in floating-point labels, or labels=None) counts as alpha = 0.

    Args:
        logits: the student's, float32 (B, K).
        teacher_logits: the teacher's, before temperature, float32 (B, K).
        labels: as in `label_loss`, some of them missing perhaps.
        alpha: weight of the labels, 0 to 1.
        temperature: T > 0.
        label_smoothing: as in `label_loss`, for the labels' part alone.
        problem_type: one of the above.

    Returns:
        (loss, dlogits), dlogits float32 (B, K).

    Raises:
        ValueError: shapes differ, or alpha, temperature, label_smoothing, problem_type or a label is out of range.
        TypeError: labels are not numbers of the problem type's kind.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    parts = distillation_loss_parts(logits, teacher_logits, labels, alpha, temperature, label_smoothing, problem_type)
    return parts.loss, parts.dlogits


def distillation_loss_parts(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    problem_type: str = SINGLE_LABEL,
) -> LossParts:
    """Returns what `distillation_loss` does, and both parts of the loss; same arguments, same errors."""
    student, teacher = _logits("logits", logits), _logits("teacher_logits", teacher_logits)
    checked = None if labels is None else _labels(labels, problem_type, student)
    return _loss(student, teacher, checked, problem_type, alpha, temperature, label_smoothing)


def _loss(
    logits: NDArray[np.float32],
    teacher_logits: NDArray[np.float32] | None,
    labels: NDArray[np.int64] | NDArray[np.float32] | None,
    problem_type: str,
    alpha: float,
    temperature: float,
    label_smoothing: float,
) -> LossParts:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number from 0 (teacher only) to 1 (labels only)")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a finite number above 0")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number from 0 (none) to 1")
    if label_smoothing and problem_type != SINGLE_LABEL:
        raise ValueError(f"label_smoothing is {label_smoothing} and problem_type {problem_type!r}; expected 0")
    loss, dlogits, hard, soft, not_finite, rows = _core.loss(
        _kind(problem_type), logits, teacher_logits, labels, alpha, temperature, label_smoothing, get_num_threads()
    )
    if not_finite:
        _refuse(not_finite, rows, len(logits))
    return LossParts(loss, dlogits, hard, soft)


def _kind(problem_type: str) -> int:
    if problem_type not in _KINDS:
        raise ValueError(f"problem_type is {problem_type!r}; expected one of {', '.join(_KINDS)}")
    return _KINDS[problem_type]


def _logits(name: str, values: ArrayLike) -> NDArray[np.float32]:
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected (rows, labels)")
    return array


def _labels(
    values: ArrayLike, problem_type: str, logits: NDArray[np.float32]
) -> NDArray[np.int64] | NDArray[np.float32]:
    array = np.asarray(values)
    if problem_type == SINGLE_LABEL:
        if array.dtype.kind not in "iu":
            raise TypeError(f"labels are {array.dtype}; expected whole numbers (a class index for each row)")
        if array.ndim != 1:
            raise ValueError(f"labels have shape {array.shape}; expected one label for each row")
        return np.ascontiguousarray(array, dtype=np.int64)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"labels are {array.dtype}; expected numbers, one for each of a row's {logits.shape[1]} logits")
    if array.ndim == 1 and logits.shape[1] == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"labels have shape {array.shape}; expected {logits.shape}, a number for each logit")
    return np.ascontiguousarray(array, dtype=np.float32)


def _refuse(not_finite: int, rows: tuple[int, ...], count: int) -> NoReturn:
    shown = ", ".join(map(str, rows)) + (", ..." if not_finite > len(rows) else "")
    raise FloatingPointError(
        f"the loss of {not_finite} of {count} rows is not finite (rows {shown} of the batch): "
        "lower the learning rate, or look for NaN in the weights"
    )
