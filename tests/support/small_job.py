"""A training job so small that it takes about a second, in the tree of a container, and the model that it ends with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdistill.sagemaker.job import Job
from kdistill.sagemaker.local import lay_out, run_job
from support.small_run import write_model, write_rows

if TYPE_CHECKING:
    import pytest

HYPERPARAMETERS: dict[str, Any] = {
    "student_id": "L1-H16-A2",
    "epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "recipe": "transformers",
}
# The same for `kdistill distill`.
OPTIONS = [
    *("--student=L1-H16-A2", "--num-train-epochs=2", "--per-device-train-batch-size=8", "--learning-rate=0.01"),
    "--recipe=transformers",
]
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
}
SEARCH = {**HYPERPARAMETERS, "run_hpo": "true", "n_trials": "3", "hp_space": SPACE}
MODEL = "model.safetensors"
# The variables with which SageMaker starts every container of a job, as far as anything here reads them.
CONTAINER_VARIABLES = {"TRAINING_JOB_NAME": "small-job", "AWS_REGION": "eu-central-1"}


def write_channels(directory: Path, rows: int = 64) -> dict[str, Path]:
    """A teacher, and rows to train on and to measure on."""
    for name in ("train", "validation"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return {
        "train": write_rows(directory / "train" / "train.tsv", rows),
        "validation": write_rows(directory / "validation" / "dev.tsv", 24, seed=1),
        "teacher": write_model(directory / "teacher", seed=3),
    }


def channel_directories(directory: Path) -> dict[str, Path]:
    """The same channels as the directories that the service makes of them."""
    return {name: directory / name for name in write_channels(directory)}


def run_apart(
    root: Path, hyperparameters: Mapping[str, Any], channels: Mapping[str, Path], **more: Any
) -> tuple[int, str]:
    """Run a job in a process of its own; return its exit status and its log."""
    with (root.parent / f"{root.name}.log").open("w+") as log:
        status = run_job(root, hyperparameters, channels, log=log, **more)
        log.seek(0)
        return status, log.read()


def run_here(
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    hyperparameters: Mapping[str, Any],
    channels: Mapping[str, Path],
    *words: str,
    **environment: str,
) -> tuple[int, str]:
    """Run a job in this process; return its exit status and its log."""
    lay_out(base, hyperparameters, channels)
    return run_in(monkeypatch, base, *words, **environment)


def run_in(monkeypatch: pytest.MonkeyPatch, base: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Run a job in this process in a tree that is laid out."""
    for name in ("KDISTILL_CACHE", "KDISTILL_HOST"):
        monkeypatch.delenv(name, raising=False)
    log = io.StringIO()
    with redirect_stdout(log), redirect_stderr(log), monkeypatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        return Job(words, {"SAGEMAKER_BASE_DIR": str(base), **environment}).run(), log.getvalue()


def failure_of(base: Path) -> str | None:
    """What a job has written about its failure."""
    path = base / "output" / "failure"
    return path.read_text() if path.exists() else None


def model_of(base: Path) -> bytes:
    """The weights that a job has left."""
    return (base / "model" / MODEL).read_bytes()


def lay_out_as_service(base: Path, hyperparameters: Mapping[str, str], host: str = "algo-1") -> Path:
    """Lay out the tree of a container below `base` without the local runner, channels too, and return `base`.

    Args:
        base: stands for /opt/ml.
        hyperparameters: text, as the service hands it over.
        host: name of the one machine of the job.
    """
    channels = channel_directories(base / "input" / "data")
    about = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    write_configuration(base, hyperparameters, dict.fromkeys(channels, about), host)
    return base


def write_configuration(
    base: Path, hyperparameters: Mapping[str, str], channels: Mapping[str, Any], host: str = "algo-1"
) -> None:
    """Write the three JSON files that a job finds below input/config, and the empty directories beside input."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    for name in ("model", "output", "checkpoints"):
        (base / name).mkdir()
    resources = {
        "current_host": host,
        "current_instance_type": "ml.c6i.xlarge",
        "current_group_name": "homogeneousCluster",
        "hosts": [host],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.c6i.xlarge", "hosts": [host]}
        ],
        "network_interface_name": "eth0",
    }
    files = {"hyperparameters": hyperparameters, "resourceconfig": resources, "inputdataconfig": channels}
    for name, content in files.items():
        (config / f"{name}.json").write_text(json.dumps(content))


def model_of_command(directory: Path) -> bytes:
    """Return the weights that `kdistill distill` ends with, with the rows, teacher and options of the job."""
    channels = write_channels(directory / "channels")
    words = [
        *("--teacher", channels["teacher"], "--train", channels["train"]),
        *("--eval", channels["validation"], "--output-dir", directory / "run"),
    ]
    command = [sys.executable, "-m", "kdistill", "distill", *map(str, words), *OPTIONS]
    subprocess.run(command, check=True, capture_output=True)
    return (directory / "run" / MODEL).read_bytes()
