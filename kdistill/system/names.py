"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Names that other programs use -> the name here.
_CALLED_ELSEWHERE = {
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "bs": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "n_epochs": "num_train_epochs",
    "lr": "learning_rate",
    "wd": "weight_decay",
    "scheduler": "lr_scheduler_type",
    "warmup": "warmup_ratio",
    "max_seq_length": "max_length",
    "max_len": "max_length",
    "temp": "temperature",
    "output": "output_dir",
    "out": "output_dir",
    "log_steps": "logging_steps",
    "grad_accum": "gradient_accumulation_steps",
    "clip_grad_norm": "max_grad_norm",
    "train_file": "train",
    "train_dataset": "train",
    "validation_file": "eval",
    "eval_dataset": "eval",
    "test_file": "data",
    "model_name_or_path": "model",
    "teacher_model": "teacher",
    "student_model": "student",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, or "" when none is near.

    A name that other programs use for the same thing counts as nearest. Names may be written as options, such as
    `--learning-rate`.
    """
    known = list(known)
    here = _CALLED_ELSEWHERE.get(_plain(name))
    nearest = [other for other in known if _plain(other) == here] or get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _plain(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")
