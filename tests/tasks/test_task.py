"""Each task's object beside formulas in float64 and values worked out by hand, and how one is chosen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.models.config import BertConfig
from kdistill.tasks.base import Task
from kdistill.tasks.predictions import ALL_DIGITS, predictions_of
from kdistill.tasks.registry import ALL_METRICS, TASKS, label_reader, task_for

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
NAMES = {0: "praise", 1: "blame", 2: "long"}
LOGITS = np.array([[2.0, -1.0, 0.5], [0.3, 0.2, -0.4], [-2.0, 1.0, 1.5], [0.0, 3.0, -3.0]], np.float32)
TEACHER = np.array([[1.0, 0.0, -1.0], [2.0, -2.0, 0.5], [0.1, 0.2, 0.3], [-1.0, 4.0, 1.0]], np.float32)
# The last row of each has no label.
LABELS: dict[str, NDArray[Any]] = {
    SINGLE: np.array([0, 1, 2, -100]),
    MULTI: np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1], [np.nan] * 3], np.float32),
    REGRESSION: np.array([[1.0, 0.0, 1.0], [0.5, 0.0, -0.5], [-1.0, 2.0, 1.5], [np.nan] * 3], np.float32),
}
LABELLED = slice(0, 3)


def where(row: int) -> str:
    return f"row {row}"


def sigmoid(x: NDArray[Any]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softmax(x: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(x.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def divergence(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
    return p * np.log(p / q)


def hard_rows(name: str) -> NDArray[np.float64]:
    """Loss of each labelled row against its label."""
    z, y = LOGITS[LABELLED].astype(np.float64), LABELS[name][LABELLED]
    if name == SINGLE:
        return -np.log(softmax(z)[np.arange(3), y])
    if name == MULTI:
        return -(y * np.log(sigmoid(z)) + (1 - y) * np.log(1 - sigmoid(z))).mean(axis=1)
    return ((z - y) ** 2).mean(axis=1)


def soft_rows(name: str, temperature: float) -> NDArray[np.float64]:
    """Loss of each row against the teacher."""
    z, t = LOGITS.astype(np.float64), TEACHER.astype(np.float64)
    if name == SINGLE:
        return temperature**2 * divergence(softmax(t / temperature), softmax(z / temperature)).sum(axis=1)
    if name == MULTI:
        p, q = sigmoid(t / temperature), sigmoid(z / temperature)
        return temperature**2 * (divergence(p, q) + divergence(1 - p, 1 - q)).mean(axis=1)
    return ((z - t) ** 2).mean(axis=1)


@pytest.fixture(params=[SINGLE, MULTI, REGRESSION])
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def test_the_tasks_and_their_metrics_by_name() -> None:
    names = (SINGLE, MULTI, REGRESSION, "token-classification", "question-answering", "masked-lm", "feature-extraction")
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in names}
    assert {name for task in TASKS.values() for name in task.metrics} == set(ALL_METRICS)
    assert len(ALL_METRICS) == 30
    for task in TASKS.values():
        assert set(task.default_metrics) <= set(task.metrics)
        assert task.card_metric in task.metrics
        assert task.best_metric in {*task.metrics, "loss"}
        assert bool(task.right_when) == (task.right_rows is not None and task.name != SINGLE)
        task.check_metrics(task.metrics)
        with pytest.raises(ValueError, match=f"the metric 'auc' is not one of a model for {task.name}; expected one"):
            task.check_metrics(["auc"])


@pytest.mark.parametrize(
    ("stated", "outputs", "labels", "expected"),
    [
        (None, 1, np.zeros(2, np.float32), REGRESSION),
        (None, 1, None, REGRESSION),
        (None, 3, np.zeros(2, np.int64), SINGLE),
        (None, 3, np.zeros((2, 3), np.float32), MULTI),
        (None, 3, None, SINGLE),
        (REGRESSION, 3, np.zeros((2, 3), np.float32), REGRESSION),
        (SINGLE, 1, np.zeros(2, np.int64), SINGLE),
        (MULTI, 3, np.zeros(2, np.int64), MULTI),
    ],
)
def test_the_task_of_a_model(stated: str | None, outputs: int, labels: NDArray[Any] | None, expected: str) -> None:
    config = BertConfig(num_labels=outputs, problem_type=stated)
    assert task_for(config, labels).name == expected


@pytest.mark.parametrize(
    ("stated", "names", "column", "expected"),
    [
        (None, {0: "score"}, [0.5, None], [0.5, np.nan]),
        (None, NAMES, ["blame", None, 2], [1, -100, 2]),
        (None, NAMES, [["blame"], None], [[0, 1, 0], [np.nan] * 3]),
        (REGRESSION, NAMES, [[1, 2, 3.5], None], [[1, 2, 3.5], [np.nan] * 3]),
        (MULTI, NAMES, [None, None], [[np.nan] * 3] * 2),
        (SINGLE, {0: "only"}, ["only", 0], [0, 0]),
    ],
)
def test_a_column_of_labels_is_read_for_the_model(
    stated: str | None, names: dict[int, str], column: list[Any], expected: list[Any]
) -> None:
    config = BertConfig(id2label=names, problem_type=stated)
    labels = label_reader(config)(column, names, where, ())
    np.testing.assert_array_equal(labels, np.array(expected))
    assert labels.dtype == (np.int64 if np.array(expected).dtype.kind == "i" else np.float32)


def test_losses(task: Task) -> None:
    hard, soft = hard_rows(task.name), soft_rows(task.name, 3.0)
    loss, gradient = task.label_loss(LOGITS[LABELLED], LABELS[task.name][LABELLED])
    assert loss == pytest.approx(hard.mean(), rel=1e-6)
    assert gradient.shape == (3, 3)
    parts = task.teacher_loss(LOGITS, TEACHER, LABELS[task.name], alpha=0.25, temperature=3.0)
    assert parts.hard == pytest.approx(hard.mean(), rel=1e-6)
    assert parts.soft == pytest.approx(soft.mean(), rel=1e-6)
    # A row without a label learns from the teacher alone.
    rows = np.append(0.25 * hard + 0.75 * soft[LABELLED], soft[3])
    assert parts.loss == pytest.approx(rows.mean(), rel=1e-6)


def test_labels_can_be_smoothed_and_numbers_cannot(task: Task) -> None:
    labels = LABELS[task.name][LABELLED]
    if task.name != REGRESSION:
        assert task.label_loss(LOGITS[LABELLED], labels, label_smoothing=0.1) != task.label_loss(
            LOGITS[LABELLED], labels
        )
        return
    with pytest.raises(ValueError, match=f"label_smoothing is 0.1 and problem_type '{task.name}'; expected 0"):
        task.label_loss(LOGITS[LABELLED], labels, label_smoothing=0.1)


def test_evaluation_of_the_labelled_rows(task: Task) -> None:
    z, y = LOGITS[LABELLED].astype(np.float64).ravel(), LABELS[REGRESSION][LABELLED].astype(np.float64).ravel()
    expected = {
        SINGLE: {"accuracy": 2 / 3},
        # Predicted are [1, 0, 1], [1, 1, 0], [0, 1, 1]: one row is right, and 5 of 6 predicted and 6 true labels.
        # The true ones have the places 1, 2, 4, 5, 6 and 7 among all logits, and one of each row the row's first.
        MULTI: {
            "accuracy": 1 / 3,
            "f1": 2 * 5 / (6 + 6),
            "average_precision": (1 / 1 + 2 / 2 + 3 / 4 + 4 / 5 + 5 / 6 + 6 / 7) / 6,
            "top_1": 1.0,
        },
        REGRESSION: {
            "mse": np.square(z - y).mean(),
            "pearson": np.corrcoef(z, y)[0, 1],
            "spearmanr": np.corrcoef(ranks(z), ranks(y))[0, 1],
        },
    }
    measured = task.evaluate(LOGITS, LABELS[task.name])
    assert list(measured) == [*expected[task.name], "loss", "n"]
    assert measured.pop("n") == 3
    assert measured.pop("loss") == pytest.approx(hard_rows(task.name).mean(), rel=1e-6)
    assert measured == pytest.approx(expected[task.name], rel=1e-6)
    assert task.evaluate(LOGITS[3:], LABELS[task.name][3:]) == {}


def ranks(x: NDArray[np.float64]) -> list[float]:
    """Each value's rank, the mean of those of its equals."""
    return [float(np.mean([place for place, y in enumerate(sorted(x)) if y == value])) for value in x]


