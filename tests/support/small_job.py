"""A training job so small that it takes about a second, in the tree of a container."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from kdistill.sagemaker.job import Job
from kdistill.sagemaker.local import lay_out, run_job
from support.small_run import write_model, write_rows

HYPERPARAMETERS = {
    "student_id": "L1-H16-A2",
    "epochs": "2",
    "per_device_train_batch_size": "8",
    "learning_rate": "0.01",
    "recipe": "transformers",
}
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
}
SEARCH = {**HYPERPARAMETERS, "run_hpo": "true", "n_trials": "3", "hp_space": SPACE}


def write_channels(directory: Path, rows: int = 64) -> dict[str, Path]:
    """A teacher, and rows to train on and to measure on."""
    directory.mkdir(exist_ok=True)
    return {
        "train": write_rows(directory / "train.tsv", rows),
        "validation": write_rows(directory / "dev.tsv", 24, seed=1),
        "teacher": write_model(directory / "teacher", seed=3),
    }


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
    return (base / "model" / "model.safetensors").read_bytes()
