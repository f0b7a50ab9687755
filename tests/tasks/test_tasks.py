"""Regression, multi-label classification and pairs of three labels, from rows to saved models."""

from __future__ import annotations

import csv
import io
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_run import run_fields, small_dataset, small_model

from kdistill.data.labels import labelled_rows
from kdistill.metrics.classification import Classes, micro
from kdistill.metrics.prediction import EvalPrediction
from kdistill.metrics.regression import pearson, spearmanr
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig
from kdistill.tasks.base import Answers
from kdistill.tasks.predictions import ALL_DIGITS, predictions_of
from kdistill.tasks.registry import TASKS, choose_metrics, label_reader, task_for
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.recipe import Provenance
from kdistill.trainers import DistillationTrainer, Trainer

MULTI, REGRESSION = "multi_label_classification", "regression"
NAMES = {0: "praise", 1: "blame", 2: "long"}


def task_rows(task: str, n: int = 64) -> list[dict[str, Any]]:
    """Rows of token ids whose label is a function of them."""
    dataset, rows = small_dataset(n), []
    for row in range(n):
        ids = dataset.ids[dataset.starts[row] : dataset.starts[row + 1]].tolist()
        praised = int(dataset.labels[row])
        label: Any = float(praised)
        if task == MULTI:
            label = ["praise" if praised else "blame", *(["long"] if len(ids) > 6 else [])]
        elif task == "pairs":
            label = 2 if len(ids) > 6 else praised
        rows.append({"input_ids": ids, "token_type_ids": [0] * 2 + [1] * (len(ids) - 2), "label": label})
    return rows


def labels_of_model(task: str) -> dict[str, object]:
    return {"id2label": {0: "score"} if task == REGRESSION else NAMES}


@pytest.mark.parametrize("task", [REGRESSION, MULTI, "pairs"])
def test_training_and_distilling_a_task(task: str, tmp_path: Path) -> None:
    rows = task_rows(task)
    teacher = small_model(1, **labels_of_model(task))
    fields = run_fields(tmp_path / "teacher", {"num_train_epochs": 20})
    trainer = Trainer(teacher, TrainingArguments(**fields), train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    teacher_loss = trainer.evaluate()["eval_loss"]
    assert teacher_loss < 0.5 * before
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "teacher" / "out")
    assert saved.config.problem_type == ("single_label_classification" if task == "pairs" else task)

    unlabelled = [{**row, "label": None} for row in rows]
    student = small_model(5, **labels_of_model(task))
    arguments = DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 20, "temperature": 2.0}))
    distiller = DistillationTrainer(
        student, arguments, teacher_model=saved, train_dataset=unlabelled, eval_dataset=rows
    )
    start = distiller.evaluate()["eval_loss"]
    with pytest.warns(UserWarning, match="no training row has a label.*; label of the list is empty in every row"):
        distiller.train()
    assert distiller.evaluate()["eval_loss"] < 0.6 * start
    assert student.config.problem_type == saved.config.problem_type
    assert (tmp_path / "out" / "README.md").read_text().count("eval") >= 1


def test_teacher_and_student_of_different_problems() -> None:
    teacher = small_model(1, problem_type=MULTI)
    student = small_model(2, problem_type="single_label_classification")
    with pytest.raises(ValueError, match=f"teacher's problem_type is '{MULTI}' and the student's 'single_label"):
        DistillationTrainer(student, teacher_model=teacher)


def where(row: int) -> str:
    return f"row {row}"


def label_array(labels: list[Any], names: dict[int, str], problem_type: str | None) -> NDArray[Any]:
    return label_reader(BertConfig(id2label=names, problem_type=problem_type))(labels, names, where, ())


def test_labels_of_a_regression() -> None:
    labels = label_array(["1.5", None, 3, "", np.float32(2)], {0: "score"}, None)
    np.testing.assert_array_equal(labels, np.array([1.5, np.nan, 3, np.nan, 2], np.float32))
    assert labelled_rows(labels).tolist() == [True, False, True, False, True]
    with pytest.raises(ValueError, match="row 1: label 'high' is not a number"):
        label_array([1, "high"], {0: "score"}, None)
    with pytest.raises(ValueError, match="row 0: label inf"):
        label_array([math.inf], {0: "score"}, None)


def test_labels_of_several_at_once() -> None:
    labels = label_array([["blame"], [], None, [0, "long"], [1.0, 0.0, 1.0]], NAMES, None)
    expected = [[0, 1, 0], [0, 0, 0], [np.nan] * 3, [1, 0, 1], [1, 0, 1]]
    np.testing.assert_array_equal(labels, np.array(expected, np.float32))
    assert labelled_rows(labels).tolist() == [True, True, False, True, True]
    for wrong, message in (
        (["other"], "label 'other' is not one of"),
        ([1, 1], "twice"),
        ([0.5, 0.0, 0.0], "0.0 or 1"),
    ):
        with pytest.raises(ValueError, match=f"row 1: .*{message}"):
            label_array([[0], wrong], NAMES, MULTI)
    with pytest.raises(TypeError, match="row 0: label 1 is not a list"):
        label_array([1], NAMES, MULTI)


