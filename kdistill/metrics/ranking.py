"""Metrics of classification from the scores that a model gives each label, whatever it then decides.

The scores are logits, float32 (n, labels), and the true labels are those of `classification.RowLabels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .classification import Classes, Indicators, RowLabels, log_softmax
from .prediction import Logits


def roc_auc(logits: Logits, true: RowLabels) -> float:
    """Return the area under the ROC curve: how often a row with the label has a higher score than one without it.

    Equal scores count half (Hanley and McNeil, 1982, doi:10.1148/radiology.143.1.7063747). The mean over the labels
    that some rows have and others lack; NaN when there is none. Of several classes, each against the rest; of two, both
    have the same area.
    """
    areas = [_area(score, has) for score, has in _scores_of_labels(logits, true) if 0 < has.sum() < len(has)]
    return float(np.mean(areas)) if areas else float("nan")


def average_precision(logits: Logits, true: Indicators) -> float:
    """Return the area under the precision-recall curve of all rows and labels together, which is micro-averaged.

    It is sum (R_n - R_(n-1)) P_n over the distinct scores, without interpolation, as scikit-learn's
    average_precision_score has it; NaN when no row has a label.
    """
    return _average_precision(logits.ravel(), true.ravel())


def average_precision_macro(logits: Logits, true: Indicators) -> float:
    """Return the mean over the labels of `average_precision`, without those that no row has."""
    each = [_average_precision(logits[:, label], true[:, label]) for label in range(true.shape[1])]
    return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")


def top_1(logits: Logits, true: Indicators) -> float:
    """Return the share of rows whose most probable label is one of theirs; a row without any counts as wrong."""
    return float(np.take_along_axis(true, logits.argmax(axis=1)[:, None], axis=1).mean())


def best_threshold(logits: Logits, true: Indicators) -> float:
    """Return the probability above which labels are to be predicted so that the F1 of all of them together is largest.

    Every distinct score is tried; the threshold lies in the middle of the last logit that is predicted and the next. Of
    equally good ones it is the highest, which predicts the fewest labels. 0.5 where no row has a label.
    """
    curve = _Curve.of(logits.ravel(), true.ravel())
    if not curve.right[-1]:
        return 0.5
    best = int((curve.right / (curve.predicted + curve.right[-1])).argmax())  # half of 2 TP / (predicted + true)
    lower = curve.scores[best + 1] if best + 1 < len(curve.scores) else curve.scores[best] - 1
    middle = (curve.scores[best] + lower) / 2
    return float(np.clip(1 / (1 + np.exp(-middle)), np.nextafter(0, 1), np.nextafter(1, 0)))


class _Curve(NamedTuple):
    """The precision and recall of deciding by a score, at each distinct one.

    Attributes:
        scores: the distinct scores, the highest first, float64 (n,).
        predicted: how many are at least as high, int64 (n,), and ...
        right: ... how many of these are true.
    """

    scores: NDArray[np.float64]
    predicted: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[Any], true: NDArray[np.bool_]) -> _Curve:
        order = np.argsort(-scores, kind="stable")
        ordered, right = scores[order].astype(np.float64), np.cumsum(true[order])
        last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of those with the same score
        return cls(ordered[last], last + 1, right[last])


def _average_precision(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    curve = _Curve.of(scores, true)
    if not curve.right[-1]:
        return float("nan")
    gained = np.diff(curve.right, prepend=0)
    return float((gained * (curve.right / curve.predicted)).sum() / curve.right[-1])


def ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each number, from 1 for the smallest; equal ones share the mean of theirs."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return shared


def _area(score: NDArray[np.float64], has: NDArray[np.bool_]) -> float:
    """Return the area of one label as the rank sum U of Mann and Whitney over the number of pairs."""
    having, lacking = int(has.sum()), int((~has).sum())
    return float((ranks(score)[has].sum() - having * (having + 1) / 2) / (having * lacking))


def _scores_of_labels(logits: Logits, true: RowLabels) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return the scores of the rows and which of them have the label, for each label."""
    if isinstance(true, Classes):
        scores = log_softmax(logits)
        return [(scores[:, label], true.ids == label) for label in range(true.labels)]
    return [(logits[:, label].astype(np.float64), true[:, label]) for label in range(true.shape[1])]
