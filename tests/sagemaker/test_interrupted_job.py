"""Jobs that SageMaker stops at any moment and starts again. Twenty stops take about half a minute."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_job import HYPERPARAMETERS, SEARCH, failure_of, model_of, run_apart, run_here, run_in, write_channels

from kdistill.sagemaker.local import lay_out
from kdistill.system.files import verify_manifest
from kdistill.train.directory import RunDirectory
from kdistill.train.state import TrainerState

STOPS = 10  # of each of the two jobs
JOBS = {
    "distill": {**HYPERPARAMETERS, "epochs": "12"},
    "search": {**SEARCH, "epochs": "6"},
}


def steps_kept(base: Path) -> int:
    """The step of the newest checkpoint, which is whole; 0 without any."""
    directory = base / "checkpoints" / "run"
    checkpoints = RunDirectory(directory).checkpoints() if directory.is_dir() else []
    assert all(verify_manifest(path) is None for path in checkpoints)
    return TrainerState.load(checkpoints[-1]).global_step if checkpoints else 0


@pytest.mark.parametrize("name", JOBS)
def test_a_job_stopped_at_random_moments_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    channels, chance = write_channels(tmp_path / "inputs"), random.Random(name)
    started = time.monotonic()
    status, log = run_apart(tmp_path / "whole", JOBS[name], channels)
    assert status == 0, log
    seconds, expected = time.monotonic() - started, model_of(tmp_path / "whole")
    stops = starts = kept = 0
    base = tmp_path / "job-0"
    while stops < STOPS or starts:
        moment = chance.uniform(0, seconds) if stops < STOPS else None
        status, log = run_apart(base, JOBS[name], channels, stop_after=moment)
        starts += 1
        assert failure_of(base) is None, log
        if status == 0:  # it was done before the signal came
            assert model_of(base) == expected
            base, starts, kept = tmp_path / f"job-{stops}", 0, 0
            continue
        assert status == 128 + signal.SIGTERM, log
        stops += 1
        assert steps_kept(base) >= kept
        kept = steps_kept(base)


def start(base: Path, hyperparameters: dict[str, Any], channels: dict[str, Path], **environment: str) -> Any:
    """Start a job in a process of its own, whose log is a pipe."""
    lay_out(base, hyperparameters, channels)
    settings = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), **environment}
    settings.pop("KDISTILL_CACHE", None)
    command = [sys.executable, "-m", "kdistill.sagemaker", "train"]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: Any, beginning: str) -> None:
    for line in process.stdout:
        if line.startswith(beginning):
            return
    pytest.fail(f"the log has no line that begins with {beginning!r}")


LONG = {**HYPERPARAMETERS, "epochs": "1000"}


@pytest.mark.parametrize(
    ("signals", "status"),
    [((signal.SIGTERM, signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGINT,), 130)],
    ids=["SIGTERM three times", "Ctrl-C"],
)
def test_a_signal_ends_the_job_with_a_checkpoint(
    tmp_path: Path, signals: tuple[signal.Signals, ...], status: int
) -> None:
    process = start(tmp_path / "job", LONG, write_channels(tmp_path / "inputs"))
    wait_for(process, "{'eval_accuracy'")
    for number in signals:
        process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == status
    assert rest.splitlines()[-1] == "kdistill: interrupted; started again, the job goes on from its checkpoints"
    assert failure_of(tmp_path / "job") is None
    assert steps_kept(tmp_path / "job") >= 8


def test_sigterm_before_anything_is_imported_ends_the_process(tmp_path: Path) -> None:
    """The process would ignore it as process 1 of a container if it had no handler yet."""
    lay_out(tmp_path / "job", {}, {})
    code = (
        "import os, runpy, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'kdistill.sagemaker.entry': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # as for process 1
        "runpy.run_module('kdistill.sagemaker', run_name='__main__')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, cwd=tmp_path)
    assert process.returncode == 128 + signal.SIGTERM


def test_what_a_mirror_in_s3_keeps_of_the_checkpoints_is_enough(tmp_path: Path) -> None:
    """Files and their content alone: no directory, mode, time or link; one file of the newest is not yet there."""
    channels = write_channels(tmp_path / "inputs")
    assert run_apart(tmp_path / "whole", JOBS["distill"], channels)[0] == 0
    process = start(tmp_path / "job", JOBS["distill"], channels)
    for _ in range(3):
        wait_for(process, "{'eval_accuracy'")
    process.kill()
    process.communicate()
    mirror = tmp_path / "again" / "checkpoints"
    for path in (tmp_path / "job" / "checkpoints").rglob("*"):
        if path.is_file():
            copy = mirror / path.relative_to(tmp_path / "job" / "checkpoints")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    newest = RunDirectory(mirror / "run").checkpoints()[-1]
    (newest / "optimizer.safetensors").unlink()
    status, log = run_apart(tmp_path / "again", JOBS["distill"], channels)
    assert (status, "is damaged and skipped" in log) == (0, True)
    assert model_of(tmp_path / "again") == model_of(tmp_path / "whole")


@pytest.mark.parametrize("kept", [1, 4])
def test_a_job_whose_best_weights_came_back_damaged_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """It trains again from a checkpoint before them; from the beginning where none is left."""
    channels, base = write_channels(tmp_path / "inputs"), tmp_path / "job"
    given = {**HYPERPARAMETERS, "epochs": "4", "save_total_limit": str(kept), "metric_for_best_model": "loss"}
    assert run_here(monkeypatch, base, given, channels)[0] == 0
    expected, run = model_of(base), base / "checkpoints" / "run"
    state = TrainerState.load(run)
    best = run / Path(str(state.best_model_checkpoint)).name
    checkpoints = RunDirectory(run).checkpoints()
    assert best != checkpoints[-1]  # there is something to lose
    (best / "model.safetensors").write_bytes(b"half of it")
    for name in ("finished.json", "run/trainer_state.json", "run/model.safetensors"):
        (base / "checkpoints" / name).unlink()  # as before its end
    status, log = run_here(monkeypatch, base, given, channels)
    assert status == 0, log
    assert f"the best weights at {checkpoints[-1].name} are lost" in log
    assert model_of(base) == expected


def test_a_restart_does_not_ask_the_teacher_again(tmp_path: Path) -> None:
    channels = write_channels(tmp_path / "inputs")
    process = start(tmp_path / "job", LONG, channels)
    wait_for(process, "{'eval_accuracy'")
    process.terminate()
    process.communicate(timeout=60)
    (cache,) = (tmp_path / "job" / "checkpoints" / "teacher").glob("*.logits")
    content = cache.read_bytes()
    process = start(tmp_path / "job", LONG, channels)
    wait_for(process, "{'eval_accuracy'")
    process.terminate()
    process.communicate(timeout=60)
    assert cache.read_bytes() == content


def test_interrupted_trials_of_a_container_before_are_run_again(tmp_path: Path) -> None:
    """A killed trial belongs to a machine of another name; the job's name of it is the same."""
    channels = write_channels(tmp_path / "inputs")
    given = {**SEARCH, "epochs": "100", "n_trials": "2"}
    process = start(tmp_path / "job", given, channels)
    journal = tmp_path / "job" / "checkpoints" / "search" / "study.journal"
    while not (journal.is_file() and b"hyperparameters" in journal.read_bytes()):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    content = journal.read_text()
    assert '"host": "algo-1"' in content or '"host":"algo-1"' in content
    process = start(tmp_path / "job", given, channels)
    wait_for(process, "trial 0: ")
    process.kill()
    process.communicate()
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert any(record.get("user_attr") == {"attempt": 2} for record in records)


