"""Texts that UTF-8 has no bytes for, in every name that a run writes: each file is written, and read again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_run import run_fields, small_dataset, small_model, write_model, write_rows

from kdistill.models.classes import BertForSequenceClassification
from kdistill.train.arguments import TrainingArguments
from kdistill.train.recipe import Provenance
from kdistill.trainers import Trainer

LONE = "half \ud83d of a pair"
NOT_UTF8 = os.fsdecode(b"rows-\xe9\xff.tsv")


def test_lone_surrogates_in_labels_metrics_and_data_names(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    args = TrainingArguments(
        **run_fields(tmp_path, {"report_to": "tensorboard", "run_name": LONE, "metric_for_best_model": LONE})
    )
    run = Trainer(
        small_model(id2label={0: LONE, 1: "other \udfff"}),
        args,
        train_dataset=small_dataset(16),
        eval_dataset=small_dataset(8, seed=1),
        compute_metrics=lambda prediction: {LONE: 0.5},
        provenance=Provenance(started_from=LONE, train=LONE, eval=NOT_UTF8),
    )
    run.train()
    assert run.failed == {}
    out = tmp_path / "out"
    for path in out.rglob("*"):
        if path.suffix in (".json", ".md", ".csv", ".jsonl", ".txt"):
            path.read_text(encoding="utf-8")
    assert BertForSequenceClassification.from_pretrained(out).config.id2label == {0: LONE, 1: "other \udfff"}
    assert json.loads((out / "all_results.json").read_text())[f"eval_{LONE}"] == 0.5
    assert "half \\ud83d of a pair" in (out / "README.md").read_text()
    (logs,) = (out / "runs").iterdir()
    assert {path.name.split(".")[0] for path in logs.iterdir()} == {"events", "metrics"}
    again = Trainer(small_model(id2label={0: LONE, 1: "other \udfff"}), args, train_dataset=small_dataset(16))
    again.eval_dataset = run.eval_dataset
    again.train(resume_from_checkpoint=True)
    assert again.results == run.results


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and rows whose file's name is not UTF-8."""
    rows = tmp_path / NOT_UTF8
    shutil.copy(write_rows(tmp_path / "rows.tsv", 16), rows)
    return write_model(tmp_path / "model", id2label={0: LONE, 1: "positive"}), rows


def kdistill(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdistill", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, errors="surrogateescape")


def test_a_file_name_that_is_not_utf8_goes_through_training_report_and_prediction(places: tuple[Path, Path]) -> None:
    model, rows = places
    out = model.parent / os.fsdecode(b"out-\xff")
    done = kdistill(
        *("finetune", "--model", model, "--train", rows, "--eval", rows, "--num-train-epochs", 1, "--output-dir", out)
    )
    assert (done.returncode, done.stderr.count("warning")) == (0, 0), done.stderr
    assert "all figures (all_results.json)" in done.stdout
    assert os.fsencode(rows) in (out / "command.txt").read_bytes()
    (out / "README.md").unlink()
    done = kdistill("report", "--model", out)
    assert done.returncode == 0, done.stderr
    assert (out / "README.md").is_file()
    done = kdistill("predict", "--model", out, "--data", rows, "--output", out / "predictions.tsv")
    assert done.returncode == 0, done.stderr
    assert "half \\ud83d of a pair" in (out / "predictions.tsv").read_text(encoding="utf-8")
