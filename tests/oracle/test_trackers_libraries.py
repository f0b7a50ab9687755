"""Weights & Biases and MLflow through their own libraries, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
import wandb
from support.small_run import run_fields, small_dataset, small_model

from kdistill.train.arguments import TrainingArguments
from kdistill.trainers import Trainer


def run(directory: Path, report_to: Any, *callbacks: Any) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {"report_to": report_to, "run_name": "first", "logging_steps": 2}))
    rows = {"train_dataset": small_dataset(32), "eval_dataset": small_dataset(16, seed=1)}
    return Trainer(small_model(), args, **rows, callbacks=callbacks)


def test_wandb_gets_every_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged: list[dict[str, float]] = []
    real = wandb.Run.log
    monkeypatch.setattr(wandb.Run, "log", lambda run, data: (logged.append(data), real(run, data))[1])
    trainer = run(tmp_path, ["wandb"])
    trainer.train()
    (directory,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert list(directory.glob("run-*.wandb"))
    assert [entry["train/global_step"] for entry in logged] == [entry["step"] for entry in trainer.state.log_history]
    expected = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert [entry["eval/accuracy"] for entry in logged if "eval/accuracy" in entry] == expected
    assert len(expected) == 2


def test_mlflow_gets_every_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow makes a database, in versions that do
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "small")
    trainer = run(tmp_path, "mlflow")
    trainer.train()
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["learning_rate"] == "0.01"
    assert "hub_token" not in found.data.params
    history = trainer.state.log_history
    for name in ("loss", "eval_accuracy", "learning_rate"):
        theirs = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, name)]
        assert theirs == [(entry["step"], entry[name]) for entry in history if name in entry]
