"""The loss of answers that are spans: a softmax over a row's tokens for the first one, another for the last."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from .kinds import LossParts, checked_logits, compute_loss
from .problem_types import SINGLE_LABEL


def span_loss(
    logits: ArrayLike,
    starts: ArrayLike,
    labels: ArrayLike | None,
    teacher_logits: ArrayLike | None = None,
    *,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> LossParts:
    """Return alpha * hard + (1 - alpha) * soft of the spans' first and last tokens: the mean of the two, over the rows.

    hard is the cross-entropy of a softmax over all tokens of the row, as the question answering of `transformers` has
    it; soft is T^2 KL(softmax(teacher / T) || softmax(student / T)) over them (arXiv:1503.02531). A row without a span
    counts as alpha = 0, one without a teacher (NaN in all of its logits, or no teacher at all) as alpha = 1.

    Args:
        logits: float32 (N, 2), a token's as first and as last of the span, of packed rows.
        starts: int64 (B + 1,): row b is tokens starts[b] to starts[b + 1]; each row has at least one.
        labels: whole numbers (B, 2), first and last token counted within the row, or -100 for both or either where
            there is none; None: no row has a span.
        teacher_logits: like logits; None: no teacher.
        alpha: weight of the labels, 0 to 1.
        temperature: T, 1e-5 to 1e5.
        label_smoothing: share of a label spread evenly over the row's tokens, 0 to 1.

    Returns:
        The parts; dlogits is float32 (N, 2), hard the mean over the labels that there are.

    Raises:
        ValueError: shapes differ, or starts, a label, alpha, temperature or label_smoothing is out of range.
        TypeError: labels or starts are not whole numbers.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    student, bounds = _columns("logits", logits), _checked_starts(starts)
    tokens, rows = student.size // 2, len(bounds) - 1
    teacher = None if teacher_logits is None else _columns("teacher_logits", teacher_logits)
    if bounds[-1] != tokens:
        raise ValueError(f"logits has {tokens} rows; expected {bounds[-1]}, the tokens of starts")
    if teacher is not None and teacher.size != student.size:
        raise ValueError(f"teacher_logits has {teacher.size // 2} rows; expected {tokens}, as logits has")
    parts = compute_loss(
        student,
        teacher,
        None if labels is None else _checked_labels(np.asarray(labels), np.diff(bounds)),
        SINGLE_LABEL,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
        starts=np.concatenate([bounds, bounds[1:] + tokens]),
        rows_of_batch=rows,
    )
    return parts._replace(dlogits=np.ascontiguousarray(parts.dlogits.reshape(2, tokens).T))


def blind_span_loss(starts: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the least mean loss of first and last tokens that a model can have that looks at no text.

    It knows how often a row has no answer, which is its first token, and takes all other tokens for equally likely.

    Args:
        starts: int64 (B + 1,): row b is tokens starts[b] to starts[b + 1].
        labels: int64 (B, 2), first and last token counted within the row; every row has them.
    """
    others = np.maximum(np.diff(starts)[:, None] - 1, 1)
    none = labels == 0
    share = np.clip(none.mean(), 1e-6, 1 - 1e-6)
    return float(-np.where(none, np.log(share), np.log((1 - share) / others)).mean())


def loss_of_spans(logits: ArrayLike, starts: ArrayLike, start_positions: ArrayLike, end_positions: ArrayLike) -> float:
    """Return the mean of the mean losses of first and last tokens, as a model of transformers returns it.

    Args:
        logits: float32 (N, 2), as in `span_loss`.
        starts: int64 (B + 1,), likewise.
        start_positions: whole numbers (B,), the first token of each answer, counted in its row. One outside of the row
            is ignored; the mean is over the others.
        end_positions: likewise, the last token.

    Raises:
        ValueError: a shape differs, or all positions are ignored.
        TypeError: positions are not whole numbers.
    """
    bounds = _checked_starts(starts)
    lengths = np.diff(bounds)
    losses: list[float] = []
    for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
        given = np.asarray(positions)
        if given.dtype.kind not in "iu":
            raise TypeError(f"{name} are {given.dtype}; expected whole numbers")
        if given.shape != lengths.shape:
            raise ValueError(f"{name} have shape {given.shape}; expected {lengths.shape}, one for each row")
        known = np.where((given < 0) | (given >= lengths), _core.NO_LABEL, given)
        labels = np.full((len(lengths), 2), _core.NO_LABEL)
        labels[:, len(losses)] = known
        if (known == _core.NO_LABEL).all():
            raise ValueError(f"{name} are all outside of their rows; expected one inside of a row at least")
        losses.append(span_loss(logits, bounds, labels, alpha=1.0).hard)
    return sum(losses) / 2


def _columns(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """Return logits (N, 2) as all first ones, then all second ones."""
    array = checked_logits(name, values)
    if array.shape[1] != 2:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (tokens, 2), one for the first token, one for the last"
        )
    return array.T.ravel()


def _checked_starts(starts: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(starts)
    if array.dtype.kind not in "iu":
        raise TypeError(f"starts are {array.dtype}; expected whole numbers")
    if array.ndim != 1 or len(array) < 2 or array[0] != 0 or (np.diff(array) < 1).any():
        raise ValueError("starts must begin with 0 and grow with every row; expected the starts of a packed batch")
    return np.ascontiguousarray(array, dtype=np.int64)


def _checked_labels(labels: NDArray[np.generic], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return labels (B, 2) as all first tokens, then all last ones."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels are {labels.dtype}; expected whole numbers (a span's first and last token)")
    if labels.shape != (len(lengths), 2):
        raise ValueError(
            f"labels have shape {labels.shape}; expected ({len(lengths)}, 2), a first and a last token a row"
        )
    array = labels.astype(np.int64)
    wrong = (array != _core.NO_LABEL) & ((array < 0) | (array >= lengths[:, None]))
    if wrong.any():
        row, end = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"labels[{row}][{end}] is {array[row, end]}; expected 0 to {lengths[row] - 1}, a token of that row, "
            f"or {_core.NO_LABEL} for a row without a span"
        )
    return np.ascontiguousarray(array.T).ravel()
