"""Losses against labels: cross-entropy, and those of the other problem types of `transformers`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.labels import labelled_rows
from .kinds import checked_logits, compute_loss, loss_kind
from .problem_types import SINGLE_LABEL, deduced_problem_type
from .weights import LabelWeights, weights_of_batch


def cross_entropy(
    logits: ArrayLike, labels: ArrayLike, label_smoothing: float = 0.0, class_weights: ArrayLike | None = None
) -> tuple[float, NDArray[np.float32]]:
    """Return the mean softmax cross-entropy and its gradient.

    Args:
        logits: float32 (B, K).
        labels: whole numbers (B,), 0 to K - 1.
        label_smoothing: share of each label's probability that is spread evenly over all K, 0 to 1 (Szegedy et al.,
            2016, arXiv:1512.00567); the onehot below becomes (1 - share) * onehot + share / K.
        class_weights: K numbers w >= 0, as torch's CrossEntropyLoss(weight=w): each term of the cross-entropy,
            -onehot log softmax, is multiplied by its class's weight, and the mean divides by the sum of w[label] over
            the rows instead of by B.

    Returns:
        (loss, dlogits), dlogits float32 (B, K) = d loss / d logits = (softmax(logits) - onehot(labels)) / B without
        weights.

    Raises:
        ValueError: shapes differ, or a label, a weight or label_smoothing is out of range.
        TypeError: labels are not whole numbers.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    return label_loss(logits, labels, SINGLE_LABEL, label_smoothing, class_weights)


def label_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    problem_type: str | None,
    label_smoothing: float = 0.0,
    class_weights: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
) -> tuple[float, NDArray[np.float32]]:
    """Return the mean loss against the labels and its gradient, float32 (B, K), as `transformers` defines it.

    Single-label: `cross_entropy`. Regression: the mean of (logits - labels)^2, as torch's MSELoss. Multi-label: the
    mean over rows and labels of -(y log sigmoid(z) + (1 - y) log(1 - sigmoid(z))), as torch's BCEWithLogitsLoss.

    Args:
        logits: float32 (B, K).
        labels: whole numbers (B,) for single_label_classification; numbers (B, K), or (B,) when K is 1, otherwise.
        problem_type: single_label_classification, multi_label_classification or regression; None deduces it: K = 1 is
            a regression, labels that are whole numbers are single-label, others multi-label.
        label_smoothing: as in `cross_entropy`; of several labels each y becomes (1 - share) * y + share / 2. A
            regression has none.
        class_weights: of single_label_classification, as in `cross_entropy`.
        pos_weight: of multi_label_classification, K numbers w >= 0, as torch's BCEWithLogitsLoss(pos_weight=w): the
            term y log sigmoid(z) is multiplied by w, with the y that label_smoothing makes.

    Raises:
        ValueError: a label is missing (-100, or NaN), weights that the problem type does not have, and what
            `cross_entropy` raises.
        TypeError: labels are not numbers of the problem type's kind.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    student, given = checked_logits("logits", logits), np.asarray(labels)
    problem_type = problem_type or deduced_problem_type(student.shape[1], given)
    checked = loss_kind(problem_type).checked_labels(given, student)
    weights = weights_of_batch(problem_type, checked, student.shape[1], class_weights, pos_weight)
    return plain_label_loss(student, checked, label_smoothing, weights, problem_type=problem_type)


def plain_label_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: float = 0.0,
    label_weights: LabelWeights | None = None,
    *,
    problem_type: str,
) -> tuple[float, NDArray[np.float32]]:
    """Return `label_loss` with weights that are multiplied with as they are; same errors."""
    student, given = checked_logits("logits", logits), np.asarray(labels)
    checked = loss_kind(problem_type).checked_labels(given, student)
    missing = ~labelled_rows(checked)
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"labels[{row}] is {checked[row]}, which marks a row without a label; "
            "a loss against labels needs one for every row (distillation_loss does not)"
        )
    parts = compute_loss(
        student,
        None,
        checked,
        problem_type,
        alpha=1.0,
        temperature=1.0,
        label_smoothing=label_smoothing,
        label_weights=label_weights,
    )
    return parts.loss, parts.dlogits
