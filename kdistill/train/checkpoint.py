"""What one checkpoint of a training run holds: written and read back side by side."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.safetensors import read_safetensors
from ..models.checkpoint import write_safetensors
from ..models.model import BertForSequenceClassification
from ..system.files import atomic_write
from ..text.tokenizer import BertTokenizer
from .arguments import TrainingArguments
from .directory import ARGS_FILE, COMMAND_FILE
from .optim import AdamW, averaged
from .state import STATE_FILE, TrainerState, write_json

# Groups of arguments that may differ between a run and its resumption without changing what is learned.
_WITHOUT_EFFECT = ("output", "hub", "checkpoints and logs")
OPTIMIZER_FILE = "optimizer.safetensors"


def save_model(directory: Path, model: BertForSequenceClassification, tokenizer: BertTokenizer | None) -> None:
    """Write a Hugging Face model directory: configuration, weights and, when there is one, the tokenizer."""
    model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def save_arguments(directory: Path, args: TrainingArguments, command: str | None = None) -> None:
    """Write `training_args.json` and, when there is one, `command.txt`, the command line that repeats the run."""
    write_json(directory / ARGS_FILE, args.to_dict())
    if command is not None:
        atomic_write(directory / COMMAND_FILE, f"{command}\n".encode())


def save_checkpoint(
    directory: Path,
    model: BertForSequenceClassification,
    tokenizer: BertTokenizer | None,
    optimizer: AdamW,
    state: TrainerState,
    args: TrainingArguments,
) -> None:
    """Write model, AdamW's m, v and step, the trainer's state and the arguments.

    With an average of the parameters, it is the model, and what training goes on with lies beside m and v.
    """
    with averaged(optimizer):
        save_model(directory, model, tokenizer)
    moments = optimizer.state_dict()
    arrays = {"m": moments["m"], "v": moments["v"], "step": np.array(moments["step"], dtype=np.int64)}
    if "average" in moments:
        arrays["parameters"] = model.flat_parameters
    write_safetensors(directory / OPTIMIZER_FILE, arrays)
    save_arguments(directory, args)
    state.save(directory)


def load_checkpoint(directory: Path, model: BertForSequenceClassification, optimizer: AdamW) -> TrainerState:
    """Put parameters, AdamW's state and the dropout position back; return the trainer's state."""
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
    """What `save_checkpoint` wrote of AdamW. Raises `ValueError` for a file of another kind."""
    tensors = read_safetensors(path)
    kinds = {name: (tensor.element_type, len(tensor.shape)) for name, tensor in tensors.items()}
    flat = {name: ("F32", 1) for name in ("m", "v", "parameters") if name != "parameters" or name in kinds}
    if kinds != {**flat, "step": ("I64", 0)}:
        raise ValueError(f"{path} holds {kinds}; expected AdamW's m, v and step, and parameters beside an average")
    step = int.from_bytes(tensors["step"].storage.tobytes(), "little", signed=True)
    if not 0 <= step < 1 << 31:
        raise ValueError(f"{path} says that {step} steps were done")
    return {**{name: tensors[name].read() for name in flat}, "step": step}


def load_finished_run(
    directory: Path, model: BertForSequenceClassification, args: TrainingArguments, max_steps: int, new: TrainerState
) -> TrainerState | None:
    """Put the weights of the finished run of `directory` into `model`; return its state, or None when there is none.

    A run is finished when it did `max_steps`, or when a callback ended it before these. `new` is the state with which
    this run would begin.
    """
    if not (directory / STATE_FILE).exists():
        return None
    saved = TrainerState.load(directory)
    if not saved.is_finished(max_steps):
        return None
    check_same_run(saved, args, new)
    load_weights(directory, model)
    return saved


def load_weights(directory: Path, model: BertForSequenceClassification) -> None:
    """Put the parameters of a model saved in `directory` into `model`, which has the same shape."""
    saved = BertForSequenceClassification.from_pretrained(directory)
    if saved.config != model.config:
        raise ValueError(f"{directory} holds a model of another configuration than the one being trained")
    model.load_flat(saved.flat_parameters)


def check_same_run(saved: TrainerState, args: TrainingArguments, new: TrainerState) -> None:
    """Raise `ValueError` unless the run that left `saved` had the data of `new`; warn of arguments that changed.

    A run that had evaluation rows may go on without any, and the other way round.
    """
    if saved.trained_on != new.trained_on:
        raise ValueError(
            "the run in output_dir was trained on other rows, or by another teacher, than these; resume it with the "
            "same ones or start anew in another output_dir"
        )
    if saved.evaluated_on and new.evaluated_on and saved.evaluated_on != new.evaluated_on:
        raise ValueError(
            "the run in output_dir was evaluated on other rows than these, which chose its best weights; give it the "
            "same ones (others may be held out of a report, or be given to evaluate)"
        )
    changed = [
        f"{name} was {old!r} and is now {new!r}" for name, (old, new) in changed_arguments(saved.args, args).items()
    ]
    if changed:
        warnings.warn(f"the run goes on with other arguments than it began with: {'; '.join(changed)}", stacklevel=4)


def changed_arguments(saved: dict[str, Any], args: TrainingArguments) -> dict[str, tuple[Any, Any]]:
    """Arguments of `saved` that differ from `args` and have a say in what is learned, by name: (saved, now)."""
    now = {
        field.name: getattr(args, field.name)
        for field in fields(args)
        if field.metadata["group"] not in _WITHOUT_EFFECT
    }
    return {name: (saved[name], value) for name, value in now.items() if saved.get(name, value) != value}
