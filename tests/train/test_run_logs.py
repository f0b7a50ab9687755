"""The logs of a run, read back by TensorBoard's own reader, by `csv` and by `json`."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.data.labels import NO_LABEL
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.run_logs import tracking_directory
from kdistill.trainers import DistillationTrainer, Trainer

TRAIN, EVAL = small_dataset(32), small_dataset(12, seed=1)
PARTS = ("loss", "hard_loss", "soft_loss", "grad_norm", "learning_rate")


def events_in(directory: Path) -> Any:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(directory))
        events.Reload()
    return events


def distiller(directory: Path, student: Any = None, train: Any = TRAIN, **changes: object) -> DistillationTrainer:
    fields: dict[str, object] = {"logging_strategy": "steps", "logging_steps": 1, "run_name": "first", **changes}
    return DistillationTrainer(
        student or small_model(2),
        DistillationTrainingArguments(**run_fields(directory, fields)),
        teacher_model=small_model(5),
        train_dataset=train,
        eval_dataset=EVAL,
    )


pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


def test_tensorboard_reads_every_step_and_every_evaluation(tmp_path: Path) -> None:
    trainer = distiller(tmp_path, report_to="tensorboard", alpha=0.25)
    trainer.train()
    events = events_in(tmp_path / "out" / "runs" / "first")
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 8
    for name in PARTS:
        read = events.Scalars(f"train/{name}")
        assert [event.step for event in read] == list(range(1, 9))
        assert [event.value for event in read] == pytest.approx([entry[name] for entry in logged], rel=1e-6)
    losses = {name: np.array([event.value for event in events.Scalars(f"train/{name}")]) for name in PARTS}
    np.testing.assert_allclose(losses["loss"], 0.25 * losses["hard_loss"] + 0.75 * losses["soft_loss"], rtol=1e-5)
    # Linear, without warm-up.
    np.testing.assert_allclose(losses["learning_rate"], 0.01 * (1 - np.arange(8) / 8), rtol=1e-6)
    accuracy = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert [event.step for event in events.Scalars("eval/accuracy")] == [4, 8]
    assert [event.value for event in events.Scalars("eval/accuracy")] == pytest.approx(accuracy)


def test_tensorboard_reads_the_hyperparameters(tmp_path: Path) -> None:
    trainer = distiller(tmp_path, report_to="tensorboard", temperature=3.5, seed=33)
    trainer.train()
    events = events_in(tmp_path / "out" / "runs" / "first")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert start["temperature"].number_value == 3.5
    assert start["seed"].number_value == 33
    assert start["learning_rate"].number_value == 0.01
    assert start["lr_scheduler_type"].string_value == "linear"
    assert start["teacher_cache"].bool_value is True
    assert not {"output_dir", "hub_token", "report_to"} & set(start)


def test_lists_of_numbers_are_hyperparameters_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    distiller(tmp_path, report_to="tensorboard", class_weights=[1, 3]).train()
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events_in(tmp_path / "out" / "runs" / "first").PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert json.loads(start["class_weights"].string_value) == [1, 3]


def test_parts_of_the_loss_beside_numpy(tmp_path: Path) -> None:
    """The first step, before anything is learned, without dropout; a batch of 32 in two halves; one row unlabelled."""
    labels = TRAIN.labels.copy()
    labels[3] = NO_LABEL
    train = dataclasses.replace(TRAIN, labels=labels)
    student = small_model(2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch, _ = train.batch(np.arange(32))
    ours, theirs = (model.forward(batch).astype(np.float64) for model in (student, small_model(5)))
    changes = {"max_steps": 1, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "temperature": 3.0}
    trainer = distiller(tmp_path, student, train, **changes)
    with pytest.warns(UserWarning, match="1 of 32 training rows have no label"):
        trainer.train()

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    hard = [-log_softmax(ours)[row, label] for row, label in enumerate(labels) if label != NO_LABEL]
    p, q = log_softmax(theirs / 3), log_softmax(ours / 3)
    soft = 9 * (np.exp(p) * (p - q)).sum(axis=1)
    entry = trainer.state.log_history[0]
    assert entry["hard_loss"] == pytest.approx(np.mean(hard), rel=1e-6)
    assert entry["soft_loss"] == pytest.approx(np.mean(soft), rel=1e-5)


def test_without_labels_there_is_no_part_of_them(tmp_path: Path) -> None:
    trainer = distiller(tmp_path, train=dataclasses.replace(TRAIN, labels=np.full(32, NO_LABEL)))
    with pytest.warns(UserWarning, match="no training row has a label"):
        trainer.train()
    assert "hard_loss" not in trainer.state.log_history[0]
    assert trainer.state.log_history[0]["soft_loss"] == pytest.approx(trainer.state.log_history[0]["loss"])


def read_files(directory: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    with (directory / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return rows, [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("report_to", ["files", "tensorboard", "local"])
def test_csv_and_json_lines_are_the_history(tmp_path: Path, report_to: str) -> None:
    if report_to == "tensorboard":
        pytest.importorskip("tensorboard")
    trainer = distiller(tmp_path, report_to=report_to)
    trainer.train()
    trainer.evaluate()  # after the run: of no file
    for read in read_files(tmp_path / "out" / "runs" / "first"):
        assert read == trainer.state.log_history[:-1]
    assert bool(list((tmp_path / "out" / "runs" / "first").glob("events.*"))) == (report_to != "files")


class Killed(TrainerCallback):
    """Ends the process' part of a run after some step, as a kill would: nothing is written after it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 7:
            raise KeyboardInterrupt