def test_a_job_stopped_while_it_copies_or_uploads_leaves_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageMaker keeps what lies in model/ when a job is stopped."""
    channels = write_channels(tmp_path / "inputs")
    assert run_here(monkeypatch, tmp_path / "whole", HYPERPARAMETERS, channels)[0] == 0
    real, names = shutil.copyfile, []

    def stop_once(source: Path, target: Path) -> None:
        names.append(source.name)
        if len(names) == 3:
            signal.raise_signal(signal.SIGTERM)
        real(source, target)

    base = tmp_path / "copies"
    lay_out(base, HYPERPARAMETERS, channels)
    monkeypatch.setattr(shutil, "copyfile", stop_once)
    assert run_in(monkeypatch, base)[0] == 143
    assert model_of(base) == model_of(tmp_path / "whole")
    assert not (base / "output" / "success").exists()
    monkeypatch.setattr(shutil, "copyfile", real)

    def upload(*_: Any, **__: Any) -> str:
        signal.raise_signal(signal.SIGTERM)
        return ""

    monkeypatch.setattr("kdistill.sagemaker.job.check_publishing", lambda args: None)
    monkeypatch.setattr("kdistill.trainers.check_publishing", lambda args: None)
    monkeypatch.setattr("kdistill.trainers.upload_run", upload)
    given = {**HYPERPARAMETERS, "push_to_hub": "true", "hub_model_id": "me/tiny"}
    assert run_here(monkeypatch, tmp_path / "uploads", given, channels)[0] == 143
    assert model_of(tmp_path / "uploads") == model_of(tmp_path / "whole")
    assert failure_of(tmp_path / "uploads") is None
