"""Which trackers a run logs to; tests/oracle has the runs with their own libraries."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.trackers import TRACKERS, MlflowCallback, Tracker, WandbCallback
from kdistill.trainers import Trainer


def run(directory: Path, report_to: Any, *callbacks: Any) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {"report_to": report_to, "run_name": "first", "logging_steps": 2}))
    rows = {"train_dataset": small_dataset(32), "eval_dataset": small_dataset(16, seed=1)}
    return Trainer(small_model(), args, **rows, callbacks=callbacks)


@pytest.mark.parametrize("tracker", TRACKERS, ids=lambda tracker: tracker.package)
def test_a_tracker_that_is_not_installed_is_refused_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: type[Tracker]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"report_to is .*is not installed.*kdistill\[{tracker.package}\]"):
        run(tmp_path, ["files", tracker.package])
    trainer = run(tmp_path, "all")
    assert not any(isinstance(callback, Tracker) for callback in trainer.callback_handler.callbacks)


def test_by_default_no_tracker_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def trackers(report_to: str | None) -> list[type]:
        callbacks = run(tmp_path, report_to).callback_handler.callbacks
        return [type(callback) for callback in callbacks if isinstance(callback, Tracker)]

    assert trackers(None) == trackers("local") == []
    assert trackers("all") == [WandbCallback, MlflowCallback]
    assert trackers("mlflow,files") == [MlflowCallback]


class Broken(Tracker):
    package = "broken"

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def fail(self, event: str) -> None:
        if event == self.where:
            raise ConnectionError("no network")

    def open(self, args: Any, state: Any) -> None:
        self.fail("open")
        self._run = object()

    def log(self, numbers: Any, step: int) -> None:
        self.fail("log")

    def close(self, *, finished: bool) -> None:
        assert finished
        self.fail("close")


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_does_not_end_the_run(tmp_path: Path, where: str) -> None:
    trainer = run(tmp_path, "none", Broken(where))
    with pytest.warns(
        UserWarning, match="broken failed and receives no more logs of this run: ConnectionError: no net"
    ) as caught:
        trainer.train()
    assert len(caught) == 1
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["eval_accuracy"] > 0


def test_a_run_that_is_cut_short_is_closed_as_such(tmp_path: Path) -> None:
    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            raise InterruptedError

    closed: list[bool] = []

    class Watch(Broken):
        def close(self, *, finished: bool) -> None:
            closed.append(finished)

    with pytest.raises(InterruptedError):
        run(tmp_path, "none", Watch(""), Cut()).train()
    assert closed == [False]