@pytest.mark.parametrize("run_name", ["first", None])
def test_resumed_run_has_the_logs_of_one_never_interrupted(tmp_path: Path, run_name: str | None) -> None:
    """The checkpoint is that of step 4; steps 5 and 6 are logged twice."""
    whole = distiller(tmp_path / "whole")
    whole.train()
    options = {"report_to": "local", "run_name": run_name}
    broken = distiller(tmp_path, **options)
    broken.add_callback(Killed())
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = distiller(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    (directory,) = (tmp_path / "out" / "runs").iterdir()

    def lasting(entries: list[dict[str, float]]) -> list[dict[str, float]]:
        clock = ("runtime", "per_second")
        return [{name: value for name, value in entry.items() if not name.endswith(clock)} for entry in entries]

    for read in read_files(directory):
        assert lasting(read) == lasting(whole.state.log_history)
    if importlib.util.find_spec("tensorboard") is not None:
        assert [event.step for event in events_in(directory).Scalars("train/loss")] == list(range(1, 9))


@pytest.mark.parametrize("logging_dir", [False, True])
def test_a_clock_set_back_leaves_every_log_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_dir: bool
) -> None:
    """Another run's log lies beside: newer by its name and by the time of its files."""
    changes: dict[str, object] = {"report_to": "files", "run_name": None}
    if logging_dir:
        changes["logging_dir"] = str(tmp_path / "logs")
    broken = distiller(tmp_path, **changes)
    broken.add_callback(Killed())
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    root = tmp_path / "logs" if logging_dir else tmp_path / "out" / "runs"
    (own,) = (path.parent for path in root.rglob("metrics.jsonl"))
    other = root / ("run-2" if logging_dir else "2999-01-01_00-00-00")
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"of": 1}\n')
    os.utime(other, (2e9, 2e9))
    monkeypatch.setattr("kdistill.train.run_logs.time.strftime", lambda form: "1999-01-01_00-00-00")
    distiller(tmp_path, **changes).train(resume_from_checkpoint=True)
    assert (other / "metrics.jsonl").read_text() == '{"of": 1}\n'
    assert {path.parent for path in root.rglob("metrics.jsonl")} == {own, other}
    assert [entry["step"] for entry in read_files(own)[1] if "loss" in entry] == list(range(1, 9))


@pytest.mark.parametrize("name", ["../..", "..", "/tmp/elsewhere", "a/../../../b", "x" * 300, "\udc80\x00", "."])
def test_a_run_name_is_one_name_below_runs(tmp_path: Path, name: str) -> None:
    outside = {*tmp_path.iterdir(), *tmp_path.parent.iterdir()}
    distiller(tmp_path, report_to="files", run_name=name).train()
    (directory,) = (tmp_path / "out" / "runs").iterdir()
    assert (directory / "metrics.csv").is_file()
    assert {*tmp_path.iterdir(), *tmp_path.parent.iterdir()} - outside == {tmp_path / "out"}


def test_what_a_checkpoint_says_of_its_log_cannot_lead_outside(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {}))
    for stated in ("../..", "..", "a/b", "."):
        assert tracking_directory(args, stated).parent == tmp_path / "out" / "runs"
        assert tracking_directory(args, stated).name not in (stated, "..", ".")
    assert tracking_directory(args, "first") == tmp_path / "out" / "runs" / "first"


def test_second_run_leaves_the_first_ones_logs_alone(tmp_path: Path) -> None:
    for seed in (1, 2):
        distiller(tmp_path, report_to="files", seed=seed, overwrite_output_dir=True).train()
    runs = tmp_path / "out" / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["first", "first-2"]
    first, second = (read_files(runs / name)[1] for name in ("first", "first-2"))
    assert len(first) == len(second)
    assert first != second
    for seed in (1, 2):
        logs = str(tmp_path / "logs")
        distiller(tmp_path / str(seed), report_to="files", seed=seed, logging_dir=logs).train()
    assert (tmp_path / "logs" / "metrics.csv").is_file()
    assert (tmp_path / "logs" / "run-2" / "metrics.csv").is_file()


def test_without_tensorboard_the_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    args = TrainingArguments(**run_fields(tmp_path, {"report_to": "tensorboard", "run_name": "first"}))
    with pytest.warns(UserWarning, match=r'TensorBoard is not installed.*pip install "kdistill\[tensorboard\]"'):
        trainer = Trainer(small_model(), args, train_dataset=TRAIN, eval_dataset=EVAL)
    trainer.train()
    assert read_files(tmp_path / "out" / "runs" / "first")[0] == trainer.state.log_history


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"report_to": "files", "run_name": "first"}))
    trainer = Trainer(
        small_model(), args, train_dataset=TRAIN, eval_dataset=EVAL, compute_metrics=lambda _: {"odd": float("nan")}
    )
    trainer.train()
    lines = (tmp_path / "out" / "runs" / "first" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert None in [entry.get("eval_odd", 0) for entry in entries]
