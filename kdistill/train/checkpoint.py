"""The content of a training run's checkpoint: writing it, reading it back, checking that it fits the run."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.safetensors import read_safetensors, write_safetensors
from ..models.model import Model
from ..system.files import atomic_write, write_json
from ..text.tokenizer import PreTrainedTokenizerFast
from .arguments import TrainingArguments
from .directory import ARGS_FILE, COMMAND_FILE, OPTIMIZER_FILE
from .optim import AdamW, averaged
from .state import STATE_FILE, TrainerState

# Groups of arguments that do not affect the result, so that a resumed run may change them.
_WITHOUT_EFFECT = ("output", "hub", "checkpoints and logs")
_ACCUMULATION = "gradient_accumulation_steps"
_OF_READING = ("max_length", "doc_stride", "label_all_tokens")  # arguments that decide which tokens rows are
_AUXILIARY = "auxiliary."
"""What names of arrays of the parameters beside the model begin with."""


def save_model(directory: Path, model: Model, tokenizer: PreTrainedTokenizerFast | None) -> None:
    """Write a Hugging Face model directory: configuration, weights and, if there is one, the tokenizer."""
    model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def save_arguments(directory: Path, args: TrainingArguments, command: str | None = None) -> None:
    """Write `training_args.json` and, if there is one, `command.txt` with the command line that repeats the run."""
    write_json(directory / ARGS_FILE, args.record())
    if command is not None:
        atomic_write(directory / COMMAND_FILE, os.fsencode(f"{command}\n"))  # names of files may be any bytes


def save_checkpoint(
    directory: Path,
    model: Model,
    tokenizer: PreTrainedTokenizerFast | None,
    optimizer: AdamW,
    state: TrainerState,
    args: TrainingArguments,
) -> None:
    """Write the model, AdamW's m, v and step, the trainer's state and the arguments into `directory`.

    If AdamW keeps an average of the parameters, the model is written with the average, and the trained parameters are
    written beside m and v. So are parameters that are trained beside the model, with their moments.
    """
    with averaged(optimizer):
        save_model(directory, model, tokenizer)
    moments = optimizer.state_dict()
    arrays = {"m": moments["m"], "v": moments["v"], "step": np.array(moments["step"], dtype=np.int64)}
    if "average" in moments:
        arrays["parameters"] = model.flat_parameters
    for name, array in moments.get("auxiliary", {}).items():
        arrays[f"{_AUXILIARY}{name}"] = array
    write_safetensors(directory / OPTIMIZER_FILE, arrays)
    save_arguments(directory, args)
    state.save(directory)


def load_checkpoint(directory: Path, model: Model, optimizer: AdamW) -> TrainerState:
    """Restore the parameters, AdamW's state and the dropout position from a checkpoint; return the trainer's state."""
    load_weights(directory, model)
    saved = _optimizer_state(directory / OPTIMIZER_FILE)
    parameters = saved.pop("parameters", None)
    if parameters is not None:
        saved["average"] = model.flat_parameters
    optimizer.load_state_dict(saved)
    if parameters is not None:
        model.load_flat(parameters)
    state = TrainerState.load(directory)
    model.optimizer_step, model.tokens_in_step = state.global_step, 0
    return state


def _optimizer_state(path: Path) -> dict[str, Any]:
    """Read the state of AdamW that `save_checkpoint` wrote. Raises `ValueError` for a file of another kind."""
    tensors = read_safetensors(path)
    kinds = {name: (tensor.element_type, len(tensor.shape)) for name, tensor in tensors.items()}
    beside = [f"{_AUXILIARY}{name}" for name in ("parameters", "m", "v")]
    optional = [name for name in ("parameters", *beside) if name in kinds]
    flat = dict.fromkeys(("m", "v", *optional), ("F32", 1))
    if kinds != {**flat, "step": ("I64", 0)}:
        raise ValueError(f"{path} holds {kinds}; expected AdamW's m, v and step, and parameters beside an average")
    step = int.from_bytes(tensors["step"].storage.tobytes(), "little", signed=True)
    if not 0 <= step < 1 << 31:
        raise ValueError(f"{path} has the step count {step}; expected 0 to 2**31 - 1")
    state: dict[str, Any] = {**{name: tensors[name].read() for name in flat}, "step": step}
    if set(beside) <= set(state):
        state["auxiliary"] = {name.removeprefix(_AUXILIARY): state.pop(name) for name in beside}
    return state


def load_finished_run(
    directory: Path,
    model: Model,
    args: TrainingArguments,
    max_steps: int,
    initial: TrainerState,
) -> TrainerState | None:
    """Load the weights of the finished run in `directory` into `model`.

    A run is finished when it did `max_steps`, or when a callback ended it before that.

    Args:
        directory: the output directory.
        model: a model of the same shape.
        args: the arguments of the run that asks.
        max_steps: its steps.
        initial: the state with which it would begin.

    Returns:
        The finished run's state, or None when there is no finished run.

    Raises:
        FileNotFoundError, ValueError: its model is gone or damaged, or it had other data, see `check_same_run`.
    """
    if not (directory / STATE_FILE).exists():
        return None
    saved = TrainerState.load(directory)
    if not saved.is_finished(max_steps):
        return None
    check_same_run(saved, args, initial)
    load_weights(directory, model)
    return saved


def load_weights(directory: Path, model: Model) -> None:
    """Load the parameters saved in `directory` into `model`. Raises `ValueError` unless both have the same config."""
    saved = type(model).from_pretrained(directory)
    config = model.config
    if saved.config.problem_type is None:  # older versions did not write that rows have one label
        config = config.replace(problem_type=None)
    if saved.config != config:
        raise ValueError(f"{directory} contains a model with another configuration than the one being trained")
    model.load_flat(saved.flat_parameters)


def check_same_run(saved: TrainerState, args: TrainingArguments, initial: TrainerState) -> None:
    """Check that a saved run had the same data as this one, and warn about arguments that have changed since.

    A run with evaluation rows may be resumed without them, and the other way round.

    Args:
        saved: the saved run's state.
        args: the arguments of this run.
        initial: the state with which this run would begin.

    Raises:
        ValueError: training rows, teacher, matches or evaluation rows differ; where they are read otherwise, with the
            arguments that say so.
    """
    changed = {
        name: f"{name} was {old!r} and is now {new!r}"
        for name, (old, new) in changed_arguments(saved.args, args).items()
    }
    read_otherwise = "; ".join(changed[name] for name in _OF_READING if name in changed)
    names = saved.trained_on.keys() | initial.trained_on.keys()
    other = {name for name in names if saved.trained_on.get(name) != initial.trained_on.get(name)}
    measured_on_others = saved.evaluated_on and initial.evaluated_on and saved.evaluated_on != initial.evaluated_on
    if read_otherwise and ("data" in other or measured_on_others):
        raise ValueError(
            f"the run in output_dir read its rows otherwise: {read_otherwise}; resume it with the former "
            "values, or start a new run in another output_dir"
        )
    if other:
        which = "with other matches" if other == {"matches"} else "on other rows or with another teacher"
        raise ValueError(
            f"the run in output_dir was trained {which}; resume it with the same ones, or start a new run in another "
            "output_dir"
        )
    if measured_on_others:
        raise ValueError(
            "the run in output_dir was evaluated on other rows, which selected its best weights; pass the same rows "
            "again (other rows can be measured with report --holdout or with evaluate)"
        )
    if changed:
        warnings.warn(f"the run continues with changed arguments: {'; '.join(changed.values())}", stacklevel=4)


def check_same_steps(saved: TrainerState, args: TrainingArguments) -> None:
    """Raise ValueError where several processes train or trained, and a step had other micro-batches than it now has."""
    before, now = saved.args.get(_ACCUMULATION), args.micro_batches_per_step
    if before != now and max(saved.ranks, args.world_size) > 1:
        raise ValueError(
            f"the run in output_dir had {before} micro-batches a step, shared by {saved.ranks} processes, and this one "
            f"has {now}: {args.world_size} times {_ACCUMULATION}, {args.gradient_accumulation_steps}; expected the "
            "same product, with which any number of processes goes on with the same bits"
        )


def arguments_with_effect(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments that affect the result, by name."""
    ready = args.record()
    return {field.name: ready[field.name] for field in fields(args) if field.metadata["group"] not in _WITHOUT_EFFECT}


def changed_arguments(saved: dict[str, Any], args: TrainingArguments) -> dict[str, tuple[Any, Any]]:
    """Return (saved, now) of the arguments that differ between `saved` and `args` and affect the result, by name."""
    now = arguments_with_effect(args)
    return {name: (saved[name], value) for name, value in now.items() if saved.get(name, value) != value}
