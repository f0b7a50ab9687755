"""Metrics of each problem type, computed from logits."""

from __future__ import annotations

import math
from collections.abc import Callable
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
        measured = {"mse": _mse(x, y), "pearson": pearson(x, y), "spearmanr": spearmanr(x, y)}
    else:
        chosen, given = logits > 0, labels > 0.5
        measured = {"accuracy": _rows_right(chosen, given), "f1": f1_micro(chosen, given)}
    loss, _ = label_loss(logits, labels, problem_type)
    return {**measured, "loss": loss, "n": len(logits)}


def f1_micro(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN) counted over all rows and labels, bool (n, labels); 0 where there are none."""
    total = int(chosen.sum() + given.sum())
    return 2 * int((chosen & given).sum()) / total if total else 0.0


def f1_of_labels(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 of each label, float64 (labels,), from bool (n, labels): 2 TP / (2 TP + FP + FN); NaN where there are none."""
    total = chosen.sum(axis=0) + given.sum(axis=0)
    scores: NDArray[np.float64] = np.where(total > 0, 2 * (chosen & given).sum(axis=0) / np.maximum(total, 1), np.nan)
    return scores


def matthews_correlation(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """Correlation of predicted and true classes, one-hot bool (n, classes); 0 where either is constant.

    The R_K of Gorodkin (2004, doi:10.1016/j.compbiolchem.2004.09.006), which is Matthews' for two classes.
    """
    n, right = float(len(given)), float((chosen & given).sum())
    p, t = chosen.sum(axis=0).astype(np.float64), given.sum(axis=0).astype(np.float64)
    scale = math.sqrt(float((n * n - p @ p) * (n * n - t @ t)))
    return float(right * n - p @ t) / scale if scale else 0.0


def by_name(*names: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` that gives the metrics of these names.

    Classification: accuracy, f1 (of label 1, where there are two; of several labels at once: micro), f1_macro (the mean
    over labels; a class that is neither given nor predicted is left out), f1_micro, and matthews_correlation (single
    label). Regression: mse, pearson, spearmanr.

    Raises ValueError for a name that is none of these; the result does for a metric that the labels do not have.
    """
    if unknown := [name for name in names if name not in (*_OF_CLASSES, *_OF_NUMBERS)]:
        known = ", ".join((*_OF_CLASSES, *_OF_NUMBERS))
        raise ValueError(f"there is no metric {unknown[0]!r}; expected names among {known}")

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = prediction
        if logits.shape[1] == 1:
            x, y = logits.astype(np.float64).ravel(), labels.astype(np.float64).ravel()
            return {name: _of(_OF_NUMBERS, name, "one output")(x, y) for name in names}
        if labels.dtype.kind == "f":
            return {name: _of(_OF_LABELS, name, "several labels at once")(logits > 0, labels > 0.5) for name in names}
        one_hot = np.eye(logits.shape[1], dtype=bool)
        chosen, given = one_hot[logits.argmax(axis=1)], one_hot[labels]
        return {name: _of(_OF_CLASSES, name, "classes")(chosen, given) for name in names}

    return compute_metrics


def _of(metrics: dict[str, Callable[[Any, Any], float]], name: str, what: str) -> Callable[[Any, Any], float]:
    if name not in metrics:
        raise ValueError(f"the metric {name!r} is not one of a model of {what}; expected one of {', '.join(metrics)}")
    return metrics[name]


def _rows_right(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """Share of rows with every label right, bool (n, labels)."""
    return float((chosen == given).all(axis=1).mean())


def _f1(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    if chosen.shape[1] != 2 or (given.sum(axis=1) != 1).any():
        return f1_micro(chosen, given)
    return float(np.nan_to_num(f1_of_labels(chosen, given)[1]))


def _f1_macro(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    return float(np.nanmean(f1_of_labels(chosen, given)))


def _mse(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(((x - y) ** 2).mean())


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


_OF_CLASSES: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": _rows_right,
    "f1": _f1,
    "f1_macro": _f1_macro,
    "f1_micro": f1_micro,
    "matthews_correlation": matthews_correlation,
}
_OF_LABELS = {name: metric for name, metric in _OF_CLASSES.items() if name != "matthews_correlation"}
_OF_NUMBERS: dict[str, Callable[[Any, Any], float]] = {"mse": _mse, "pearson": pearson, "spearmanr": spearmanr}
