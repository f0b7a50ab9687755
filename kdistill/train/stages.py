"""The argument `matches`: its presets, its files, and the stages that it stands for."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..system.files import json_text
from ..system.names import did_you_mean, listing
from .matches import Match, Stage, made

PRESETS: Mapping[str, tuple[Stage, ...]] = MappingProxyType(
    {
        # Its two stages of task distillation; 20 epochs and 3 in the paper, whose first stage nothing here lasts.
        "tinybert": (
            Stage(
                (Match("embedding"), Match("hidden"), Match("attention")),
                name="intermediate",
                share=2 / 3,
                prediction_weight=0.0,
            ),
            Stage(name="prediction"),
        ),
        "minilm": (Stage((Match("relation", teacher_layer=-1, student_layer=-1),)),),  # MiniLMv2
        # Its beta of 500 weighs the mean over 5 layers of 768 numbers: 0.13 of our sums.
        "pkd": (Stage((Match("cls", teacher_layer="skip", weight=0.13),)),),
        # Its 5, 2 and 1 divided by 7, with --alpha 0.2857 (2 / 7) and --temperature 2.
        "distilbert": (Stage((Match("hidden", teacher_layer=-1, student_layer=-1, weight=1 / 7, loss="cosine"),)),),
    }
)
"""Name -> the stages of a run. docs/how-to/intermediate-losses.md explains each."""
_EXPECTED = (
    f"a list of Match, a preset ({listing(PRESETS)}), the path of a .toml file, or a list of Stage; nothing else"
)


def read_matches(name: str, value: Any) -> str | list[Match] | list[Stage]:
    """Return the value of the argument `matches`: the name of a preset, or a list of matches or stages.

    Args:
        name: what the argument is called in messages.
        value: one of those; the path of a .toml file with `[[matches]]`, or with `[[stage]]` and `[[stage.matches]]`;
            or lists of mappings as they come from such a file.

    Raises:
        ValueError: a value is not one of those that are expected; names the place.
        TypeError: likewise.
        OSError: the file cannot be read; names the argument and the file.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if text in PRESETS:
            return str(text)
        if not str(text).endswith(".toml"):
            raise ValueError(f"{name} is {text!r}; expected {_EXPECTED}{did_you_mean(str(text), PRESETS)}")
        return _from_file(name, Path(str(text)).expanduser())
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise TypeError(f"{name} is {value!r}; expected {_EXPECTED}")
    rows = list(value)
    if not rows:
        raise ValueError(f"{name} is empty; expected {_EXPECTED}, or None for no such losses")
    if any(isinstance(row, Stage) or (isinstance(row, Mapping) and "kind" not in row) for row in rows):
        return _checked_stages(name, [made(Stage, f"{name}[{place}]", row) for place, row in enumerate(rows)])
    return _checked_matches(name, rows)


def stages_of(value: str | Sequence[Match] | Sequence[Stage] | None) -> tuple[Stage, ...]:
    """Return the stages that a value of `read_matches` stands for; none for None."""
    if value is None:
        return ()
    if isinstance(value, str):
        return PRESETS[value]
    stages = [row for row in value if isinstance(row, Stage)]
    return tuple(stages) if stages else (Stage([row for row in value if isinstance(row, Match)]),)


def predictions_count(value: str | Sequence[Match] | Sequence[Stage] | None) -> bool:
    """Return whether a run with this value of `read_matches` has a loss of the predictions in any step."""
    rows = PRESETS[value] if isinstance(value, str) else value or ()
    stages = [row for row in rows if isinstance(row, Stage)]  # matches alone are no stage yet: each step asks this
    return not stages or any(stage.prediction_weight for stage in stages)


def rows_of(value: str | Sequence[Match] | Sequence[Stage] | None) -> Any:
    """Return a value of `read_matches` ready for JSON, from which `read_matches` makes it again."""
    return value if value is None or isinstance(value, str) else [_plain(asdict(row)) for row in value]


def matches_hash(value: str | Sequence[Match] | Sequence[Stage]) -> str:
    """Return a hash of the stages that a value stands for."""
    return hashlib.sha256(json_text(rows_of(stages_of(value))).encode()).hexdigest()


def stage_ends(stages: Sequence[Stage], max_steps: int, steps_per_epoch: int) -> list[int]:
    """Return the step before which each stage ends, of a run of `max_steps`; the last is `max_steps`.

    Raises:
        ValueError: the stages are longer or shorter than the run.
    """
    wanted = [
        stage.share * max_steps if stage.share is not None else stage.epochs and stage.epochs * steps_per_epoch
        for stage in stages
    ]
    left = max_steps - sum(steps for steps in wanted if steps is not None)
    is_open = None in wanted
    if left < -0.5 or (is_open and left < 0.5) or (not is_open and left > 0.5):
        lengths = listing(f"{steps:g}" for steps in wanted if steps is not None)
        raise ValueError(
            f"the stages of matches have {lengths} steps{' and what is left' if is_open else ''}, and the run has "
            f"{max_steps}; expected stages that fill it: let one have neither share nor epochs, or change "
            "num_train_epochs"
        )
    ends, total = [], 0.0
    for steps in wanted:
        total += left if steps is None else steps
        ends.append(min(round(total), max_steps))
    ends[-1] = max_steps
    return ends


def _from_file(name: str, path: Path) -> list[Match] | list[Stage]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise type(error)(f"{name} is {str(path)!r}, which cannot be read: {error.strerror}") from error
    if len(content) != 1 or not content.keys() <= {"matches", "stage"}:
        raise ValueError(
            f"{path} has {listing(content)} at its top; expected [[matches]] alone, or [[stage]] with [[stage.matches]]"
        )
    (which, rows), *_ = content.items()
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: {which} is {rows!r}; expected tables, which begin with [[{which}]]")
    if which == "matches":
        return _checked_matches(f"{path}: matches", rows)
    return _checked_stages(str(path), [made(Stage, f"{path}: stage[{place}]", row) for place, row in enumerate(rows)])


def _checked_matches(name: str, rows: Sequence[Any]) -> list[Match]:
    """Return the matches. Raises ValueError where one is there twice."""
    matches = [made(Match, f"{name}[{place}]", row) for place, row in enumerate(rows)]
    made(Stage, name, {"matches": matches})
    return matches


def _checked_stages(name: str, stages: list[Stage]) -> list[Stage]:
    """Return the stages. Raises ValueError where their lengths can fill no run."""
    given = [stage.share for stage in stages if stage.share is not None]
    left_open = [stage for stage in stages if stage.share is None and stage.epochs is None]
    if len(left_open) > 1:
        raise ValueError(
            f"{name} has {len(left_open)} stages with neither share nor epochs; expected one of them at most, which "
            "has the steps that are left"
        )
    total = sum(given)
    if total > 1 + 1e-6 or (len(given) == len(stages) and total < 1 - 1e-6):
        raise ValueError(
            f"{name} has stages whose shares are {total:g} together; expected 1, or less beside a stage without share"
        )
    return stages


def _plain(value: Any) -> Any:
    """Return a value with lists in place of tuples, as JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
