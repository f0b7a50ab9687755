"""Metrics of classification, most of them from the predicted and the true labels of each row.

These are bool (n, labels), or `Classes` where each row has one label: then nothing takes memory for rows times labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.labels import NO_LABEL, label_counts
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
    counts = label_counts(labels)
    return float(counts.max() / counts.sum()) if counts.any() else math.nan


def right_rows(predicted: RowLabels, true: RowLabels) -> NDArray[np.bool_]:
    """Return which rows have every label right, bool (n,)."""
    if isinstance(predicted, Classes) and isinstance(true, Classes):
        return np.asarray(predicted.ids == true.ids)
    return np.asarray((predicted == true).all(axis=1))  # type: ignore[union-attr]


def exact_match(predicted: RowLabels, true: RowLabels) -> float:
    """Return the share of rows with every label right: the accuracy."""
    return float(right_rows(predicted, true).mean())


SCORES = ("f1", "precision", "recall")


class LabelScores(NamedTuple):
    """Precision, recall and F1 of each label, float64 (labels,), with the counts that they are made of.

    TP / (TP + FP), TP / (TP + FN) and 2 TP / (2 TP + FP + FN); 0 where nothing can be divided, as in scikit-learn.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    counts: Counts

    @classmethod
    def of(cls, predicted: RowLabels, true: RowLabels) -> LabelScores:
        """Score the labels of some rows."""
        return cls._of(Counts.of(predicted, true))

    @classmethod
    def of_all(cls, predicted: RowLabels, true: RowLabels) -> LabelScores:
        """Score all labels as one, in arrays of one number: the micro average."""
        return cls._of(Counts(*(count.sum(keepdims=True) for count in Counts.of(predicted, true))))

    @classmethod
    def _of(cls, counts: Counts) -> LabelScores:
        predicted, true, both = counts
        return cls(_ratio(both, predicted), _ratio(both, true), _ratio(2 * both, predicted + true), counts)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The labels that some row has or is predicted to have, bool (labels,)."""
        return (self.counts.predicted + self.counts.true) > 0


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(part / np.maximum(whole, 1))


def confusions(predicted: Classes, true: Classes) -> NDArray[np.int64]:
    """Return the classes that are taken for others, int64 (pairs, 3): the true one, the predicted one and the rows.

    The most frequent pair comes first, and of equally frequent ones the pair of the smaller ids.
    """
    wrong = predicted.ids != true.ids
    pairs, rows = np.unique(true.ids[wrong] * true.labels + predicted.ids[wrong], return_counts=True)
    order = np.argsort(-rows, kind="stable")
    return np.stack([*np.divmod(pairs, true.labels), rows], axis=1)[order]


def of_label_1(score: str, predicted: RowLabels, true: RowLabels) -> float:
    """Return a score, by its name in `LabelScores`, of label 1 where there are two, else that of all as one."""
    found: NDArray[np.float64] = getattr(LabelScores.of(predicted, true), score)
    return float(found[1]) if len(found) == 2 else micro(score, predicted, true)


def macro(score: str, predicted: RowLabels, true: RowLabels) -> float:
    """Return the mean of a score over the labels; one that is neither given nor predicted is left out."""
    scores = LabelScores.of(predicted, true)
    found: NDArray[np.float64] = getattr(scores, score)
    return float(found[scores.seen].mean()) if scores.seen.any() else math.nan


def micro(score: str, predicted: RowLabels, true: RowLabels) -> float:
    """Return a score counted over all rows and labels."""
    return float(getattr(LabelScores.of_all(predicted, true), score)[0])


def averages(plain: Callable[[str, RowLabels, RowLabels], float]) -> dict[str, Callable[[RowLabels, RowLabels], float]]:
    """Return precision, recall and F1, each also as `_macro` and `_micro`, as functions (predicted, true) by name.

    Args:
        plain: the average that is meant by the score's name alone: `of_label_1` or `micro`.
    """
    kinds = {"": plain, "_macro": macro, "_micro": micro}
    return {f"{score}{kind}": partial(of, score) for score in SCORES for kind, of in kinds.items()}


def matthews_correlation(predicted: RowLabels, true: RowLabels) -> float:
    """Return the correlation of predicted and true classes; 0 where either is constant.

    The R_K of Gorodkin (2004, doi:10.1016/j.compbiolchem.2004.09.006), which is Matthews' for two classes.
    """
    counts = Counts.of(predicted, true)
    p, t = counts.predicted.astype(np.float64), counts.true.astype(np.float64)
    n, right = float(t.sum()), float(counts.both.sum())
    scale = math.sqrt(float((n * n - p @ p) * (n * n - t @ t)))
    return float(right * n - p @ t) / scale if scale else 0.0
