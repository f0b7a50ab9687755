"""The local runner: the tree of a container, its signals, and its messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_job import (
    HYPERPARAMETERS,
    MODEL,
    channel_directories,
    failure_of,
    model_of,
    run_apart,
    write_channels,
)

from kdistill.sagemaker.container import Container
from kdistill.sagemaker.local import as_string, lay_out, main, run_job

COMMAND = [sys.executable, "-m", "kdistill.sagemaker.local"]


def words(directory: Path, given: dict[str, Any]) -> list[str]:
    """The words of the command that runs a small job."""
    channels = write_channels(directory / "inputs")
    (directory / "hyperparameters.json").write_text(json.dumps(given))
    options = ["--root", directory / "job", "--hyperparameters", directory / "hyperparameters.json"]
    return [str(word) for word in options] + [f"--channel={name}={path}" for name, path in channels.items()]


def test_the_command_runs_a_job_in_a_tree(tmp_path: Path) -> None:
    assert subprocess.run([*COMMAND, *words(tmp_path, HYPERPARAMETERS)], check=False, timeout=120).returncode == 0
    base = tmp_path / "job"
    assert sorted(path.name for path in base.iterdir()) == ["checkpoints", "input", "model", "output"]
    assert (base / "input" / "data" / "train" / "train.tsv").read_bytes() == (
        tmp_path / "inputs" / "train" / "train.tsv"
    ).read_bytes()
    assert not (base / "input" / "data" / "train").is_symlink()
    assert json.loads((base / "input" / "config" / "resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    assert set(json.loads((base / "input" / "config" / "inputdataconfig.json").read_text())) == {
        "train",
        "validation",
        "teacher",
    }


def test_hyperparameters_are_written_as_strings(tmp_path: Path) -> None:
    given = {"alpha": 0.5, "run_hpo": True, "student_id": "L2-H128-A2", "hp_space": {"alpha": [1]}, "max_length": None}
    lay_out(tmp_path / "job", given, {})
    written = json.loads((tmp_path / "job" / "input" / "config" / "hyperparameters.json").read_text())
    assert written == {
        "alpha": "0.5",
        "run_hpo": "true",
        "student_id": "L2-H128-A2",
        "hp_space": '{"alpha": [1]}',
        "max_length": "null",
    }
    assert as_string(5e-05) == "5e-05"


def test_the_variables_are_those_of_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its README names them: https://github.com/aws/sagemaker-training-toolkit."""
    seen: dict[str, str] = {}
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        seen.update(options["env"])
        return real([sys.executable, "-c", ""], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setenv("SM_CHANNEL_TEACHER", "/another/job")
    channels = write_channels(tmp_path / "inputs")
    del channels["teacher"]
    run_job(tmp_path / "job", {"learning-rate": "1e-3", "run_hpo": "true"}, channels, environment={"X": "y"})
    base = tmp_path / "job"
    assert seen["SM_CHANNELS"] == '["train", "validation"]'
    assert seen["SM_CHANNEL_TRAIN"] == str(base / "input" / "data" / "train")
    assert (seen["SM_MODEL_DIR"], seen["SM_OUTPUT_DIR"]) == (str(base / "model"), str(base / "output"))
    assert json.loads(seen["SM_HPS"]) == {"learning-rate": 0.001, "run_hpo": True}
    assert (seen["SM_HP_LEARNING_RATE"], seen["SM_HP_RUN_HPO"]) == ("0.001", "true")
    assert (seen["TRAINING_JOB_NAME"], seen["X"]) == ("job", "y")
    assert "SM_CHANNEL_TEACHER" not in seen
    assert Container.of(seen).channels == {name: base / "input" / "data" / name for name in ("train", "validation")}


def stop_in_training(command: list[str], number: signal.Signals, *, after: int = 1) -> tuple[int, str]:
    """Start the runner, signal it after so many losses of the job; return its status and the rest of its log.

    A number of seconds would not do: on a fast machine the job is done before they are over.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        losses = (line for line in process.stdout if line.startswith("{'loss'"))
        for _ in range(after):
            next(losses, None)
        process.send_signal(number)
        rest = process.communicate(timeout=60)[0]
    return process.returncode, rest


def epochs_of(log: str) -> list[int]:
    """The epochs at whose end a job has printed its loss."""
    return [
        round(json.loads(line.replace("'", '"'))["epoch"]) for line in log.splitlines() if line.startswith("{'loss'")
    ]


def test_a_job_that_is_stopped_goes_on_in_the_same_tree(tmp_path: Path) -> None:
    """Model and output are new at each start, the checkpoints stay."""
    given = {**HYPERPARAMETERS, "epochs": "40"}
    command = [*COMMAND, *words(tmp_path, given)]
    channels = channel_directories(tmp_path / "inputs")
    status, log = run_apart(tmp_path / "whole", given, channels)
    assert (status, epochs_of(log)) == (0, list(range(1, 41))), log
    status, log = stop_in_training(command, signal.SIGTERM, after=3)
    assert status == 143, log
    assert not (tmp_path / "job" / "model" / MODEL).exists()
    (tmp_path / "job" / "model" / "old").touch()
    (tmp_path / "job" / "output" / "failure").write_text("old")
    status, log = run_apart(tmp_path / "job", given, channels)
    assert status == 0, log
    gone_on = epochs_of(log)
    assert 2 < gone_on[0] < 40, log  # it did not begin again, which would end with the same model
    assert gone_on == list(range(gone_on[0], 41))
    assert not (tmp_path / "job" / "model" / "old").exists()
    assert failure_of(tmp_path / "job") is None
    assert model_of(tmp_path / "job") == model_of(tmp_path / "whole")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_runner_goes_to_the_job(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [*COMMAND, *words(tmp_path, {**HYPERPARAMETERS, "epochs": "1000"})]
    found, rest = stop_in_training(command, number)
    assert found == status
    assert "kdistill: interrupted; started again, the job goes on from its checkpoints" in rest


def test_a_job_that_does_not_end_is_killed_after_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def deaf(command: list[str], **options: Any) -> Any:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", deaf)
    began = time.monotonic()
    assert run_job(tmp_path / "job", {}, {}, stop_after=0.5, grace=0.5) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 30  # not the sixty of the job


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--channel", "train"], "--channel is 'train'; expected NAME=VALUE, such as train=train.tsv"),
        (["--channel", "train=a", "--channel", "train=b"], "--channel train is given twice; expected it once"),
        (["--channel", "train=no.tsv"], "the channel 'train' is 'no.tsv', which does not exist"),
        (["--channel", "../x=no.tsv"], "--channel is '../x=no.tsv'; expected a name of letters, digits, - and _"),
        (["--environment", "X"], "--environment is 'X'; expected NAME=VALUE"),
        (["--hyperparameters", "no.json"], "no.json"),
        (["--stop-after", "-1"], "--stop-after is -1.0; expected seconds from 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    tmp_path: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path / "job"), *more]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("kdistill: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "job").exists()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "a.txt").write_text("mine")
    assert main(["--root", str(tmp_path)]) == 2
    assert "holds 'a.txt', which no job has; expected a new directory or that of a job" in capsys.readouterr().err
    assert (tmp_path / "model").is_dir()
    (tmp_path / "a.txt").unlink()
    assert main(["--root", str(tmp_path)]) == 2  # model/ alone may be anyone's
    assert "holds 'model'" in capsys.readouterr().err


def test_a_mistake_of_a_newcomer_is_in_the_failure_file(tmp_path: Path) -> None:
    settings = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*COMMAND, *words(tmp_path, {"temparature": 4})], check=False, capture_output=True, text=True, env=settings
    )
    assert done.returncode == 2
    failure = str(failure_of(tmp_path / "job"))
    assert failure.startswith("temparature is not a hyperparameter: the original's notebook misspelt temperature")
    assert done.stderr == f"kdistill: error: {failure}\n"


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--channel train=train.tsv --channel validation=dev.tsv --channel teacher=teacher" in text
    assert "job/output/failure" in text
