"""Metrics of classification, most of them from the predicted and the true labels of each row.

These are bool (n, labels), or `Classes` where each row has one label: then nothing takes memory for rows times labels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.labels import NO_LABEL
from .prediction import Labels, Logits

Indicators = NDArray[np.bool_]
"""Labels of each row, bool (n, labels): any number of them."""


class Classes(NamedTuple):
    """The one label of each row.

    Attributes:
        ids: int64 (n,).
        labels: how many labels there are.
    """

    ids: NDArray[np.int64]
    labels: int


RowLabels = Indicators | Classes
"""Labels of each row."""


class Counts(NamedTuple):
    """How many rows have each label, int64 (labels,): predicted, truly, and both."""

    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    both: NDArray[np.int64]

    @classmethod
    def of(cls, predicted: RowLabels, true: RowLabels) -> Counts:
        """Count the rows of two arrays of the same kind."""
        if isinstance(predicted, Classes) and isinstance(true, Classes):
            right = predicted.ids[predicted.ids == true.ids]
            return cls(*(np.bincount(ids, minlength=true.labels) for ids in (predicted.ids, true.ids, right)))
        assert not isinstance(predicted, Classes)
        assert not isinstance(true, Classes)
        return cls(predicted.sum(axis=0), true.sum(axis=0), (predicted & true).sum(axis=0))


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the probabilities of each row of logits, float64 (n, num_labels)."""
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the logarithms of `softmax`, float64 (n, num_labels), which differ where probabilities round to 1."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    others = np.exp(below)
    np.put_along_axis(others, logits.argmax(axis=1, keepdims=True), 0, axis=1)
    logarithms: NDArray[np.float64] = below - np.log1p(others.sum(axis=1, keepdims=True))
    return logarithms


def accuracy(logits: Logits, labels: Labels) -> float:
    """Return the share of labelled rows whose largest logit is the label's; NaN when no row has a label."""
    labelled = labels != NO_LABEL
    hits = logits[labelled].argmax(axis=1) == labels[labelled]
    return float(hits.mean()) if hits.size else math.nan


def majority_share(labels: Labels) -> float:
    """Return the accuracy of always answering the most frequent label: what a model must beat to have learned."""
    labelled = labels[labels != NO_LABEL]
    return float(np.bincount(labelled).max() / len(labelled)) if labelled.size else math.nan


def right_rows(predicted: RowLabels, true: RowLabels) -> NDArray[np.bool_]:
    """Return which rows have every label right, bool (n,)."""
    if isinstance(predicted, Classes) and isinstance(true, Classes):
        return np.asarray(predicted.ids == true.ids)
    return np.asarray((predicted == true).all(axis=1))  # type: ignore[union-attr]


def exact_match(predicted: RowLabels, true: RowLabels) -> float:
    """Return the share of rows with every label right: the accuracy."""
    return float(right_rows(predicted, true).mean())


def f1(predicted: RowLabels, true: RowLabels) -> float:
    """Return the F1 of class 1 where there are two classes, else `f1_micro`."""
    scores = f1_of_labels(predicted, true)
    return float(np.nan_to_num(scores[1])) if len(scores) == 2 else f1_micro(predicted, true)


def f1_macro(predicted: RowLabels, true: RowLabels) -> float:
    """Return the mean F1 over the labels; one that is neither given nor predicted is left out."""
    return float(np.nanmean(f1_of_labels(predicted, true)))


def f1_micro(predicted: RowLabels, true: RowLabels) -> float:
    """Return 2 TP / (2 TP + FP + FN) counted over all rows and labels; 0 where there are none."""
    counts = Counts.of(predicted, true)
    total = int(counts.predicted.sum() + counts.true.sum())
    return 2 * int(counts.both.sum()) / total if total else 0.0


def f1_of_labels(predicted: RowLabels, true: RowLabels) -> NDArray[np.float64]:
    """Return the F1 of each label, float64 (labels,): 2 TP / (2 TP + FP + FN); NaN where there are none."""
    counts = Counts.of(predicted, true)
    total = counts.predicted + counts.true
    scores: NDArray[np.float64] = np.where(total > 0, 2 * counts.both / np.maximum(total, 1), np.nan)
    return scores


def matthews_correlation(predicted: RowLabels, true: RowLabels) -> float:
    """Return the correlation of predicted and true classes; 0 where either is constant.

    The R_K of Gorodkin (2004, doi:10.1016/j.compbiolchem.2004.09.006), which is Matthews' for two classes.
    """
    counts = Counts.of(predicted, true)
    p, t = counts.predicted.astype(np.float64), counts.true.astype(np.float64)
    n, right = float(t.sum()), float(counts.both.sum())
    scale = math.sqrt(float((n * n - p @ p) * (n * n - t @ t)))
    return float(right * n - p @ t) / scale if scale else 0.0
