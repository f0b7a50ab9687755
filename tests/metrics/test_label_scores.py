"""Precision, recall and F1 beside loops over the rows, and beside values that scikit-learn's documentation gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.metrics.prediction import EvalPrediction
from kdistill.tasks.registry import choose_metrics

SCORES = ("precision", "recall", "f1")


def measured(names: list[str], said: Any, given: Any, labels: int) -> dict[str, float]:
    logits = np.eye(labels, dtype=np.float32)[np.array(said)]
    return choose_metrics(*names)(EvalPrediction(logits, np.array(given)))


def by_hand(hits: int, said: int, given: int) -> dict[str, float]:
    precision, recall = hits / said if said else 0.0, hits / given if given else 0.0
    return {"precision": precision, "recall": recall, "f1": 2 * hits / (said + given) if said + given else 0.0}


def test_examples_of_scikit_learn_s_documentation() -> None:
    # precision_recall_fscore_support([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], average="macro"): 0.22, 0.33, 0.26
    names = [f"{score}_macro" for score in SCORES]
    found = measured(names, [0, 2, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2], 3)
    assert list(found.values()) == pytest.approx([2 / 9, 1 / 3, 4 / 15])
    # average="micro": 0.33 for all three
    micro = measured([f"{score}_micro" for score in SCORES], [0, 2, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2], 3)
    assert list(micro.values()) == pytest.approx([1 / 3] * 3)
    # The user guide's binary example: y_pred [0, 1, 0, 0], y_true [0, 1, 0, 1] gives 1.0, 0.5 and 0.66.
    assert measured([*SCORES], [0, 1, 0, 0], [0, 1, 0, 1], 2) == pytest.approx(
        {"precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    )


def test_macro_leaves_out_labels_that_nobody_has_and_counts_those_never_predicted_as_0() -> None:
    """Label 3 is in neither array, label 2 is never predicted, label 1 is never given."""
    said, given = [0, 1, 0, 0], [0, 0, 2, 0]
    found = measured([f"{score}_macro" for score in SCORES], said, given, 4)
    each = [by_hand(2, 3, 3), by_hand(0, 1, 0), by_hand(0, 0, 1)]
    assert found == pytest.approx({f"{score}_macro": np.mean([of[score] for of in each]) for score in SCORES})


def test_several_labels_at_once() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(40, 3)).astype(np.float32), random.integers(0, 2, (40, 3)).astype(np.float32)
    names = [f"{score}{kind}" for score in SCORES for kind in ("", "_macro", "_micro")]
    found = choose_metrics(*names)(EvalPrediction(logits, labels))
    said, given = logits > 0, labels == 1

    def counted(said: NDArray[Any], given: NDArray[Any]) -> dict[str, float]:
        return by_hand(int((said & given).sum()), int(said.sum()), int(given.sum()))

    each = [counted(said[:, k], given[:, k]) for k in range(3)]
    for score in SCORES:
        assert found[score] == found[f"{score}_micro"] == pytest.approx(counted(said, given)[score])
        assert found[f"{score}_macro"] == pytest.approx(np.mean([of[score] for of in each]))
    nothing = EvalPrediction(-np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert choose_metrics(*SCORES)(nothing) == dict.fromkeys(SCORES, 0.0)
    assert math.isnan(choose_metrics("f1_macro")(nothing)["f1_macro"])
