"""The space of a hyperparameter search: a function as in transformers, or ranges as data."""

from __future__ import annotations

import copy
import math
import os
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..system.callers import level_outside
from ..system.files import read_json_object
from ..system.names import listing
from ..train.arguments import TrainingArguments
from ..train.fields import did_you_mean_argument
from ..train.without_effect import without_effect

HyperparameterSpace = Callable[[Any], dict[str, Any]]
"""(Optuna trial) -> values of training arguments."""

DEFAULT_SPACE: Mapping[str, Mapping[str, Any]] = {
    "num_train_epochs": {"type": "int", "low": 2, "high": 10},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
    "temperature": {"type": "int", "low": 2, "high": 30},
}
"""The space that the PyTorch notebook searches whose recipe README.md gives."""
_AROUND_LEARNING_RATE, _AROUND_EPOCHS, _AROUND_TEMPERATURE = 4.0, 0.5, 4.0

_GROUPS = ("distillation", "training", "optimiser")
SHARED = (
    *("augment", "data_seed", "doc_stride", "label_all_tokens", "max_length", "recipe"),
    *("teacher_cache", "teacher_dtype"),
)
"""All trials share the tokenised rows and the teacher's logits, which these arguments determine."""
_KEYS = {
    "int": ("type", "low", "high", "step", "log"),
    "float": ("type", "low", "high", "step", "log"),
    "categorical": ("type", "choices"),
}


@dataclass(frozen=True)
class Range:
    """The range of one hyperparameter.

    Args:
        type: "int", "float" or "categorical".
        low: smallest value of a number.
        high: largest value of a number.
        step: distance of the values (default: 1 for int, none for float).
        log: whether to draw from the logarithmic scale.
        choices: values of a categorical one.

    The names are those of Optuna's `suggest_int`, `suggest_float` and `suggest_categorical`.
    """

    type: str
    low: Any = None
    high: Any = None
    step: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name: str, fields: Any) -> Range:
        """Return the range of the hyperparameter `name` from a mapping. Raises `ValueError` for a malformed one."""
        kind = fields.get("type") if isinstance(fields, Mapping) else None
        if kind not in _KEYS:
            raise ValueError(
                f'{name} is {fields!r}; expected a table whose type is "int", "float" or "categorical", such as '
                '{type = "float", low = 1e-5, high = 1e-3, log = true}'
            )
        for key in fields:
            if key not in _KEYS[kind]:
                raise ValueError(f"{name} has {key!r}; a range of type {kind} has {', '.join(_KEYS[kind])}")
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        result = cls(**values)
        result._check(name)
        return result

    def _check(self, name: str) -> None:
        if self.type == "categorical":
            if not isinstance(self.choices, tuple) or not self.choices:
                raise ValueError(f"{name} has choices {self.choices!r}; expected a list of values")
            return
        number, expected = (int, "a whole number") if self.type == "int" else ((int, float), "a number")
        for key in ("low", "high", *(("step",) if self.step is not None else ())):
            value = getattr(self, key)
            if not isinstance(value, number) or isinstance(value, bool):
                raise ValueError(f"{name} has {key} {value!r}; expected {expected}")
        if not self.low <= self.high:
            raise ValueError(f"{name} goes from {self.low} to {self.high}; expected low <= high")
        if self.step is not None and (self.step <= 0 or self.log):
            raise ValueError(f"{name} has step {self.step}; expected a step above 0, and none with log")
        if not isinstance(self.log, bool) or (self.log and self.low <= 0):
            raise ValueError(f"{name} has log {self.log!r} and low {self.low}; expected true or false, low above 0")

    @property
    def limits(self) -> tuple[Any, ...]:
        """The extreme values, or all choices: the argument accepts the whole range if it accepts these."""
        return self.choices if self.type == "categorical" else (self.low, self.high)

    def suggest(self, trial: Any, name: str) -> Any:
        """Let Optuna choose a value for the trial. Raises `ValueError` when the study has another type of range."""
        try:
            return self._suggest(trial, name)
        except ValueError as error:
            raise ValueError(
                f"hp_space: {name} had another type or other choices in earlier trials of this study; choose another "
                "study_name"
            ) from error

    def _suggest(self, trial: Any, name: str) -> Any:
        if self.type == "categorical":
            return trial.suggest_categorical(name, self.choices)
        if self.type == "int":
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


def hyperparameter_space(source: Any, args: TrainingArguments) -> HyperparameterSpace:
    """Return the space that `source` describes, with every value checked against the arguments.

    Args:
        source: a function (trial) -> dict; a mapping from names to ranges (see `Range`); the path of a .toml or .json
            file with such a mapping; or None for `default_space`.
        args: the arguments that all trials begin with.

    Of ranges it warns that have no effect in any trial.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a range is malformed, a name is not searchable, or an argument does not accept a value.
    """
    if callable(source):
        return lambda trial: _checked_result(source(trial), args)
    if source is None:
        source = default_space(args)
    elif isinstance(source, str | os.PathLike):
        source = _read(Path(source))
    if not isinstance(source, Mapping) or not source:
        raise ValueError(
            f"hp_space is {source!r}; expected a function of a trial, ranges by names of arguments, or a file of such"
        )
    _check_names(source, args)
    ranges = {name: _checked_range(name, range_, args) for name, range_ in source.items()}
    _warn_of_idle(ranges, args)
    return lambda trial: {name: range_.suggest(trial, name) for name, range_ in ranges.items()}


