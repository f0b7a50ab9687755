"""The core's loss for each problem type: one table, and the checked call that all losses share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..system.threads import get_num_threads
from .problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from .weights import LabelWeights

COSINE = "cosine"
"""The loss of embeddings that is no problem type's."""
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-5, 1e5
"""Beyond these, rounding in double would show in the loss (see `kd_loss.h`)."""
_Logits = NDArray[np.float32]
_Labels = NDArray[Any]


class LossParts(NamedTuple):
    """A loss, its gradient, and the two means it consists of.

    Attributes:
        loss: the mean over the rows.
        dlogits: d loss / d logits, float32 (B, K) or like the logits.
        hard: mean loss against the labels, over the rows that have one (0 if there are none).
        soft: mean loss against the teacher, over the rows that it has logits for (0 if there are none).
    """

    loss: float
    dlogits: NDArray[np.float32]
    hard: float
    soft: float


class LossKind(NamedTuple):
    """The way the core computes the loss of a problem type.

    Attributes:
        core: the core's number of the loss.
        checked_labels: (labels, logits) -> the array that the core takes.
        smooths: whether labels can be smoothed.
    """

    core: int
    checked_labels: Callable[[_Labels, _Logits], _Labels]
    smooths: bool


def compute_loss(
    logits: _Logits,
    teacher_logits: _Logits | None,
    labels: _Labels | None,
    problem_type: str,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    label_weights: LabelWeights | None = None,
    starts: NDArray[np.int64] | None = None,
    rows_of_batch: int | None = None,
) -> LossParts:
    """Return alpha * hard + (1 - alpha) * soft and its gradient, computed in double; `kd_loss.h` holds the formulas.

    `label_weights` are multiplied with as they are: nothing divides by their sum. With `starts`, int64 (rows + 1,), the
    logits are flat, and row r has those from starts[r] to starts[r + 1]. Where several rows of the loss belong to one
    of the batch, as a start and an end do, they follow each other in runs of `rows_of_batch`; errors name the batch's.

    Raises:
        ValueError: an argument is out of range, or shapes differ.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    kind = loss_kind(problem_type)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number from 0 (teacher only) to 1 (labels only)")
    if not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature is {temperature}; expected a number from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number from 0 (none) to 1")
    if label_smoothing and not kind.smooths:
        raise ValueError(
            f"label_smoothing is {label_smoothing} and problem_type {problem_type!r}; expected 0: a number has no "
            "other labels to share with"
        )
    loss, dlogits, hard, soft, not_finite, rows = _core.loss(
        kind.core,
        logits,
        teacher_logits,
        labels,
        alpha,
        temperature,
        label_smoothing,
        get_num_threads(),
        label_weights,
        starts,
    )
    if not_finite:
        count = len(logits) if starts is None else len(starts) - 1
        named = dict.fromkeys(row % (rows_of_batch or count) for row in rows)
        refuse_rows(not_finite, tuple(named), count, more=not_finite > len(rows))
    return LossParts(loss, dlogits, hard, soft)


def loss_kind(problem_type: str) -> LossKind:
    """Return the core's loss of a problem type. Raises ValueError for any other name."""
    if problem_type not in _KINDS:
        known = ", ".join(name for name in _KINDS if name in PROBLEM_TYPES)
        raise ValueError(f"problem_type is {problem_type!r}; expected one of {known}")
    return _KINDS[problem_type]


def checked_logits(name: str, values: ArrayLike) -> _Logits:
    """Return logits as float32 (B, K). Raises ValueError, which calls them `name`, for another number of dimensions."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected (rows, labels)")
    return array


def _classes(labels: _Labels, logits: _Logits) -> _Labels:
    """Return class indices as int64 (B,)."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels are {labels.dtype}; expected whole numbers (a class index for each row)")
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}; expected one label for each row")
    return np.ascontiguousarray(labels, dtype=np.int64)


def _numbers(labels: _Labels, logits: _Logits) -> _Labels:
    """Return a number for each logit as float32 (B, K)."""
    if labels.dtype.kind not in "fiu":
        raise TypeError(
            f"labels are {labels.dtype}; expected numbers, one for each of a row's {logits.shape[1]} logits"
        )
    if labels.ndim == 1 and logits.shape[1] == 1:
        labels = labels[:, None]
    if labels.ndim != 2:
        raise ValueError(f"labels have shape {labels.shape}; expected {logits.shape}, a number for each logit")
    return np.ascontiguousarray(labels, dtype=np.float32)


def refuse_rows(not_finite: int, rows: tuple[int, ...], count: int, *, more: bool, what: str = "rows") -> NoReturn:
    """Raise FloatingPointError for a loss that is not finite, which names the first `rows` that it comes from."""
    shown = ", ".join(map(str, rows)) + (", ..." if more else "")
    raise FloatingPointError(
        f"the loss of {not_finite} of {count} {what} is not finite ({what} {shown} of the batch): "
        "lower the learning rate, or look for NaN in the weights"
    )


_KINDS = {
    SINGLE_LABEL: LossKind(_core.LOSS_SINGLE_LABEL, _classes, smooths=True),
    MULTI_LABEL: LossKind(_core.LOSS_MULTI_LABEL, _numbers, smooths=True),
    REGRESSION: LossKind(_core.LOSS_REGRESSION, _numbers, smooths=False),
    COSINE: LossKind(_core.LOSS_COSINE, _numbers, smooths=False),
}
