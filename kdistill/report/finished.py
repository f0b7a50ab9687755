"""Finished runs in other output directories, which a report compares with its run, and the check that this is fair."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models.auto import load_trained
from ..models.configuration import Config
from ..models.layer_shapes import FIELDS
from ..models.model import Model
from ..train.arguments import TrainingArguments
from ..train.checkpoint import changed_arguments
from ..train.state import STATE_FILE, TrainerState

_SHAPE = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size", "num_labels"),
    *FIELDS,
)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: the name of its directory, its state and its frozen model."""

    name: str
    state: TrainerState
    model: Model

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return int(self.state.args["seed"])

    @property
    def has_teacher(self) -> bool:
        """True if a teacher contributed: not with alpha 1, and not in a run of `Trainer`."""
        return float(self.state.args.get("alpha", 1.0)) < 1.0


def load_run(path: str | os.PathLike[str]) -> FinishedRun:
    """Read the finished run in an output directory.

    Raises:
        FileNotFoundError: the directory has no run.
        ValueError: a file of the run is malformed.
    """
    directory = Path(path)
    if not (directory / STATE_FILE).is_file():
        raise FileNotFoundError(f"{directory} has no {STATE_FILE}; expected the output directory of a finished run")
    model = load_trained(directory)
    return FinishedRun(directory.resolve().name, TrainerState.load(directory), model.freeze())


def check_comparable(run: FinishedRun, state: TrainerState, config: Config) -> None:
    """Raise `ValueError` unless `run` has the training rows of `state` and a model of the shape of `config`."""
    if run.state.trained_on.get("data") != state.trained_on.get("data"):
        raise ValueError(f"the run {run.name!r} was trained on other rows; expected the rows of this run")
    for field in _SHAPE:
        theirs, ours = getattr(run.model.config, field), getattr(config, field)
        if theirs != ours:
            raise ValueError(f"{field} is {theirs} in the run {run.name!r} and {ours} in this one; expected the same")


def differences(run: FinishedRun, args: TrainingArguments, but: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Return (in `run`, in `args`) of arguments that differ and affect the result, by name, except those in `but`."""
    changed = changed_arguments(run.state.args, args)
    return {name: values for name, values in changed.items() if name not in but}
