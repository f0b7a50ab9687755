"""Metrics of classification, computed from logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .losses import cross_entropy
from .rows import NO_LABEL

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


class EvalPrediction(NamedTuple):
    """What `compute_metrics` is given: logits (n, num_labels) float32 and labels (n,) int64, labelled rows only."""

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


def classification_metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    """Accuracy, mean cross-entropy and n over the labelled rows; an empty dictionary when there are none."""
    labelled = labels != NO_LABEL
    n = int(labelled.sum())
    if n == 0:
        return {}
    loss, _ = cross_entropy(logits[labelled], labels[labelled])
    return {"accuracy": accuracy(logits, labels), "loss": loss, "n": n}


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a share measured on n rows (Wilson, 1927)."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half
