"""Losses against labels and a teacher's logits: knowledge distillation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .kinds import LossParts, checked_logits, compute_loss, loss_kind
from .problem_types import SINGLE_LABEL
from .weights import LabelWeights, weights_of_batch


def distillation_loss(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    problem_type: str = SINGLE_LABEL,
    class_weights: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
) -> tuple[float, NDArray[np.float32]]:
    """Return the distillation loss and its gradient: alpha * hard + (1 - alpha) * soft, averaged over the rows.

    hard is `label_loss`. soft, with T the temperature, is for

    single_label_classification: T^2 KL(softmax(teacher / T) || softmax(student / T)), of Hinton, Vinyals and Dean
        (arXiv:1503.02531).
    multi_label_classification: T^2 times the mean over the labels of KL(p || q), with the two-way distributions
        (p, 1 - p) of p = sigmoid(teacher / T) and q = sigmoid(student / T): the one-versus-all reduction of Yang et al.
        (arXiv:2308.06453), averaged as the hard loss is.
    regression: the mean of (student - teacher)^2; temperature takes no part.

    A row without a label (-100, or NaN in floating-point labels, or labels=None) counts as alpha = 0, and one without
    a teacher (NaN in all its logits) as alpha = 1; a row without both adds nothing to the loss.

    Args:
        logits: the student's, float32 (B, K).
        teacher_logits: the teacher's, before temperature, float32 (B, K), NaN in rows that it has none for.
        labels: as in `label_loss`, some of them missing perhaps.
        alpha: weight of the labels, 0 to 1.
        temperature: T, 1e-5 to 1e5.
        label_smoothing: as in `label_loss`, for the labels' part alone.
        problem_type: one of the above.
        class_weights: as in `label_loss`, for the labels' part alone. They are divided by their sum over the rows with
            a label, so these rows have the same total weight in the mean over all B rows as without weights.
        pos_weight: as in `label_loss`, for the labels' part alone.

    Returns:
        (loss, dlogits), dlogits float32 (B, K).

    Raises:
        ValueError: shapes differ, or alpha, temperature, label_smoothing, problem_type, a weight or a label is out of
            range.
        TypeError: labels are not numbers of the problem type's kind.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    weights = None
    if class_weights is not None or pos_weight is not None:
        student = checked_logits("logits", logits)
        checked = None if labels is None else loss_kind(problem_type).checked_labels(np.asarray(labels), student)
        weights = weights_of_batch(problem_type, checked, student.shape[1], class_weights, pos_weight)
    parts = distillation_loss_parts(
        logits, teacher_logits, labels, alpha, temperature, label_smoothing, problem_type, weights
    )
    return parts.loss, parts.dlogits


def distillation_loss_parts(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike | None = None,
    alpha: float = 0.5,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    problem_type: str = SINGLE_LABEL,
    label_weights: LabelWeights | None = None,
) -> LossParts:
    """Return `distillation_loss` with both of its parts, and with weights that are multiplied with as they are.

    The other arguments and the errors are the same.
    """
    student, teacher = checked_logits("logits", logits), checked_logits("teacher_logits", teacher_logits)
    checked = None if labels is None else loss_kind(problem_type).checked_labels(np.asarray(labels), student)
    return compute_loss(
        student,
        teacher,
        checked,
        problem_type,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
        label_weights=label_weights,
    )
