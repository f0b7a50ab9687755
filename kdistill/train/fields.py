"""Declaration and check of one training argument: help text, limits, and the default of transformers."""

from __future__ import annotations

import enum
import functools
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Hashable, Iterable
from dataclasses import Field, field
from typing import Any, Literal, TypeVar, cast

from ..system.names import did_you_mean

GROUPS = ("output", "hub", "distillation", "training", "optimiser", "evaluation", "checkpoints and logs")
"""The groups of arguments, in the order of the command line's help."""
Origin = Literal["transformers", "transformers 4", "kdistill"]
"""Where an argument's name comes from: transformers, transformers of version 4 only, or kdistill."""

_SAME = object()
# Names that other programs use -> the name here.
_CALLED_ELSEWHERE = {
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "bs": "per_device_train_batch_size",
    "epoch": "num_train_epochs",
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
    "dev": "eval",
    "validation": "eval",
    "test": "data",
    "input": "data",
    "file": "data",
    "dropout": "hidden_dropout_prob",
    "k": "top_k",
    "model_name_or_path": "model",
    "teacher_model": "teacher",
    "student_model": "student",
}
_T = TypeVar("_T")


class _Declaration(dict[str, Any]):
    """The declaration of an argument, of which a walk over the keys sees the help text alone.

    transformers' `HfArgumentParser` hands all metadata of a field to argparse, which knows no other of these keys.
    """

    def keys(self) -> Any:
        return {"help": self["help"]}.keys()