def test_metrics_from_their_definitions() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 1.0, 4.0, 4.5])
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranks = np.array([1.0, 2.5, 2.5, 4.0]), np.array([2.0, 1.0, 3.0, 4.0])
    assert spearmanr(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert math.isnan(pearson(x, np.ones(4)))
    given, chosen = np.array([[1, 0], [1, 1]], bool), np.array([[1, 1], [0, 1]], bool)
    assert micro("f1", chosen, given) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert micro("f1", ~np.ones((2, 2), bool), ~np.ones((2, 2), bool)) == 0
    logits = np.array([[1, -1], [2, 3], [1, 1]], np.float32)
    measured = TASKS[MULTI].evaluate(logits, np.array([[1, 0], [1, 0], [np.nan] * 2], np.float32))
    assert (measured["accuracy"], measured["f1"], measured["n"]) == (0.5, 0.8, 2)
    measured = TASKS[REGRESSION].evaluate(logits[:, :1], np.array([2, 2, np.nan], np.float32))
    assert (measured["mse"], measured["loss"], measured["n"]) == (0.5, 0.5, 2)


def test_a_run_asks_its_task_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A task with another loss, another metric and other words in the card, put in the place of a known one."""
    name = "single_label_classification"
    known, eighth = TASKS[name], np.float32(0.125)

    def label_loss(logits: NDArray[Any], labels: NDArray[Any], *, label_smoothing: float = 0.0) -> Any:
        loss, gradient = known.label_loss(logits, labels, label_smoothing=label_smoothing)
        return loss / 8, gradient * eighth

    other = replace(
        known,
        pipeline_tag="parity-classification",
        description=lambda names: f"It weighs {' against '.join(names)}.",
        label_loss=label_loss,
        metrics={"parity": lambda answers: 0.25},
        default_metrics=("parity",),
        best_metric="parity",
        card_metric="parity",
        one_label=False,
        right_rows=None,
        constant=None,
    )

    def run(directory: str) -> Trainer:
        arguments = TrainingArguments(**run_fields(tmp_path / directory, {"num_train_epochs": 1}))
        data = {"train_dataset": small_dataset(8), "eval_dataset": small_dataset(8, seed=1)}
        trainer = Trainer(small_model(), arguments, **data, provenance=Provenance(dataset="small"))
        trainer.train()
        return trainer

    expected = run("known")
    monkeypatch.setitem(TASKS, name, other)
    trainer = run("other")
    for key in ("loss", "grad_norm"):  # of the one step
        assert trainer.state.log_history[0][key] == expected.state.log_history[0][key] / 8
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("parity", True)
    assert trainer.state.best_metric == trainer.results["eval_parity"] == 0.25
    assert "eval_accuracy" in expected.results
    assert "eval_accuracy" not in trainer.results
    header, card = (tmp_path / "other" / "out" / "README.md").read_text().split("---\n", 2)[1:]
    assert 'pipeline_tag: "parity-classification"\n' in header
    assert 'metrics: ["parity"]\n' in header
    assert '"task": {"type": "parity-classification", "name": "Parity Classification"}' in header
    assert "It weighs negative against positive." in card
    known_card = (tmp_path / "known" / "out" / "README.md").read_text()
    for words in ("ECE", "95 % interval", "always the most frequent label", "accuracy"):
        assert words in known_card
        assert words not in card


def table_of(logits: list[list[float]], config: BertConfig) -> str:
    file = io.StringIO()
    names = list(config.id2label.values())
    predictions_of(task_for(config), np.array(logits, np.float32), names).write_tsv(file, ALL_DIGITS)
    return file.getvalue()


def test_columns_of_predictions() -> None:
    assert table_of([[0.5], [2]], BertConfig(num_labels=1)) == "index\tprediction\n0\t0.5\n1\t2.0\n"
    written = table_of([[9, -9, 0.1], [-9, -9, 0]], BertConfig(id2label=NAMES, problem_type=MULTI))
    lines = [line.split("\t") for line in written.splitlines()]
    assert lines[0] == ["index", "prediction", "score_praise", "score_blame", "score_long"]
    assert [line[1] for line in lines[1:]] == ["praise,long", ""]
    assert float(lines[1][2]) == pytest.approx(1 / (1 + math.exp(-9)))


AWKWARD = {0: "tab\there", 1: "two\nlines", 2: '"quoted"', 3: 'half "quoted"', 4: "a,b", 5: "carriage\rreturn"}


@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI, REGRESSION])
def test_any_name_of_a_label_keeps_predictions_a_table(problem_type: str) -> None:
    """Read with quotes, as pandas and the csv module read, every name is what it was."""
    logits = np.where(np.eye(6) > 0, 9.0, -9.0).tolist()
    written = table_of(logits, BertConfig(id2label=AWKWARD, problem_type=problem_type))
    header, *rows = csv.reader(io.StringIO(written, newline=""), delimiter="\t", strict=True)
    prefix = "prediction_" if problem_type == REGRESSION else "score_"
    assert [name.removeprefix(prefix) for name in header[-6:]] == list(AWKWARD.values())
    assert {len(row) for row in rows} == {len(header)}
    if problem_type == MULTI:
        assert [next(csv.reader([row[1]], strict=True)) for row in (rows[0], rows[4])] == [["tab\there"], ["a,b"]]
    elif problem_type != REGRESSION:
        assert [row[1] for row in rows] == list(AWKWARD.values())


def test_metrics_of_many_classes_take_memory_for_the_classes_alone() -> None:
    """As one-hot matrices, 2 GB; the values are those of scikit-learn's definitions, summed by hand."""
    classes, rows = 1_000_000, 2_000
    true = np.arange(rows) % 1_000
    chosen = np.where(np.arange(rows) < 1_000, true, (true + 1) % 1_000)
    predicted, given = Classes(chosen, classes), Classes(true, classes)
    tracemalloc.start()
    answers = Answers(np.empty((0, 0), np.float32), predicted, given)
    metrics = TASKS["single_label_classification"].metrics
    found = {name: metric(answers) for name, metric in metrics.items() if name != "roc_auc"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * classes
    assert found == pytest.approx(
        {
            "accuracy": 0.5,
            **{f"{score}{kind}": 0.5 for score in ("f1", "precision", "recall") for kind in ("", "_macro", "_micro")},
            "matthews_correlation": (0.5 - 1e-3) / (1 - 1e-3),
        }
    )


def test_many_labels_are_not_all_listed_in_a_sentence() -> None:
    described = TASKS["single_label_classification"].description([f"a\nb {index}" for index in range(40_000)])
    assert described.endswith("a b 48, a b 49 and 39,950 more.")


def test_a_label_is_given_above_even_odds() -> None:
    """A logit of 0 is a probability of one half: 0.3 says yes, -0.3 says no."""
    near = EvalPrediction(np.array([[0.3, -0.3], [-0.3, 0.3]], np.float32), np.eye(2, dtype=np.float32))
    assert choose_metrics("accuracy", "f1")(near) == {"accuracy": 1, "f1": 1}


def test_metrics_by_name() -> None:
    chosen, given = [0, 1, 1, 1, 0, 1], [0, 1, 0, 1, 1, 1]  # TP 3, FP 1, FN 1, TN 1
    logits = np.eye(2, dtype=np.float32)[chosen]
    found = choose_metrics("accuracy", "f1", "f1_macro", "f1_micro", "matthews_correlation")(
        EvalPrediction(logits, np.array(given))
    )
    expected = {"accuracy": 4 / 6, "f1": 6 / 8, "f1_macro": (6 / 8 + 2 / 4) / 2, "f1_micro": 4 / 6}
    expected["matthews_correlation"] = np.corrcoef(chosen, given)[0, 1]
    assert found == pytest.approx(expected)
    numbers = EvalPrediction(np.array([[1], [3]], np.float32), np.array([1, 2], np.float32))
    assert choose_metrics("mse", "pearson")(numbers) == pytest.approx({"mse": 0.5, "pearson": 1})
    with pytest.raises(ValueError, match="the metric 'f1' is not one of a model for regression; expected one of mse"):
        choose_metrics("f1")(numbers)
    several = EvalPrediction(logits, np.eye(2, dtype=np.float32)[given])
    assert choose_metrics("f1_micro")(several) == pytest.approx({"f1_micro": 4 / 6})
    with pytest.raises(ValueError, match="'matthews_correlation' is not one of a model for multi_label_classification"):
        choose_metrics("matthews_correlation")(several)
    with pytest.raises(ValueError, match=r"no metric 'roc-auc'; expected names among .*; did you mean 'roc_auc'"):
        choose_metrics("roc-auc")
    with pytest.raises(ValueError, match="there is no metric 'auc'; expected names among accuracy"):
        choose_metrics("auc")


def test_the_smallest_squared_error_is_the_best() -> None:
    assert TrainingArguments(output_dir="out", metric_for_best_model="mse").greater_is_better is False
    assert TrainingArguments(output_dir="out", metric_for_best_model="pearson").greater_is_better is True