def default_space(args: TrainingArguments) -> dict[str, Mapping[str, Any]]:
    """Return what of `DEFAULT_SPACE` has an effect with `args`, around the values that its recipe has chosen.

    The ranges of the notebook are for a pretrained student: one made from a shape learns little in any of them.
    """
    chosen = args.chosen
    around: dict[str, Mapping[str, Any]] = {}
    if "learning_rate" in chosen:
        rate = chosen["learning_rate"]
        limits = {"low": rate / _AROUND_LEARNING_RATE, "high": rate * _AROUND_LEARNING_RATE}
        around["learning_rate"] = {"type": "float", **limits, "log": True}
    if "num_train_epochs" in chosen:
        epochs = chosen["num_train_epochs"]
        limits = {"low": max(1, int(epochs * (1 - _AROUND_EPOCHS))), "high": math.ceil(epochs * (1 + _AROUND_EPOCHS))}
        around["num_train_epochs"] = {"type": "int", **limits}
    if "temperature" in chosen:
        low = chosen["temperature"]
        around["temperature"] = {"type": "float", "low": low, "high": low * _AROUND_TEMPERATURE, "log": True}
    known = searched_arguments(args)
    names = [name for name in DEFAULT_SPACE if name in known]
    unused = without_effect(args, names)
    return {name: around.get(name, DEFAULT_SPACE[name]) for name in names if name not in unused}


def _warn_of_idle(ranges: Mapping[str, Range], args: TrainingArguments) -> None:
    """Warn of what a space varies and has no effect in any trial, such as the epochs of runs that `max_steps` ends."""
    reasons: dict[str, str] | None = None
    for values in _some_values(ranges):
        trial_run = copy.copy(args)
        for name, value in values.items():
            setattr(trial_run, name, value)
        found = without_effect(trial_run, ranges)
        reasons = found if reasons is None else {name: why for name, why in reasons.items() if name in found}
        if not reasons:
            return
    for why in dict.fromkeys((reasons or {}).values()):
        named = [name for name, reason in (reasons or {}).items() if reason == why]
        verb = "has" if len(named) == 1 else "have"
        warnings.warn(
            f"hp_space varies {listing(named)}, which {verb} no effect here: {why}; leave out one or the other",
            stacklevel=level_outside(),
        )


def _some_values(ranges: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """Yield hyperparameters among which each has all of its limits, alone and together with the others."""
    first = {name: range_.limits[0] for name, range_ in ranges.items()}
    for place in range(max(len(range_.limits) for range_ in ranges.values())):
        yield {name: range_.limits[place % len(range_.limits)] for name, range_ in ranges.items()}
    for name, range_ in ranges.items():
        yield from ({**first, name: value} for value in range_.limits[1:])


def given_in_space(source: Any, args: TrainingArguments) -> list[str]:
    """Return the arguments that `args` were given and a space varies: a file, a mapping or the default one (None)."""
    if source is None:
        source = default_space(args)
    names = _read(Path(source)) if isinstance(source, str | os.PathLike) else source
    return [name for name in names if name in searched_arguments(args) and args.is_given(name)]


def searched_arguments(args: TrainingArguments) -> list[str]:
    """Return the arguments that a search may vary: those of the training, the optimiser and the loss."""
    return [field.name for field in fields(args) if field.metadata["group"] in _GROUPS and field.name not in SHARED]


def _checked_range(name: str, given: Any, args: TrainingArguments) -> Range:
    """Return the range after checking that the argument accepts all of its values."""
    trial_run = copy.copy(args)
    try:
        range_ = Range.of(name, given)
        for value in range_.limits:
            setattr(trial_run, name, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"hp_space: {error}") from error
    return range_


def _checked_result(values: Any, args: TrainingArguments) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"hp_space returned {values!r}; expected a dict from names of arguments to values")
    _check_names(values, args)
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def _check_names(names: Mapping[str, Any], args: TrainingArguments) -> None:
    known = searched_arguments(args)
    for name in names:
        if name in SHARED:
            raise ValueError(
                f"hp_space has {name!r}, which is the same in all trials: they share the tokenised rows and the "
                "teacher's logits; set it in args"
            )
        if name not in known:
            raise ValueError(
                f"hp_space has {name!r}, which is not a hyperparameter{did_you_mean_argument(str(name), known)}; "
                f"there are {', '.join(known)}"
            )


def _read(path: Path) -> dict[str, Any]:
    if path.suffix not in (".json", ".toml"):
        raise ValueError(f"hp_space is {str(path)!r}; expected a .toml or a .json file")
    if not path.is_file():
        raise FileNotFoundError(f"hp_space is {str(path)!r}; there is no such file")
    if path.suffix == ".json":
        return read_json_object(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
