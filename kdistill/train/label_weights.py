"""The arguments `class_weights` and `pos_weight`: read, settled on the training rows, and scaled for each step."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.labels import labelled_rows
from ..data.ragged import units_of
from ..losses.problem_types import SINGLE_LABEL
from ..losses.weights import LabelWeights, argument_of, check_argument, checked_weights, scaled_to_rows
from ..metrics.prediction import Labels
from ..models.configuration import Config
from ..system.names import listing
from .plan import RowIndices

BALANCED = "balanced"
MOST_BALANCED_POS_WEIGHT = 10.0
"""The largest `pos_weight` that "balanced" gives: one row of a rare label shall not outweigh all others of a batch."""
_MOST_LISTED = 20
_NAMES = ("class_weights", "pos_weight")
_EXPECTED = "'balanced', a number >= 0 for each label such as 0.3,2.0, or an object {label: number}"


def read_weights(name: str, value: Any) -> str | list[float] | dict[str, float]:
    """Return "balanced", a list of numbers or a dict of them by label, from these or from the text of an option.

    Raises:
        TypeError: the value is something else.
        ValueError: a number is negative or not finite.
    """
    if isinstance(value, str) and value == BALANCED:
        return BALANCED
    plain = _from_text(name, value) if isinstance(value, str) else value
    if isinstance(plain, Mapping):
        return {str(label): _number(name, label, number) for label, number in plain.items()}
    if isinstance(plain, Iterable) and not isinstance(plain, str | bytes):
        return [_number(name, place, number) for place, number in enumerate(plain)]
    raise TypeError(f"{name} is {value!r}; expected {_EXPECTED}")


def _from_text(name: str, text: str) -> Any:
    try:
        return json.loads(text) if text.lstrip().startswith("{") else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}; expected {_EXPECTED}") from error


def _number(name: str, place: Any, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}[{place!r}] is {value!r}; expected a number >= 0")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}[{place!r}] is {float(value)}; expected a finite number >= 0")
    return float(value)


@dataclass(frozen=True)
class RunWeights:
    """The weights of a run's labels.

    Attributes:
        values: one for each label of the model, float64 (num_labels,).
        labels: those of the training rows where a step divides the weights by their mean, else None.
        starts: where the tokens of each row begin, int64 (rows + 1,), where each token has a label; else None.
    """

    values: LabelWeights
    labels: Labels | None
    starts: NDArray[np.int64] | None = None

    def of_step(self, rows: RowIndices) -> LabelWeights:
        """Return the weights for the micro-batches of a step on these rows.

        Those of classes are divided by their mean over all rows, or tokens, of the step that have a label. So the
        step's loss is the weighted mean of torch's CrossEntropyLoss(weight=...), and gradients accumulate to those of
        one batch.
        """
        if self.labels is None:
            return self.values
        return scaled_to_rows(self.values, self.labels[rows if self.starts is None else units_of(self.starts, rows)])


def run_weights(
    args: Any, problem_type: str, config: Config, labels: Labels, starts: NDArray[np.int64] | None = None
) -> RunWeights | None:
    """Return the weights that the training arguments ask for, None without any.

    Args:
        args: the training arguments.
        problem_type: of the run; single_label_classification where each token has a label.
        config: the model's, whose label map names the labels.
        labels: of the training rows, or of their tokens.
        starts: where the tokens of each row begin, int64 (rows + 1,), where each token has a label.

    Raises:
        ValueError: the weights of another problem type, too many or too few of them, a name that is no label, or
            "balanced" where no row has one of the labels.
    """
    given = {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
    for name in given:
        check_argument(name, problem_type)
    name = argument_of(problem_type) or ""
    if name not in given:
        return None
    one_label = problem_type == SINGLE_LABEL
    asked, names = given[name], [config.id2label[index] for index in range(config.num_labels)]
    if asked == BALANCED:
        values = _balanced(name, labels, names, of_what="row" if starts is None else "word", one_label=one_label)
    elif isinstance(asked, Mapping):
        values = _by_name(name, asked, names)
    elif len(asked) != len(names):
        raise ValueError(f"{name} has {len(asked)} numbers; expected {len(names)}, one for each of {_listed(names)}")
    else:
        values = asked
    return RunWeights(checked_weights(name, values, len(names)), labels if one_label else None, starts)


def _listed(names: Iterable[str]) -> str:
    return listing(names, _MOST_LISTED)


def _by_name(name: str, asked: Mapping[str, float], names: list[str]) -> list[float]:
    unknown = [label for label in asked if label not in names]
    missing = [label for label in names if label not in asked]
    if unknown:
        raise ValueError(f"{name} has {unknown[0]!r}, which is no label; expected one of {_listed(names)}")
    if missing:
        raise ValueError(f"{name} has no number for {_listed(map(repr, missing))}; expected one for every label")
    return [asked[label] for label in names]


def _balanced(name: str, labels: Labels, names: list[str], *, of_what: str, one_label: bool) -> list[float]:
    """Return rows / (classes * rows of the class), or (rows without the label) / (rows with it), at most ten."""
    known = labels[labels >= 0] if one_label else labels[labelled_rows(labels)]
    rows = np.bincount(known, minlength=len(names)) if one_label else (known > 0.5).sum(axis=0)
    absent = [label for label, count in zip(names, rows, strict=True) if not count]
    if absent:
        raise ValueError(
            f"{name} is 'balanced', and no training {of_what} has the label {_listed(map(repr, absent))}; expected "
            f"{of_what}s of every label, or the numbers themselves"
        )
    if one_label:  # as sklearn's compute_class_weight
        return [len(known) / (len(names) * int(count)) for count in rows]
    return [min((len(known) - int(count)) / int(count), MOST_BALANCED_POS_WEIGHT) for count in rows]
