"""Metrics of scores beside their definitions, over all pairs of rows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.metrics.prediction import EvalPrediction
from kdistill.metrics.ranking import best_threshold
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


def figures(logits: NDArray[Any], labels: NDArray[Any], *names: str) -> list[float]:
    found = choose_metrics(*names)(EvalPrediction(logits.astype(np.float32), labels.astype(np.float32)))
    return [found[name] for name in names]


def precision_at_each_recall(score: NDArray[Any], has: NDArray[Any]) -> float:
    """The sum of scikit-learn's documentation of average_precision_score, one distinct score after another."""
    area, before = 0.0, 0.0
    for least in sorted(set(score.tolist()), reverse=True):
        chosen = score >= least
        recall = (chosen & has).sum() / has.sum()
        area += (recall - before) * (chosen & has).sum() / chosen.sum()
        before = recall
    return area


def test_average_precision() -> None:
    logits, labels = rounded_logits(90, 3), np.random.default_rng(2).integers(0, 4, (90, 3)) == 0
    micro, macro = figures(logits, labels, "average_precision", "average_precision_macro")
    assert micro == pytest.approx(precision_at_each_recall(logits.ravel(), labels.ravel()), abs=1e-12)
    each = [precision_at_each_recall(logits[:, k], labels[:, k]) for k in range(3)]
    assert macro == pytest.approx(np.mean(each), abs=1e-12)


def test_average_precision_of_the_example_of_scikit_learn() -> None:
    """average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.83, as its documentation has it."""
    (found,) = figures(np.array([[0.1, 0.4], [0.35, 0.8]]), np.array([[0, 0], [1, 1]]), "average_precision")
    assert found == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_labels_that_no_row_has() -> None:
    logits, labels = rounded_logits(20, 2), np.zeros((20, 2))
    assert all(map(math.isnan, figures(logits, labels, "average_precision", "average_precision_macro")))
    labels[::3, 1] = 1
    (macro,) = figures(logits, labels, "average_precision_macro")
    assert macro == pytest.approx(precision_at_each_recall(logits[:, 1], labels[:, 1] == 1))


def test_top_1_counts_rows_whose_most_probable_label_is_theirs() -> None:
    logits = np.array([[3, 1, 2], [0, -1, -2], [1, 2, 0], [5, 0, 0]])
    assert figures(logits, np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]]), "top_1") == [2 / 4]


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random((40, 5)) < 0.1
    logits = (rng.normal(-4, 1, (40, 5)) + labels).round(1).astype(np.float32)
    chosen = best_threshold(logits, labels)
    scores = sorted(set(logits.ravel().tolist()))
    tried = [1 / (1 + math.exp(-t)) for t in [scores[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(scores))]]

    def f1(threshold: float) -> float:
        said = 1 / (1 + np.exp(-logits.astype(np.float64))) > threshold
        return float(2 * (said & labels).sum() / (said.sum() + labels.sum()))

    assert f1(chosen) == max(map(f1, tried))
    assert chosen == pytest.approx(max(t for t in tried if f1(t) == f1(chosen)))


def test_thresholds_at_the_ends() -> None:
    """All labels true, none true, and probabilities that round to 0 and 1."""
    logits = np.array([[-100.0, 100.0]], np.float32)
    assert 0 < best_threshold(logits, np.array([[True, True]])) < 1e-40
    assert best_threshold(logits, np.array([[False, False]])) == 0.5
    assert best_threshold(logits, np.array([[False, True]])) == 0.5
    assert best_threshold(logits + 200, np.array([[False, True]])) < 1
