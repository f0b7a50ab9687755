"""The log of a real job, as SageMaker reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.small_job import HYPERPARAMETERS, SEARCH, run_apart, write_channels

from kdistill.sagemaker.metrics import METRIC_DEFINITIONS, final_line, metric_definition
from kdistill.tasks.registry import ALL_METRICS


def read(log: str) -> dict[str, list[float]]:
    """What SageMaker finds: for each line the first match of each expression."""
    found: dict[str, list[float]] = {}
    for line in log.splitlines():
        for definition in METRIC_DEFINITIONS:
            match = re.search(definition["Regex"], line)
            if match:
                found.setdefault(definition["Name"], []).append(float(match[1]))
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    directory = tmp_path_factory.mktemp("job")
    status, log = run_apart(directory / "job", SEARCH, write_channels(directory / "inputs"))
    assert status == 0, log
    return directory / "job", log


def test_sagemaker_reads_every_figure_of_the_log(job: tuple[Path, str]) -> None:
    base, log = job
    history = json.loads((base / "checkpoints" / "run" / "trainer_state.json").read_text())["log_history"]
    results = json.loads((base / "output" / "data" / "all_results.json").read_text())

    def logged(name: str) -> list[float]:
        return [entry[name] for entry in history if name in entry]

    found = read(log)
    for name in ("loss", "hard_loss", "soft_loss", "learning_rate", "grad_norm"):
        assert found[f"train:{name}"] == logged(name)
    for name in ("loss", "accuracy"):
        assert found[f"eval:{name}"] == logged(f"eval_{name}")
        assert found[f"final:{name}"] == [results[f"eval_{name}"]]
    assert len(found["trial:objective"]) == int(SEARCH["n_trials"])


def test_the_log_is_lines_without_control_characters(job: tuple[Path, str]) -> None:
    _, log = job
    assert log.endswith("\n")
    assert [character for character in log if not character.isprintable() and character != "\n"] == []
    assert log.splitlines()[-1].startswith("{'final_accuracy': ")


def test_the_service_takes_as_many_definitions() -> None:
    """Forty, see MetricDefinitions of AlgorithmSpecification in the API; names and expressions have a length."""
    names = [definition["Name"] for definition in METRIC_DEFINITIONS]
    assert len(names) == len(set(names)) <= 40
    assert all(len(definition["Name"]) <= 255 and len(definition["Regex"]) <= 500 for definition in METRIC_DEFINITIONS)
    known = {"loss", *ALL_METRICS}
    assert {name.partition(":")[2] for name in names if name.startswith(("eval:", "final:"))} <= known


@pytest.mark.parametrize("value", [0.5, 1.0, 0, 3, 1e-07, 1.5e16, -0.25])
def test_every_number_of_python_is_read_whole(value: float) -> None:
    line = final_line({"eval_accuracy": value, "eval_loss": 2.0, "eval_runtime": 9.0, "eval_n": 3}, "eval_accuracy")
    assert line.startswith("{'final_accuracy': ")
    assert "runtime" not in line
    assert "final_n" not in line
    match = re.search(metric_definition("final:accuracy")["Regex"], line)
    assert match is not None
    assert float(match[1]) == value


def test_a_long_job_prints_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from support.clock import clock_of_progress

    from kdistill.sagemaker.log import JobLogCallback
    from kdistill.train.arguments import TrainingArguments
    from kdistill.train.callbacks import TrainerControl
    from kdistill.train.state import TrainerState

    clock, log = clock_of_progress(monkeypatch), JobLogCallback()
    args, state, control = TrainingArguments(), TrainerState(max_steps=100), TrainerControl()
    log.on_train_begin(args, state, control)
    for step in range(1, 61):
        clock.now += 1
        state.global_step = step
        log.on_step_end(args, state, control)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 10 of 100 steps (10%), 1.0/s, 1:30 left"
    assert len(lines) == 6


def events_in(directory: Path) -> list[tuple[str, int, float]]:
    """The scalars of all event files in a directory: tag, step, value."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(directory))
    events.Reload()
    return [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]


def test_tensorboard_finds_the_course_of_a_job_that_was_restarted(tmp_path: Path) -> None:
    """The service mirrors the directory to S3 while the job runs, and does not bring it back."""
    channels = write_channels(tmp_path / "inputs")
    given = {**HYPERPARAMETERS, "epochs": "4"}
    assert run_apart(tmp_path / "whole", given, channels)[0] == 0
    expected = events_in(tmp_path / "whole" / "output" / "tensorboard" / "run")
    assert {tag for tag, _, _ in expected} >= {"train/loss", "eval/accuracy"}
    mirror, seconds = tmp_path / "s3", 1.2
    for _ in range(60):
        status, log = run_apart(tmp_path / "job", given, channels, stop_after=seconds)
        for file in (tmp_path / "job" / "output" / "tensorboard").rglob("events.*"):
            mirror.mkdir(exist_ok=True)
            (mirror / file.name).write_bytes(file.read_bytes())
        if status == 0:
            break
        seconds += 0.4
    assert status == 0, log

    def curves(found: list[tuple[str, int, float]]) -> set[tuple[str, int, float]]:
        return {entry for entry in found if not entry[0].endswith(("runtime", "per_second"))}

    assert curves(events_in(mirror)) == curves(expected)


def test_report_to_without_tensorboard_writes_no_events(tmp_path: Path) -> None:
    channels = write_channels(tmp_path / "inputs")
    assert run_apart(tmp_path / "job", {**HYPERPARAMETERS, "report_to": "files"}, channels)[0] == 0
    assert not (tmp_path / "job" / "output" / "tensorboard").exists()
    assert list((tmp_path / "job" / "checkpoints" / "run" / "runs").rglob("metrics.csv"))


def test_the_log_is_that_of_any_metric(tmp_path: Path) -> None:
    channels = write_channels(tmp_path / "inputs")
    given: dict[str, Any] = {**HYPERPARAMETERS, "metrics": "f1_macro", "metric_for_best_model": "f1_macro"}
    status, log = run_apart(tmp_path / "job", given, channels)
    assert status == 0
    assert log.splitlines()[-1].startswith("{'final_f1_macro': ")
    assert "final:f1_macro" in read(log)