def did_you_mean_argument(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known argument nearest to `name`, or "" when none is near.

    A name that other programs use for the same argument counts as nearest. Names may be written as options, such as
    `--learning-rate`.
    """
    known = list(known)
    meant = _CALLED_ELSEWHERE.get(_plain(name))
    nearest = next((other for other in known if _plain(other) == meant), None)
    return did_you_mean(name, known) if nearest is None else f"; did you mean {nearest!r}?"


def _plain(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def argument(
    default: _T,
    help: str,
    *,
    group: str,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    steps: bool = False,
    several: bool = False,
    none_is_default: bool = False,
    left_open: bool = False,
    theirs: Any = _SAME,
    origin: Origin = "transformers",
    secret: bool = False,
    reads: Callable[[str, Any], Any] | None = None,
) -> _T:
    """Declare one argument as a dataclass field.

    Args:
        default: its default.
        help: its help text.
        group: one of `GROUPS`.
        choices: the values it may have (default: any).
        at_least: the smallest number allowed.
        above: a number that it must exceed.
        at_most: the largest number allowed.
        below: a number that it must not reach.
        steps: whether it is a whole number of optimiser steps, or below 1 a share of the run's steps.
        several: whether it may be several of the choices: a list, or a text with commas.
        none_is_default: whether None, the default of transformers, stands for the default here.
        left_open: whether the default holds only where no other argument asks for another value, or it matters whether
            anybody gave one: the field's own default is None then, which the class settles.
        theirs: the default of transformers, if it differs.
        origin: where its name comes from.
        secret: whether it must never be shown or written. It has no choices and no limits, whose messages show a value.
        reads: (name, value) -> the value to keep, for an argument that has several forms; it raises for any other.
    """
    limits = {">=": at_least, ">": above, "<=": at_most, "<": below}
    declaration = _Declaration(
        help=help,
        default=default,
        group=group,
        choices=choices,
        limits={sign: limit for sign, limit in limits.items() if limit is not None},
        steps=steps,
        several=several,
        none_is_default=none_is_default or left_open,
        left_open=left_open,
        theirs=default if theirs is _SAME else theirs,
        origin=origin,
        secret=secret,
        reads=reads,
    )
    return field(default=cast(_T, None) if left_open else default, repr=not secret, metadata=declaration)


def argument_types(cls: type) -> dict[str, tuple[type, bool]]:
    """Return (type, whether None is allowed) of every argument, by name."""
    return _argument_types(cast(Hashable, cls))  # mypy takes a dataclass for unhashable, as its instances are


@functools.cache
def _argument_types(cls: Any) -> dict[str, tuple[type, bool]]:
    result = {}
    for name, hint in typing.get_type_hints(cls).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        # A mapping is declared as "dict | str | None", as in transformers, whose parser of commands then reads text.
        kind = next(option for option in options if option is not type(None))
        result[name] = (typing.get_origin(kind) or kind, type(None) in options)
    return result


# NumPy's scalars are accepted too, because Optuna and NumPy return them.
_ACCEPTED: dict[type, type | tuple[type, ...]] = {
    bool: bool,
    int: numbers.Integral,
    float: numbers.Real,
    str: (str, os.PathLike),
    dict: dict,
}


def checked(argument: Field[Any], kind: type, optional: bool, value: Any) -> Any:
    """Return a checked value as a plain `kind`.

    Args:
        argument: the argument's field.
        kind: bool, int, float, str or dict; any other where the argument is read by a function.
        optional: whether None is allowed.
        value: the value to check. An enum, such as those of transformers, stands for its value.

    Raises:
        TypeError, ValueError: the value has the wrong type or is out of range; the message gives the argument, the
            value and what is expected.
    """
    if value is None:
        if optional:
            return None
        if argument.metadata["none_is_default"]:
            return argument.metadata["default"]
    if argument.metadata["reads"] is not None:
        return argument.metadata["reads"](argument.name, value)
    if argument.metadata["several"]:
        value = _in_one_text(value)
    value = value.value if isinstance(value, enum.Enum) else value
    if kind is dict and isinstance(value, str):
        value = _from_json(argument.name, value)
    if not isinstance(value, _ACCEPTED[kind]) or (isinstance(value, bool) and kind is not bool):
        choices = argument.metadata["choices"] or (kind.__name__,)
        expected = " or ".join([*choices, *(["None"] if optional else [])])
        found = "a secret" if argument.metadata["secret"] else repr(value)
        raise TypeError(f"{argument.name} is {found} ({type(value).__name__}); expected {expected}")
    value = str(value) if kind is str else kind(value)
    if argument.metadata["choices"] is not None:
        _check_choices(argument, value)
    if kind in (int, float):
        _check_limits(argument, kind, value)
    return _as_steps(argument.name, value) if argument.metadata["steps"] else value


def _in_one_text(value: Any) -> Any:
    """Return a list of choices as one text with commas: "none" for an empty one."""
    if not isinstance(value, list | tuple):
        return value
    plain = [item.value if isinstance(item, enum.Enum) else item for item in value]
    return ",".join(plain) or "none" if all(isinstance(item, str) for item in plain) else value


def _from_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}, which is not JSON ({error}); expected an object of it") from error


def _check_choices(argument: Field[Any], value: str) -> None:
    choices, several = argument.metadata["choices"], argument.metadata["several"]
    for one in value.split(",") if several else [value]:
        if one not in choices:
            hint = did_you_mean(one, choices)
            raise ValueError(
                f"{argument.name} is {one!r}; expected one {'or more ' if several else ''}of "
                f"{', '.join(map(repr, choices))}{hint}"
            )


def _check_limits(argument: Field[Any], kind: type, value: float) -> None:
    kept = {
        ">=": lambda limit: value >= limit,
        ">": lambda limit: value > limit,
        "<=": lambda limit: value <= limit,
        "<": lambda limit: value < limit,
    }
    limits = argument.metadata["limits"]
    if not (math.isfinite(value) and all(kept[sign](limit) for sign, limit in limits.items())):
        number = "a whole number" if kind is int else "a finite number"
        bounds = " and ".join(f"{sign} {limit}" for sign, limit in limits.items())
        raise ValueError(f"{argument.name} is {value!r}; expected {number} {bounds}".rstrip())


def _as_steps(name: str, value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of steps, or below 1 a share of the run's steps"
        )
    return int(value) if value.is_integer() else value
