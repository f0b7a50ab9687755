"""Metrics of classification, most of them from the predicted and the true labels of each row as bool (n, labels)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..data.labels import NO_LABEL
from .prediction import Labels, Logits

Indicators = NDArray[np.bool_]
"""Labels of each row, bool (n, labels): one-hot, or any number of them."""


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the probabilities of each row of logits, float64 (n, num_labels)."""
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def one_hot(ids: NDArray[np.integer], labels: int) -> Indicators:
    """Return label ids (n,) as bool (n, labels)."""
    rows: Indicators = np.eye(labels, dtype=bool)[ids]
    return rows


def accuracy(logits: Logits, labels: Labels) -> float:
    """Return the share of labelled rows whose largest logit is the label's; NaN when no row has a label."""
    labelled = labels != NO_LABEL
    hits = logits[labelled].argmax(axis=1) == labels[labelled]
    return float(hits.mean()) if hits.size else math.nan


def majority_share(labels: Labels) -> float:
    """Return the accuracy of always answering the most frequent label: what a model must beat to have learned."""
    labelled = labels[labels != NO_LABEL]
    return float(np.bincount(labelled).max() / len(labelled)) if labelled.size else math.nan


def right_rows(predicted: Indicators, true: Indicators) -> NDArray[np.bool_]:
    """Return which rows have every label right, bool (n,)."""
    right: NDArray[np.bool_] = (predicted == true).all(axis=1)
    return right


def exact_match(predicted: Indicators, true: Indicators) -> float:
    """Return the share of rows with every label right: the accuracy."""
    return float(right_rows(predicted, true).mean())


def f1(predicted: Indicators, true: Indicators) -> float:
    """Return the F1 of class 1 where there are two classes, else `f1_micro`."""
    if predicted.shape[1] != 2:
        return f1_micro(predicted, true)
    return float(np.nan_to_num(f1_of_labels(predicted, true)[1]))


def f1_macro(predicted: Indicators, true: Indicators) -> float:
    """Return the mean F1 over the labels; one that is neither given nor predicted is left out."""
    return float(np.nanmean(f1_of_labels(predicted, true)))


def f1_micro(predicted: Indicators, true: Indicators) -> float:
    """Return 2 TP / (2 TP + FP + FN) counted over all rows and labels; 0 where there are none."""
    total = int(predicted.sum() + true.sum())
    return 2 * int((predicted & true).sum()) / total if total else 0.0


def f1_of_labels(predicted: Indicators, true: Indicators) -> NDArray[np.float64]:
    """Return the F1 of each label, float64 (labels,): 2 TP / (2 TP + FP + FN); NaN where there are none."""
    total = predicted.sum(axis=0) + true.sum(axis=0)
    both = (predicted & true).sum(axis=0)
    scores: NDArray[np.float64] = np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)
    return scores


def matthews_correlation(predicted: Indicators, true: Indicators) -> float:
    """Return the correlation of predicted and true classes, one-hot (n, classes); 0 where either is constant.

    The R_K of Gorodkin (2004, doi:10.1016/j.compbiolchem.2004.09.006), which is Matthews' for two classes.
    """
    n, right = float(len(true)), float((predicted & true).sum())
    p, t = predicted.sum(axis=0).astype(np.float64), true.sum(axis=0).astype(np.float64)
    scale = math.sqrt(float((n * n - p @ p) * (n * n - t @ t)))
    return float(right * n - p @ t) / scale if scale else 0.0
