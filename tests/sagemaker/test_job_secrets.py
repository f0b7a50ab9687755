"""The hub's token is in no file, line or exception of a job, however the job ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hub_stub import NOWHERE, TOKEN, Hub, environment, hub_server
from support.small_job import HYPERPARAMETERS, failure_of, run_apart, run_here, write_channels

from kdistill.sagemaker.local import lay_out
from kdistill.train.loop import Training

PUSH = {**HYPERPARAMETERS, "push_to_hub": "true", "hub_model_id": "me/tiny", "hub_strategy": "every_save"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    with hub_server() as running:
        yield running


def settings(home: Path, endpoint: str) -> dict[str, str]:
    """The variables by which a job finds the hub, without those of this process."""
    return {name: value for name, value in environment(endpoint, home).items() if os.environ.get(name) != value}


def holds_token(directory: Path) -> list[str]:
    """The files below a directory that the token is in, but the one in which the service writes hyperparameters."""
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes() and path.name != "hyperparameters.json"
    ]


def run_as_service(base: Path, given: dict[str, Any], channels: dict[str, Path], **variables: str) -> tuple[int, str]:
    """Run a job whose token is where the service writes it, and on the command line, as the toolkit passes it."""
    lay_out(base, given, channels)
    command = [sys.executable, "-m", "kdistill.sagemaker", "train", "--hub_token", TOKEN]
    places = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), **variables}
    done = subprocess.run(command, env=places, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["local", "service"])
def test_a_job_that_uploads_its_model(tmp_path: Path, hub: Hub, way: str) -> None:
    channels, variables = write_channels(tmp_path / "inputs"), settings(tmp_path / "home", hub.endpoint)
    given = {**PUSH, "hub_token": f'"{TOKEN}"' if way == "service" else TOKEN}
    if way == "local":
        status, log = run_apart(tmp_path / "job", given, channels, environment=variables)
    else:
        status, log = run_as_service(tmp_path / "job", given, channels, **variables)
    assert status == 0, log
    assert "model.safetensors" in hub.repositories["me/tiny"].branches["main"]
    uploaded = b"".join(hub.repositories["me/tiny"].branches["main"].values())
    assert holds_token(tmp_path) == []
    assert TOKEN not in log
    assert TOKEN.encode() not in uploaded
    if way == "local":
        assert TOKEN not in (tmp_path / "job" / "input" / "config" / "hyperparameters.json").read_text()
    assert ("hub_token is a hyperparameter, which whoever may describe the job can read" in log) == (way == "service")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"alpha": "2"}, "alpha is 2.0"),
        ({"teacher_id": TOKEN}, "teacher_id"),  # in the wrong place
        ({TOKEN: "1"}, "there is no hyperparameter"),
        ({"hub_token": f"{TOKEN} "}, "the hub's token has a character that no token has"),
        ({"hub_model_id": "no//name"}, "no//name"),
    ],
)
def test_a_job_that_cannot_begin(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    channels = write_channels(tmp_path / "inputs")
    given = {**PUSH, "hub_token": TOKEN, **change}
    status, log = run_as_service(tmp_path / "job", given, channels, **settings(tmp_path / "home", NOWHERE))
    if "hub_token" in change:  # as the command line has it without the space
        sentence = "hub_token is a token on the command line and another in the hyperparameters"
    assert status == 2
    assert sentence in str(failure_of(tmp_path / "job"))
    assert holds_token(tmp_path) == []
    assert TOKEN not in log
    assert not (tmp_path / "job" / "checkpoints" / "run").exists()


@pytest.mark.parametrize("endpoint", ["refuses", "nowhere"])
def test_an_upload_that_fails_does_not_cost_the_model(tmp_path: Path, hub: Hub, endpoint: str) -> None:
    """The job fails, its model is there, and started again it uploads without training."""
    channels = write_channels(tmp_path / "inputs")
    given = {**PUSH, "hub_strategy": "end", "hub_token": TOKEN}
    broken = settings(tmp_path / "home", hub.endpoint if endpoint == "refuses" else NOWHERE)
    if endpoint == "refuses":
        hub.fail("/api/repos/create", times=100, status=403)
    status, log = run_apart(tmp_path / "job", given, channels, environment=broken)
    assert status == 1
    failure = str(failure_of(tmp_path / "job"))
    assert failure.endswith(
        f"the model is in {tmp_path / 'job' / 'model'}; started again, the job only repeats what failed"
    )
    assert "--resume" not in failure  # a job has no such option
    assert (tmp_path / "job" / "model" / "model.safetensors").is_file()
    assert holds_token(tmp_path) == []
    assert TOKEN not in log
    hub.fail("/api/repos/create", times=0)
    status, log = run_apart(tmp_path / "job", given, channels, environment=settings(tmp_path / "home", hub.endpoint))
    assert (status, failure_of(tmp_path / "job")) == (0, None)
    assert "{'loss'" not in log
    assert "model.safetensors" in hub.repositories["me/tiny"].branches["main"]


def test_an_error_of_the_program_whose_text_has_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Training) -> None:
        print(f"a line with {TOKEN}")
        warnings.warn(f"a warning with {TOKEN}", stacklevel=2)
        raise AttributeError(f"the header {TOKEN} is wrong")

    monkeypatch.setattr(Training, "run", fail)
    given = {**HYPERPARAMETERS, "hub_token": TOKEN}
    status, log = run_here(monkeypatch, tmp_path / "job", given, write_channels(tmp_path / "inputs"))
    assert status == 1
    assert failure_of(tmp_path / "job") == "AttributeError: the header *** is wrong"
    assert "Traceback" in log
    assert "a line with ***\n" in log
    assert "kdistill: warning: a warning with ***\n" in log
    assert TOKEN not in log
    assert holds_token(tmp_path) == []


def test_a_job_that_is_stopped(tmp_path: Path) -> None:
    channels = write_channels(tmp_path / "inputs")
    given = {**HYPERPARAMETERS, "hub_token": TOKEN, "epochs": "1000"}
    status, log = run_apart(tmp_path / "job", given, channels, stop_after=3)
    assert status == 128 + signal.SIGTERM
    assert holds_token(tmp_path) == []
    assert TOKEN not in log


def test_the_local_runner_passes_the_token_in_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        asked.append((command, options["env"]))
        return real([sys.executable, "-c", ""], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert run_apart(tmp_path / "job", {"hub_token": TOKEN}, {})[0] == 0
    ((command, variables),) = asked
    assert TOKEN not in " ".join(command)
    assert [name for name, value in variables.items() if TOKEN in value] == ["HF_TOKEN"]
