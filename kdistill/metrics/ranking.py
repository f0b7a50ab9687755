"""Metrics of classification from the scores that a model gives each label, whatever it then decides.

The scores are logits, float32 (n, labels), and the true labels are those of `classification.RowLabels`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .classification import Classes, RowLabels, log_softmax
from .prediction import Logits


def roc_auc(logits: Logits, true: RowLabels) -> float:
    """Return the area under the ROC curve: how often a row with the label has a higher score than one without it.

    Equal scores count half (Hanley and McNeil, 1982, doi:10.1148/radiology.143.1.7063747). The mean over the labels
    that some rows have and others lack; NaN when there is none. Of several classes, each against the rest; of two, both
    have the same area.
    """
    areas = [_area(score, has) for score, has in _scores_of_labels(logits, true) if 0 < has.sum() < len(has)]
    return float(np.mean(areas)) if areas else float("nan")


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
