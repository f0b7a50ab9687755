"""What a model was trained with, beside its weights: its config.json keeps it under the key "kdistill"."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Self

KEY = "kdistill"
EVALUATION_ROWS, TRAINING_ROWS = "evaluation", "training"
_SHORTEST = 3  # tokens: [CLS], one more, [SEP]


@dataclass(frozen=True, kw_only=True)
class TrainedWith:
    """How the rows were read that a model was trained on. None: as nothing else was asked for.

    Attributes:
        max_length: tokens that rows were cut to.
        doc_stride: tokens that two windows of a long row, or of a context, share.
        text_column: the column of texts, or of words.
        text_pair_column: the column of second texts.
        label_column: the column of labels, or several, separated by commas.
        max_answer_length: tokens of the longest answer to a question.
        n_best: how many answers to a question are considered, see `tasks.answer_spans.SpanRules`.
        no_answers: whether a question may have no answer, as some of the training had none.
        threshold: the probability above which a label of several, or no answer, is predicted (default: 0.5), ...
        threshold_rows: ... and the rows it was chosen on, "evaluation" or "training"; None: somebody gave it.
    """

    max_length: int | None = None
    doc_stride: int | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    max_answer_length: int | None = None
    n_best: int | None = None
    no_answers: bool | None = None
    threshold: float | None = None
    threshold_rows: str | None = None

    def at_threshold(self, threshold: float | None, rows: str | None = None) -> Self:
        """Return a copy with another threshold, None for none, and the rows that it was chosen on."""
        return replace(self, threshold=threshold, threshold_rows=rows)

    def without_columns(self) -> Self:
        """Return a copy that states no columns."""
        return replace(self, text_column=None, text_pair_column=None, label_column=None)

    def given(self) -> dict[str, Any]:
        """Return the attributes that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> TrainedWith:
        """Return what the unnamed content of a configuration holds, as `checked_record` leaves it."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: value for name, value in extra.get(KEY, {}).items() if name in names})

    def within(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return `extra` with this in place of what it holds; keys that are unknown here are kept."""
        names = [field.name for field in fields(self)]
        kept = {name: value for name, value in extra.get(KEY, {}).items() if name not in names}
        record = kept | self.given()
        others = {name: value for name, value in extra.items() if name != KEY}
        return others | {KEY: record} if record else others


def checked_record(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the unnamed content of a configuration without values under "kdistill" that cannot be.

    Each of them is left out with a warning, and so is what is no dict at all. Unknown keys are kept.
    """
    extra = dict(extra)
    if KEY not in extra:
        return extra
    record = extra.pop(KEY)
    if not isinstance(record, Mapping):
        _warn(f"{KEY!r} is a {type(record).__name__}; expected a dict")
        return extra
    wrong = {name: _FAULTS[name](value) for name, value in record.items() if name in _FAULTS and value is not None}
    for name, fault in wrong.items():
        if fault:
            _warn(f"{name!r} under {KEY!r} is {record[name]!r}; expected {fault}")
    return extra | {KEY: {name: value for name, value in record.items() if not wrong.get(name)}}


def _fault_below(least: int, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return "" if whole and value >= least else f"a whole number of at least {least}"


def _fault_of_column(value: Any) -> str:
    return "" if isinstance(value, str) and value else "the name of a column"


def check_threshold(name: str, value: Any) -> float:
    """Return a threshold as float. Raises ValueError, which calls it `name`, if it is not strictly between 0 and 1."""
    if fault := _fault_of_threshold(value):
        raise ValueError(f"{name} is {value!r}; expected {fault}")
    return float(value)


def _fault_of_threshold(value: Any) -> str:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return "" if number and 0 < value < 1 else "a probability between 0 and 1"


def _fault_of_truth(value: Any) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _fault_of_rows(value: Any) -> str:
    return "" if value in (EVALUATION_ROWS, TRAINING_ROWS) else f"{EVALUATION_ROWS!r} or {TRAINING_ROWS!r}"


_FAULTS: Mapping[str, Callable[[Any], str]] = {
    "max_length": partial(_fault_below, _SHORTEST),
    "doc_stride": partial(_fault_below, 0),
    "text_column": _fault_of_column,
    "text_pair_column": _fault_of_column,
    "label_column": _fault_of_column,
    "max_answer_length": partial(_fault_below, 1),
    "n_best": partial(_fault_below, 1),
    "no_answers": _fault_of_truth,
    "threshold": _fault_of_threshold,
    "threshold_rows": _fault_of_rows,
}


def _warn(what: str) -> None:
    warnings.warn(f"in the configuration, {what}; it is ignored", stacklevel=5)
