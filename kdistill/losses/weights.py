"""Weights of the labels in the loss: `class_weights` of one label, `pos_weight` of several, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .problem_types import MULTI_LABEL, SINGLE_LABEL

LabelWeights = NDArray[np.float64]
"""A finite number >= 0 for each label, float64 (K,), as the core takes them."""
_ARGUMENT_OF = {SINGLE_LABEL: "class_weights", MULTI_LABEL: "pos_weight"}


def argument_of(problem_type: str) -> str | None:
    """Return the name of the weights that a problem type has; None for a regression."""
    return _ARGUMENT_OF.get(problem_type)


def check_argument(name: str, problem_type: str) -> None:
    """Raise ValueError where weights called `name` are given for a problem type that has others, or none."""
    expected = argument_of(problem_type)
    if expected is None:
        raise ValueError(
            f"{name} is given with problem_type {problem_type!r}, whose loss has no weights of labels; leave it out "
            "(for a loss of your own, override compute_loss of the trainer)"
        )
    if name != expected:
        raise ValueError(f"{name} is given with problem_type {problem_type!r}; expected {expected} instead")


def checked_weights(name: str, values: ArrayLike, labels: int) -> LabelWeights:
    """Return weights as float64 (labels,).

    Raises:
        ValueError: their number is another, or one is negative or not finite, or all are 0; the message calls them
            `name`.
    """
    weights = np.array(values, dtype=np.float64)
    if weights.shape != (labels,):
        raise ValueError(f"{name} has shape {weights.shape}; expected ({labels},), one number for each label")
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"{name}[{place}] is {weights[place]}; expected a finite number >= 0")
    if not weights.any():
        raise ValueError(f"{name} is 0 for every label; expected one above 0, or there is nothing to learn")
    return weights


def weights_of_batch(
    problem_type: str,
    labels: NDArray[Any] | None,
    outputs: int,
    class_weights: ArrayLike | None,
    pos_weight: ArrayLike | None,
) -> LabelWeights | None:
    """Return the core's weights for a batch; None where none are given.

    Args:
        problem_type: that of the loss.
        labels: of the batch, checked, some of them missing perhaps.
        outputs: labels of the model.
        class_weights: weights of the classes, scaled here by `scaled_to_rows`.
        pos_weight: weights of labels that are true, which are not scaled.

    Raises:
        ValueError: weights that the problem type does not have, or what `checked_weights` raises.
    """
    found = None
    for name, values in (("class_weights", class_weights), ("pos_weight", pos_weight)):
        if values is not None:
            check_argument(name, problem_type)
            found = checked_weights(name, values, outputs)
    return found if found is None or class_weights is None else scaled_to_rows(found, labels)


def scaled_to_rows(class_weights: LabelWeights, labels: NDArray[Any] | None) -> LabelWeights:
    """Return weights of classes divided by their mean over the rows that have a label.

    A mean over these rows of losses so weighted is the weighted mean, as torch's CrossEntropyLoss(weight=...) takes it:
    the sum of the weighted losses divided by that of the rows' weights. Where these are all 0, so is the loss.

    Args:
        class_weights: float64 (K,).
        labels: class indices, int64 (rows,), NO_LABEL (-100) where one is missing; None: no row has one.
    """
    known = class_weights[labels[labels >= 0]] if labels is not None else class_weights[:0]
    mean = known.mean() if known.size else 0.0
    return class_weights / mean if mean > 0 else class_weights
