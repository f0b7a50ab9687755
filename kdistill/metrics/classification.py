"""Metrics of each problem type, computed from logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.columns import NO_LABEL, labelled_rows
from ..data.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ..losses.labels import label_loss

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
    measured = _measured(_USUAL[problem_type], problem_type, logits, labels)
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


def names_of(problem_type: str) -> tuple[str, ...]:
    """What `metrics_of` gives for the problem type."""
    return *_USUAL[problem_type], "loss", "n"


def named(problem_type: str) -> tuple[str, ...]:
    """What `choose_metrics` can give for the problem type."""
    return tuple(_METRICS[problem_type])


def choose_metrics(*names: str, problem_type: str | None = None) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` that gives the metrics of these names.

    Classification: accuracy, f1 (of label 1, where there are two; of several labels at once: micro), f1_macro (the mean
    over labels; a class that is neither given nor predicted is left out), f1_micro, and matthews_correlation (single
    label). Regression: mse, pearson, spearmanr.

    problem_type: that of the model; None deduces it from each prediction: one output is a regression, labels that are
        floating-point numbers are several at once.

    Raises ValueError for a name that is none of these, or that the problem type does not have; without one, the result
    does.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"there is no metric {unknown[0]!r}; expected names among {', '.join(NAMES)}")
    if problem_type is not None:
        _check_names(names, problem_type)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = prediction
        deduced = MULTI_LABEL if labels.dtype.kind == "f" else SINGLE_LABEL
        kind = problem_type or (REGRESSION if logits.shape[1] == 1 else deduced)
        _check_names(names, kind)
        return _measured(names, kind, logits, labels)

    return compute_metrics


def _measured(names: Sequence[str], problem_type: str, logits: Logits, labels: Labels) -> dict[str, float]:
    """Metrics of labelled rows by their names."""
    x: NDArray[Any]
    y: NDArray[Any]
    if problem_type == REGRESSION:
        x, y = logits.astype(np.float64).ravel(), labels.astype(np.float64).ravel()
    elif problem_type == MULTI_LABEL:
        x, y = logits > 0, labels > 0.5
    else:
        one_hot = np.eye(logits.shape[1], dtype=bool)
        x, y = one_hot[logits.argmax(axis=1)], one_hot[labels]
    return {name: _METRICS[problem_type][name](x, y) for name in names}


def _check_names(names: Sequence[str], problem_type: str) -> None:
    known = _METRICS[problem_type]
    for name in names:
        if name not in known:
            raise ValueError(
                f"the metric {name!r} is not one of a model for {problem_type}; expected one of {', '.join(known)}"
            )


def _rows_right(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """Share of rows with every label right, bool (n, labels)."""
    return float((chosen == given).all(axis=1).mean())


def _f1(chosen: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
    """Of class 1, where there are two."""
    if chosen.shape[1] != 2:
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


_METRICS: dict[str, dict[str, Callable[[Any, Any], float]]] = {
    SINGLE_LABEL: {
        "accuracy": _rows_right,
        "f1": _f1,
        "f1_macro": _f1_macro,
        "f1_micro": f1_micro,
        "matthews_correlation": matthews_correlation,
    },
    MULTI_LABEL: {"accuracy": _rows_right, "f1": f1_micro, "f1_macro": _f1_macro, "f1_micro": f1_micro},
    REGRESSION: {"mse": _mse, "pearson": pearson, "spearmanr": spearmanr},
}
"""Metrics by problem type and name: of bool (n, labels), predicted and true, or of float64 (n,)."""
NAMES = tuple(dict.fromkeys(name for metrics in _METRICS.values() for name in metrics))
"""Every metric that has a name."""
_USUAL: dict[str, tuple[str, ...]] = {
    SINGLE_LABEL: ("accuracy",),
    MULTI_LABEL: ("accuracy", "f1"),
    REGRESSION: tuple(_METRICS[REGRESSION]),
}
