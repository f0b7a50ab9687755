"""The short table at the end of a run: its figures against those of others, its lines against a terminal's width."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.metrics.classification import softmax
from kdistill.report import measure
from kdistill.report.summary import compare_search, duration, sentences, shortened, table
from kdistill.tasks import multi_label, regression, single_label
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.trainers import DistillationTrainer, Trainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


def distilled(directory: Path, **changes: Any) -> DistillationTrainer:
    args = DistillationTrainingArguments(**run_fields(directory, changes))
    rows = {"train_dataset": small_dataset(40), "eval_dataset": small_dataset(31, seed=1)}
    trainer = DistillationTrainer(small_model(), args, teacher_model=small_model(7), **rows)
    trainer.train()
    return trainer


def test_a_student_stands_beside_its_teacher_and_the_most_frequent_label(tmp_path: Path) -> None:
    trainer = distilled(tmp_path)
    summary = trainer.summary()
    labels = trainer.eval_dataset.labels
    teacher = Trainer(trainer.teacher_model, TrainingArguments(str(tmp_path / "t"), disable_tqdm=True))
    for name, of in (("model", trainer), ("teacher", teacher)):
        expected = of.evaluate(trainer.eval_dataset)
        assert summary[name]["accuracy"] == expected["eval_accuracy"]
        assert summary[name]["loss"] == pytest.approx(expected["eval_loss"], rel=1e-6)
        assert summary[name]["num_parameters"] == of.model.num_parameters()
        assert summary[name]["sentences_per_second"] > 0
    assert summary["majority"]["accuracy"] == max(np.bincount(labels)) / 31
    assert summary["majority"]["answer"] == ("negative", "positive")[np.bincount(labels).argmax()]
    assert summary["model"]["bytes"] == (tmp_path / "out/model.safetensors").stat().st_size
    assert summary["teacher"]["bytes"] == 4 * trainer.teacher_model.num_parameters()
    assert (summary["rows"], summary["train_rows"], summary["metrics"]) == (31, 40, ["accuracy"])
    assert summary["train_seconds"] == trainer.results["train_runtime"]


def test_a_finished_run_that_is_resumed_has_the_same_table(tmp_path: Path) -> None:
    summaries = []
    for resume in (None, True):
        args = TrainingArguments(**run_fields(tmp_path, {}))
        trainer = Trainer(small_model(), args, train_dataset=small_dataset(40), eval_dataset=small_dataset(31, seed=1))
        trainer.train(resume_from_checkpoint=resume)
        summaries.append(trainer.summary())
        del summaries[-1]["model"]["sentences_per_second"]
    assert summaries[0] == summaries[1]
    assert "teacher" not in summaries[0]


def test_the_metric_that_chose_the_weights_comes_first(tmp_path: Path) -> None:
    from kdistill.tasks.registry import choose_metrics

    args = TrainingArguments(**run_fields(tmp_path, {"metric_for_best_model": "f1_macro"}))
    rows = {"train_dataset": small_dataset(40), "eval_dataset": small_dataset(31, seed=1)}
    measured = choose_metrics("f1_macro", "matthews_correlation", problem_type="single_label_classification")
    trainer = Trainer(small_model(), args, compute_metrics=measured, **rows)
    trainer.train()
    summary = trainer.summary()
    assert summary["metrics"] == ["f1_macro", "accuracy", "matthews_correlation"]
    assert summary["majority"]["matthews_correlation"] == 0
    assert {"best_epoch", "epochs"} <= summary.keys()


def test_constant_answers_are_the_best_that_do_not_look_at_the_text() -> None:
    classes = np.array([2, 1, 2, 0, 2])
    assert single_label.TASK.constant(classes, 5).tolist() == [0, 0, 1, 0, 0]
    sets = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0]], np.float32)
    logits = multi_label.TASK.constant(sets, 3)
    assert (logits > 0).tolist() == [False, True, True]
    assert softmax(np.stack([logits, -logits]).T)[:, 0].round(6).tolist() == [0, 1, 1]  # above any threshold, or below
    numbers = np.random.default_rng(0).normal(3, 2, 1001).astype(np.float32)
    constant = regression.TASK.constant(numbers, 1)
    scores = regression.TASK.compute(("mse", "pearson", "spearmanr"), np.tile(constant, (1001, 1)), numbers)
    assert scores["mse"] == pytest.approx(numbers.astype(np.float64).var(), rel=1e-6)
    assert math.isnan(scores["pearson"])
    assert math.isnan(scores["spearmanr"])


def test_a_search_is_compared_by_its_metric(tmp_path: Path) -> None:
    trainer = distilled(tmp_path)
    subject = trainer.report.subject
    found = compare_search(subject, 0.75, "accuracy")
    summary = trainer.summary()
    assert found["model"] == {"accuracy": 0.75}
    assert found["teacher"]["accuracy"] == summary["teacher"]["accuracy"]
    assert found["majority"] == summary["majority"]
    by_loss = compare_search(subject, 0.5, "loss")
    assert by_loss["teacher"]["loss"] == pytest.approx(summary["teacher"]["loss"])
    assert "majority" not in by_loss
    assert table(compare_search(subject, 0.5, "mine"), "best").splitlines()[1].split() == ["best", "0.5000"]


SUMMARY = {
    "name": "out",
    "metrics": ["accuracy"],
    "model": {
        "accuracy": 0.80276,
        "loss": 0.4921,
        "num_parameters": 4386178,
        "bytes": 17.5e6,
        "sentences_per_second": 3e3,
    },
    "teacher": {"name": "minilm", "accuracy": 0.8979, "loss": 0.28, "num_parameters": 22713986, "bytes": 90.9e6},
    "majority": {"answer": "positive", "accuracy": 0.5092},
    "eval": "dev.tsv",
    "rows": 872,
    "rows_are": "labelled rows",
    "train_seconds": 17.2,
}


def test_the_table_to_the_letter() -> None:
    assert table(SUMMARY).splitlines() == [
        "                            accuracy    loss  parameters    MB  sentences/s",
        "student out                   0.8028  0.4921   4,386,178  17.5        3,000",
        "teacher minilm                0.8979  0.2800  22,713,986  90.9",
        "majority (always positive)    0.5092",
    ]
    assert sentences(SUMMARY) == ["measured on the 872 labelled rows of dev.tsv", "trained for 17 seconds"]


def test_the_type_of_a_teacher_that_is_not_float32_stands_beside_its_name() -> None:
    for dtype, name in (("float32", "teacher minilm"), ("int8", "teacher minilm in int8")):
        lines = table(SUMMARY | {"teacher": SUMMARY["teacher"] | {"dtype": dtype}}).splitlines()
        assert lines[2].split("  ")[0] == name


def test_metrics_make_room_for_the_names_of_the_rows() -> None:
    scores = {"average_precision": 0.1771, "accuracy": 0.268, "f1": 0.2873, "top_1": 0.314, "loss": 0.156}
    several = {
        "name": "student-of-emotions",
        "metrics": list(scores)[:4],
        "model": scores | {"num_parameters": 4389532, "bytes": 17.6e6, "sentences_per_second": 860},
        "teacher": scores | {"name": "goemotions", "num_parameters": 22723996, "bytes": 90.9e6},
        "majority": {"answer": "neutral", "average_precision": 0.1135, "accuracy": 0.27, "f1": 0.2844, "top_1": 0.314},
    }
    lines = table(several).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].startswith("teacher goemotions  ")
    assert lines[3].startswith("majority (always neutral)  ")
    assert lines[0].split() == ["average_precision", "accuracy", "f1", "parameters", "MB", "sentences/s"]


def test_numbers_are_compared_with_their_mean() -> None:
    numbers = SUMMARY | {"metrics": ["mse"], "majority": {"answer": "2.52", "mse": 2.0157}}
    assert table(numbers).splitlines()[3].split() == ["mean", "(always", "2.52)", "2.0157"]


@pytest.mark.parametrize("name", ["a name " * 40, "x" * 300, "two\nlines\tand \x1b[31m"])
def test_no_name_makes_the_table_wider_than_a_terminal_or_breaks_a_line(name: str) -> None:
    summary = SUMMARY | {"name": name, "majority": {"answer": name, "accuracy": 0.1}}
    lines = table(summary).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert shortened("x" * 100, 40).count("x") == 37


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.31, "0.3 seconds"), (17.4, "17 seconds"), (210, "3.5 minutes"), (3725, "1:02:05")]
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_glance_at_the_speed_takes_less_than_a_second_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that takes a tenth of a second for eight rows: fewer rows are timed than there are."""
    timed: list[int] = []

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()

    def predict(model: Any, rows: Any, **_: Any) -> None:
        timed.append(len(rows))
        clock.now += len(rows) / 80

    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "predict", predict)
    assert measure.speed_at_a_glance(None, small_dataset(200), 128) == pytest.approx(80)
    assert clock.now < 1
    assert timed == [8, 8, 32]
