"""Metrics of each problem type, computed from logits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .losses import SINGLE_LABEL, label_loss
from .rows import NO_LABEL, labelled_rows

Logits = NDArray[np.float32]
Labels = NDArray[Any]
"""Labels of a data set: int64 (n,), float32 (n,) or float32 (n, num_labels); see `data.Dataset`."""


class EvalPrediction(NamedTuple):
    """What `compute_metrics` is given: logits (n, num_labels) float32 and the labels, labelled rows only."""

    predictions: Logits
    label_ids: Labels


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Probabilities of each row of logits, float64 (n, num_labels)."""
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of labelled rows whose largest logit is the label's; NaN when no row has a label."""
    labelled = labels != NO_LABEL
    hits = logits[labelled].argmax(axis=1) == labels[labelled]
    return float(hits.mean()) if hits.size else math.nan


def majority_share(labels: Labels) -> float:
    """Accuracy of always answering the most frequent label: what a model must beat to have learned anything."""
    labelled = labels[labels != NO_LABEL]
    return float(np.bincount(labelled).max() / len(labelled)) if labelled.size else math.nan


def metrics_of(logits: Logits, labels: Labels, problem_type: str) -> dict[str, float]:
    """Loss against the labels and n, over the labelled rows, and what is usual for the problem type.

    single_label_classification: accuracy. multi_label_classification: accuracy (rows with every label right) and f1
    (micro). regression: mse, pearson and spearmanr. An empty dictionary when no row has a label.
    """
    labelled = labelled_rows(labels)
    if not labelled.any():
        return {}
    logits, labels = logits[labelled], labels[labelled]
    if problem_type == SINGLE_LABEL:
        measured = {"accuracy": accuracy(logits, labels)}
    elif problem_type == "regression":
        x, y = logits.astype(np.float64).ravel(), labels.astype(np.float64).ravel()
        measured = {"mse": float(((x - y) ** 2).mean()), "pearson": pearson(x, y), "spearmanr": spearmanr(x, y)}
    else:
        chosen, given = logits > 0, labels > 0.5
        measured = {"accuracy": float((chosen == given).all(axis=1).mean()), "f1": f1_micro(chosen, given)}
    loss, _ = label_loss(logits, labels, problem_type)
    return {**measured, "loss": loss, "n": len(logits)}


def f1_micro(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN) counted over all rows and labels, bool (n, labels); 0 where there are none."""
    total = int(chosen.sum() + given.sum())
    return 2 * int((chosen & given).sum()) / total if total else 0.0


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's correlation of x and y, float64 (n,); NaN when either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def spearmanr(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share measured on n rows (Wilson, 1927)."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half
