"""Metrics of scores beside their definitions, over all pairs of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.metrics.prediction import EvalPrediction
from kdistill.tasks.registry import choose_metrics


def area(score: NDArray[Any], has: NDArray[Any]) -> float:
    """Share of pairs of a row with the label and one without in which the first has the higher score."""
    first, second = score[has][:, None], score[~has][None, :]
    return float(((first > second) + 0.5 * (first == second)).mean())


def roc_auc(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return choose_metrics("roc_auc")(EvalPrediction(logits.astype(np.float32), labels))["roc_auc"]


def rounded_logits(rows: int, columns: int) -> NDArray[np.float32]:
    """Logits of which many are equal."""
    return np.random.default_rng(rows).normal(size=(rows, columns)).round(1).astype(np.float32)


def test_roc_auc_of_two_labels_is_that_of_label_1() -> None:
    logits, labels = rounded_logits(200, 2), np.random.default_rng(1).integers(0, 2, 200)
    odds = logits[:, 1].astype(np.float64) - logits[:, 0]
    assert roc_auc(logits, labels) == pytest.approx(area(odds, labels == 1), abs=1e-12)


def test_roc_auc_of_several_classes_is_the_mean_of_each_against_the_rest() -> None:
    logits, labels = rounded_logits(120, 4), np.random.default_rng(1).integers(0, 4, 120)
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = np.mean([area(probabilities[:, k], labels == k) for k in range(4)])
    assert roc_auc(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_roc_auc_of_several_labels_at_once_is_the_mean_over_labels() -> None:
    logits, labels = rounded_logits(120, 3), np.random.default_rng(1).integers(0, 2, (120, 3)).astype(np.float32)
    expected = np.mean([area(logits[:, k], labels[:, k] == 1) for k in range(3)])
    assert roc_auc(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_rows_are_told_apart_where_their_probabilities_round_to_one() -> None:
    """softmax gives label 1 a probability of 1 in both rows, and sigmoid as well."""
    logits = np.array([[0, 800], [0, 900], [0, 40]])
    assert roc_auc(logits, np.array([1, 1, 0])) == 1
    assert roc_auc(logits, np.array([[0, 1], [0, 1], [1, 0]], np.float32)) == (0.5 + 1) / 2
    assert roc_auc(np.array([[0, 50], [0, 60], [0, 40]]), np.array([0, 1, 0])) == 1


def test_a_label_without_both_kinds_of_rows_has_no_area() -> None:
    logits, labels = rounded_logits(30, 3), np.random.default_rng(1).integers(0, 2, 30)
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = np.mean([area(probabilities[:, k], labels == k) for k in range(2)])
    assert roc_auc(logits, labels) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(roc_auc(logits[:, :2], np.zeros(30, np.int64)))
    assert math.isnan(roc_auc(logits[:, :2], np.tile(np.array([1, 0], np.float32), (30, 1))))
