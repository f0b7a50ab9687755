"""Each class by itself, in figures, files, card and terminal, beside loops over the rows."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import tables
from support.small_run import run_fields, small_dataset, small_model, write_model, write_rows

from kdistill.cli import main as cli
from kdistill.report.per_class import PerClass, class_rows, confused_rows, worst
from kdistill.tasks.registry import TASKS
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

SINGLE, MULTI = TASKS["single_label_classification"], TASKS["multi_label_classification"]
NAMES = {0: "a", 1: "b|c", 2: "tab\there", 3: "never"}
TRUE = [0, 0, 0, 1, 1, 2, 2, 2, 2, -100]
SAID = [0, 1, 1, 1, 0, 2, 1, 2, 2, 3]
LOGITS = np.eye(4, dtype=np.float32)[SAID]

pytestmark = pytest.mark.filterwarnings("ignore:the teacher.s (accuracy|loss)")


def test_classes_of_rows_counted_by_eye() -> None:
    found = PerClass.of(SINGLE, LOGITS, np.array(TRUE))
    assert found is not None
    rows = class_rows(NAMES, found, found)
    assert [row["label"] for row in rows] == ["a", "b|c", "tab\there"]  # nobody has the last one
    assert [(row["support"], row["predicted"]) for row in rows] == [(3, 2), (2, 4), (4, 3)]
    assert [row["precision"] for row in rows] == [1 / 2, 1 / 4, 1.0]
    assert [row["recall"] for row in rows] == [1 / 3, 1 / 2, 3 / 4]
    assert [row["f1"] for row in rows] == pytest.approx([2 / 5, 2 / 6, 6 / 7])
    assert [row["teacher_f1"] for row in rows] == [row["f1"] for row in rows]
    pairs = confused_rows(NAMES, found)
    assert [(of["label"], of["predicted"], of["rows"]) for of in pairs] == [
        ("a", "b|c", 2),
        ("b|c", "a", 1),
        ("tab\there", "b|c", 1),
    ]
    assert [of["share"] for of in pairs] == [2 / 3, 1 / 2, 1 / 4]
    assert [row["label"] for row in worst(rows, 2)] == ["b|c", "a"]


def test_several_labels_have_scores_and_no_confusions() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(40, 3)).astype(np.float32), random.integers(0, 2, (40, 3)).astype(np.float32)
    task = MULTI.at_threshold(0.4)
    found = PerClass.of(task, logits, labels)
    assert found is not None
    said = 1 / (1 + np.exp(-logits.astype(np.float64))) > 0.4
    for k, row in enumerate(class_rows(NAMES, found)):
        hits = int((said[:, k] & (labels[:, k] == 1)).sum())
        assert (row["support"], row["predicted"]) == (labels[:, k].sum(), said[:, k].sum())
        assert (row["precision"], row["recall"]) == (hits / said[:, k].sum(), hits / labels[:, k].sum())
    assert confused_rows(NAMES, found) == []
    assert PerClass.of(TASKS["regression"], logits, labels) is None


def test_classes_that_no_row_has_are_not_the_worst() -> None:
    found = PerClass.of(SINGLE, LOGITS, np.array([0, 0, 0, 0, 0, 2, 2, 2, 2, 2]))  # 1 is only predicted
    assert found is not None
    assert [row["label"] for row in worst(class_rows(NAMES, found), 9)] == ["a", "tab\there"]


def distilled(directory: Path, classes: int) -> tuple[DistillationTrainer, dict[str, Any], str]:
    """A student of one step, its figures and its card, on rows whose labels nobody can know."""
    names = {k: f"class {k}" for k in range(classes)}
    base = small_dataset(60)
    rows = dataclasses.replace(base, labels=np.random.default_rng(1).integers(0, classes, 60))
    trainer = DistillationTrainer(
        small_model(2, id2label=names),
        DistillationTrainingArguments(**run_fields(directory, {"max_steps": 1})),
        teacher_model=small_model(5, id2label=names),
        train_dataset=rows,
        eval_dataset=rows,
    )
    trainer.train()
    figures = trainer.create_model_card(measure_speed=False)
    return trainer, figures, (directory / "out" / "README.md").read_text()


def tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", strict=True))


def test_a_card_of_many_classes_shows_the_worst_and_the_files_hold_all(tmp_path: Path) -> None:
    trainer, figures, card = distilled(tmp_path, 20)
    rows = trainer.eval_dataset
    batch, true = rows.batch(np.arange(60))
    said, taught = (model.forward(batch).argmax(axis=1) for model in (trainer.model, trainer.teacher_model))
    assert {row["label"]: row["support"] for row in figures["per_class"] if row["support"]} == {
        f"class {k}": (true == k).sum() for k in set(true.tolist())
    }
    for row in figures["per_class"]:
        k = int(row["label"].removeprefix("class "))
        assert row["recall"] == ((said == k) & (true == k)).sum() / max((true == k).sum(), 1)
        assert row["teacher_recall"] == ((taught == k) & (true == k)).sum() / max((true == k).sum(), 1)
    assert sum(row["rows"] for row in figures["confusions"]) == (said != true).sum()

    held = tsv(tmp_path / "out" / "per_class.tsv")
    assert [row["label"] for row in held] == [row["label"] for row in figures["per_class"]]
    assert [float(row["teacher_f1"]) for row in held] == [row["teacher_f1"] for row in figures["per_class"]]
    assert [int(row["rows"]) for row in tsv(tmp_path / "out" / "confusions.tsv")] == [
        row["rows"] for row in figures["confusions"]
    ]
    (shown,) = (table for table in tables(card) if "support" in table[0])
    assert len(shown) == 10
    assert "teacher f1" in shown[0]
    assert f"10 of {len(held)} labels with the lowest F1; `per_class.tsv` holds all" in card
    missed = sum(row["support"] > 0 and row["predicted"] == 0 for row in figures["per_class"])
    assert f"**The model predicts {missed} of the labels for no row.**" in card
    (pairs,) = (table for table in tables(card) if "share" in table[0])
    assert [row["rows"] for row in pairs] == [str(row["rows"]) for row in figures["confusions"][:10]]
    assert f"`confusions.tsv` holds all {len(figures['confusions'])} pairs" in card


def test_a_card_of_two_classes_shows_both(tmp_path: Path) -> None:
    _, figures, card = distilled(tmp_path, 2)
    (shown,) = (table for table in tables(card) if "support" in table[0])
    assert [row["label"] for row in shown] == ["class 0", "class 1"]
    assert [row["f1"] for row in shown] == [f"{row['f1']:.4f}" for row in figures["per_class"]]
    assert "lowest F1" not in card


def test_a_run_in_the_same_directory_deletes_the_files(tmp_path: Path) -> None:
    trainer, _, _ = distilled(tmp_path, 3)
    assert (tmp_path / "out" / "per_class.tsv").is_file()
    trainer.args.overwrite_output_dir = True
    trainer.eval_dataset = None
    with pytest.warns(UserWarning, match="no eval_dataset is given"):
        trainer.train()
    assert not (tmp_path / "out" / "per_class.tsv").exists()
    assert not (tmp_path / "out" / "confusions.tsv").exists()


def command(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_evaluate_shows_each_class_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = write_model(tmp_path / "model", seed=3), write_rows(tmp_path / "rows.tsv", 40)
    words = ("evaluate", "--model", model, "--data", rows, "--per-class")
    assert command(*words, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert {row["label"] for row in figures["per_class"] if row["support"]} == {"negative", "positive"}
    hits = sum(row["recall"] * row["support"] for row in figures["per_class"])
    assert hits / figures["n"] == pytest.approx(figures["accuracy"])
    assert command(*words) == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    assert blocks[0][0].split()[0] == "accuracy"
    assert blocks[1][0].split() == ["label", "support", "predicted", "precision", "recall", "f1"]
    shown = dict(line.split(None, 1) for line in blocks[1][1:])
    for row in figures["per_class"]:
        assert shown[row["label"]].split()[-1] == f"{row['f1']:.4f}"
    assert command(*words[:-1], "--json") == 0
    assert "per_class" not in json.loads(capsys.readouterr().out)


def test_evaluate_has_no_classes_of_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", problem_type="regression", id2label={0: "score"})
    rows = write_rows(tmp_path / "rows.tsv", 10)
    assert command("evaluate", "--model", model, "--data", rows, "--per-class") == 2
    assert "--per-class is given, and a model for regression has no classes; leave it out" in capsys.readouterr().err