def test_rows_that_are_right(task: Task) -> None:
    right = task.right(LOGITS, LABELS[task.name])
    expected = {SINGLE: [True, False, True], MULTI: [True, False, False], REGRESSION: None}[task.name]
    assert (right if right is None else right.tolist()) == expected


def test_predictions_as_a_table(task: Task) -> None:
    file = io.StringIO()
    predictions_of(task, LOGITS, list(NAMES.values())).write_tsv(file, ALL_DIGITS)
    header, *lines = [line.split("\t") for line in file.getvalue().splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "2", "3"]
    if task.name == REGRESSION:
        assert header == ["index", "prediction_praise", "prediction_blame", "prediction_long"]
        np.testing.assert_array_equal([[float(value) for value in line[1:]] for line in lines], LOGITS)
        return
    assert header == ["index", "prediction", "score_praise", "score_blame", "score_long"]
    answers = {
        SINGLE: ["praise", "praise", "long", "blame"],
        MULTI: ["praise,long", "praise,blame", "blame,long", "blame"],
    }
    assert [line[1] for line in lines] == answers[task.name]
    scores = softmax(LOGITS) if task.name == SINGLE else sigmoid(LOGITS)
    np.testing.assert_allclose([[float(value) for value in line[2:]] for line in lines], scores, rtol=1e-12)


def test_facts_for_cards_pipelines_and_the_best_weights() -> None:
    assert {name: task.description(["a", "b"]) for name, task in TASKS.items()} == {
        SINGLE: "It sorts text into a, b.",
        MULTI: "It sorts text into a, b.",
        REGRESSION: "It gives a text a number.",
        "token-classification": "It gives each word of a text one of the tags a, b.",
        "question-answering": "It answers a question about a text with a part of the text.",
        "masked-lm": "It predicts words that are hidden in a text.",
        "feature-extraction": "It gives a text an embedding, a vector close to those of texts that mean the same.",
    }
    functions = ["softmax", "sigmoid", "none", "softmax", "none", "none", "none"]
    assert [task.score_function for task in TASKS.values()] == functions
    metrics = ["accuracy", "f1", "pearson", "f1", "f1", "perplexity", "cosine"]
    assert [task.card_metric for task in TASKS.values()] == metrics
    best = ["accuracy", "average_precision", "loss", "f1", "f1", "perplexity", "loss"]
    assert [task.best_metric for task in TASKS.values()] == best
    of_rows = {"text-classification", "feature-extraction"}
    assert {task.pipeline_tag for task in TASKS.values() if not task.per_token} == of_rows
    assert [task.one_label for task in TASKS.values()] == [True, False, False, True, False, False, False]
