"""Read what a teacher answered out of the columns of a table: logits or probabilities, an array for each row."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..system.names import did_you_mean, listing
from .class_names import LABEL_NAMES
from .label_names import Where, is_unnamed
from .label_values import as_integer, as_number, is_empty, is_list
from .table import Table

LOGITS, PROBABILITIES = "teacher_logits", "teacher_probs"
"""Columns of what a teacher answered, by convention; logits go before probabilities."""
TEMPERATURE = "teacher_temperature"
"""The column beside them with the temperature at which the answers of several teachers were averaged."""
SUM_TOLERANCE = 0.02
"""How far the sum of a row's probabilities may be from 1, to which they are scaled: some are rounded to two digits."""
LEAST_PROBABILITY = 1e-7
"""A smaller probability counts as this one, whose logarithm there is. The least one of a softmax in float32 is so."""
_SCORES = {"softmax": "the logarithms of", "sigmoid": "the log-odds of"}
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Answers:
    """What the outputs of a student are, as far as those of a teacher must fit them.

    Attributes:
        names: of the outputs, in their order; none where outputs have no names, as the numbers of an embedding.
        score_function: what makes probabilities of logits, see `tasks.base.Task.score_function`.
        per_part: whether each word of a row has an answer, or each text of a pair, instead of each row.
    """

    names: Sequence[str]
    score_function: str
    per_part: bool = False

    @property
    def have_names(self) -> bool:
        """Whether the names tell the outputs apart, other than by their numbers."""
        return bool(self.names) and not is_unnamed(dict(enumerate(self.names)))


@dataclass(frozen=True)
class TeacherColumn:
    """The answers of a teacher as a table holds them.

    Attributes:
        name: of the column, or of the columns, for messages.
        columns: that were read.
        probabilities: whether they are probabilities, instead of logits.
        values: of each row: numbers, or an object {label: number}; of a row of words a list of such; None without any.
        names: of the labels that lists are in the order of, or none.
        where: gives the place of a row, for messages.
        source: the table's name, likewise.
        temperature: at which probabilities of several teachers were averaged to these answers, and at which alone they
            are their mean, see `losses.mixing`; None of one teacher.
    """

    name: str
    columns: tuple[str, ...]
    probabilities: bool
    values: Sequence[Any]
    names: Sequence[str]
    where: Where
    source: str
    temperature: float | None = None

    def read(self, answers: Answers) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """Return the logits of all rows, float32 (rows, outputs), NaN in rows without any.

        With `per_part` they are those of all words of all rows, and the second array is how many words each row has,
        int64 (rows,), -1 in rows without any.

        Raises:
            ValueError: numbers, or labels, are not those of the student; or not finite; or probabilities are none.
            TypeError: a value is something else.
        """
        if not answers.per_part:
            places = range(len(self.values))
            return _Reader(self, answers).logits(self.values, places), None
        lengths = np.array([-1 if is_empty(of) else len(self._words(of, row)) for row, of in enumerate(self.values)])
        words = [word for of in self.values if not is_empty(of) for word in of]
        rows = np.repeat(np.arange(len(self.values)), np.maximum(lengths, 0))
        return _Reader(self, answers).logits(words, rows.tolist()), lengths.astype(np.int64)

    def label_names(self) -> list[str]:
        """Return the names of labels that the answers are for, where the column or its objects state any."""
        named = [name for of in self._first_level() if isinstance(of, Mapping) for name in of]
        return list(self.names) or list(dict.fromkeys(named))

    def width(self) -> int:
        """Return how many numbers the first answer has; 0 without any."""
        first = next((of for of in self._first_level() if not _is_missing(of)), ())
        return len(first) if is_list(first) or isinstance(first, Mapping) else 1

    def _first_level(self) -> list[Any]:
        """Return the answers of rows, or of their words."""
        found: list[Any] = []
        for value in self.values:
            words = is_list(value) and any(is_list(of) or isinstance(of, Mapping) for of in value)
            found += value if words else [value]
        return found

    def _words(self, value: Any, row: int) -> Sequence[Any]:
        if not is_list(value) or not all(of is None or is_list(of) or isinstance(of, Mapping) for of in value):
            raise TypeError(
                f"{self.where(row)}: {self.name} holds {_shown(value)}; expected a list for each word of the row, or "
                "None for a word without"
            )
        words: Sequence[Any] = value
        return words


def teacher_column_of(table: Table) -> TeacherColumn | None:
    """Return the answers of a teacher that a table holds: `teacher_logits`, else `teacher_probs`; None without any.

    Each is one column, or a column for each output: `teacher_logits_0`, ... or with the names of labels. The names that
    the numbers of a row are in the order of may stand in a column `label_names`, or in the metadata of a Parquet file.
    A column `teacher_temperature` may state the temperature of an average.

    Raises:
        ValueError: such a column holds something else, or differs between the rows.
    """
    column = _answers_in(table)
    if column is None or TEMPERATURE not in table.columns:
        return column
    return replace(column, columns=(*column.columns, TEMPERATURE), temperature=_temperature_in(table))


def _answers_in(table: Table) -> TeacherColumn | None:
    for name in (LOGITS, PROBABILITIES):
        apart = [column for column in table.columns if column.startswith(f"{name}_")]
        if name in table.columns:
            values = [_parsed(value) for value in table.columns[name]]
            names, beside = _names_in(table)
            return TeacherColumn(
                repr(name), (name, *beside), name == PROBABILITIES, values, names, table.where, table.source
            )
        if apart:
            return _joined(table, name, apart)
    return None


def without_teacher_columns(table: Table, column: TeacherColumn) -> Table:
    """Return the other columns of a table."""
    return table.remove_columns(list(column.columns))


def _temperature_in(table: Table) -> float | None:
    """Return the temperature that the rows of a table state, or None where none does."""
    found = None
    for row, value in enumerate(table.columns[TEMPERATURE]):
        if is_empty(value):
            continue
        number = as_number(value)
        if number is None or not 0 < number < math.inf or number != (found or number):
            raise ValueError(
                f"{table.where(row)}: {TEMPERATURE!r} holds {_shown(value)}; expected the temperature at which answers "
                "of several teachers were averaged, the same in every row"
            )
        found = number
    return found


def _names_in(table: Table) -> tuple[Sequence[str], tuple[str, ...]]:
    """Return the names of outputs that a table states, or none, and the columns that they stand in."""
    if LABEL_NAMES not in table.columns:
        return table.class_names.get(LABEL_NAMES, ()), ()
    lists = [_parsed(value) for value in table.columns[LABEL_NAMES]]
    first: Any = next((names for names in lists if not is_empty(names)), ())
    for row, names in enumerate(lists):
        if not is_empty(names) and (
            not is_list(names) or list(names) != list(first) or not all(isinstance(name, str) for name in names)
        ):
            raise ValueError(
                f"{table.where(row)}: {LABEL_NAMES!r} holds {_shown(names)}; expected the list of the names of labels, "
                "the same in every row"
            )
    return first, (LABEL_NAMES,)


def _joined(table: Table, name: str, columns: Sequence[str]) -> TeacherColumn:
    """Return the answers of a column for each output as objects, or as lists where the columns are numbered."""
    labels = [column.removeprefix(f"{name}_") for column in columns]
    numbers = [as_integer(label) for label in labels]
    numbered = sorted(number for number in numbers if number is not None) == list(range(len(labels)))
    if numbered:
        columns = [f"{name}_{number}" for number in range(len(labels))]
    rows = [
        None if all(map(is_empty, values)) else list(map(_parsed, values))
        for values in zip(*(table.columns[column] for column in columns), strict=True)
    ]
    values = rows if numbered else [None if of is None else dict(zip(labels, of, strict=True)) for of in rows]
    shown = f"{columns[0]!r} to {columns[-1]!r}" if len(columns) > 1 else repr(columns[0])
    return TeacherColumn(shown, tuple(columns), name == PROBABILITIES, values, (), table.where, table.source)


def _parsed(value: Any) -> Any:
    """Return what a text of a TSV or CSV spells in JSON, or as Python writes it; anything else as it is."""
    if not isinstance(value, str) or is_empty(value):
        return value
    if (number := as_number(value)) is not None:
        return number
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError):
            continue
    return value


class _Reader:
    """Reads the values of a column as logits in the order of the student's outputs."""

    def __init__(self, column: TeacherColumn, answers: Answers) -> None:
        self._column, self._answers = column, answers
        self._width = len(answers.names)
        if column.probabilities and answers.score_function not in _SCORES:
            raise ValueError(
                f"{column.source}: {column.name} holds probabilities, and the student gives numbers; expected numbers "
                f"in {LOGITS!r}"
            )
        self._order = self._order_of_names() if len(column.names) else None

    def logits(self, values: Sequence[Any], rows: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits of values, float32 (values, outputs); `rows` are the rows that each belongs to."""
        places = [place for place, value in enumerate(values) if not _is_missing(value)]
        given = [self._numbers(values[place], rows[place]) for place in places]
        width = self._width or (len(given[0]) if given else 0)  # embeddings have the width that they have
        for place, numbers in zip(places, given, strict=True):
            if len(numbers) != width:
                raise ValueError(f"{self._where(rows[place])} has {self._wrong_width(len(numbers), width)}")
        found = np.full((len(values), width), np.nan)
        if given:
            found[places] = self._array(given, [rows[place] for place in places])
        kept = ~np.isnan(found).all(axis=1)
        wrong = kept & ~np.isfinite(found).all(axis=1)
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"{self._where(rows[place])} is {_shown(found[place].tolist())}; expected finite numbers"
                + ("" if self._column.probabilities else f" (a probability of 0 is one in {PROBABILITIES!r})")
            )
        if self._order is not None:
            found = found[:, self._order]
        if self._column.probabilities and kept.any():
            found[kept] = self._of_probabilities(found[kept], [rows[place] for place in np.flatnonzero(kept).tolist()])
        with np.errstate(over="ignore"):
            logits = found.astype(np.float32)
        if np.isinf(logits).any():
            place = int(np.isinf(logits).any(axis=1).argmax())
            raise ValueError(
                f"{self._where(rows[place])} is {_shown(found[place].tolist())}; expected numbers of float32"
            )
        return logits

    def _where(self, row: int) -> str:
        return f"{self._column.where(row)}: {self._column.name}"

    def _array(self, given: Sequence[Any], rows: Sequence[int]) -> NDArray[np.float64]:
        try:
            array = np.array(given)
        except ValueError:  # lists in lists
            array = np.zeros(0)
        if array.ndim == 2 and array.dtype.kind in "fiu":  # a tenth of the time of looking at each number
            return array.astype(np.float64)
        for numbers, row in zip(given, rows, strict=True):
            for number in numbers:
                if number is not None and (isinstance(number, str) or as_number(number) is None):
                    raise TypeError(f"{self._where(row)} holds {_shown(number)} among its numbers; expected numbers")
        return np.array(given, dtype=np.float64)

    def _numbers(self, value: Any, row: int) -> Sequence[Any]:
        """Return the numbers of a row as the source orders them, or of an object in the student's order."""
        if isinstance(value, Mapping):
            return self._by_name(value, row)
        if is_list(value):
            numbers: Sequence[Any] = value
            return numbers
        if as_number(value) is not None and not isinstance(value, str) and self._width == 1:
            return [value]
        raise TypeError(
            f"{self._where(row)} holds {_shown(value)}; expected a list of numbers, or an object {{label: number}}"
        )

    def _by_name(self, value: Mapping[str, Any], row: int) -> Sequence[Any]:
        names, given = self._answers.names, {name: of for name, of in value.items() if not is_empty(of)}
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"{self._where(row)} has {unknown[0]!r}, {self._no_label(unknown[0])}")
        missing = [name for name in names if name not in given]
        if missing and not self._column.probabilities:
            raise ValueError(
                f"{self._where(row)} lacks {listing(map(repr, missing), _MOST_SHOWN)}; expected a logit for every label"
            )
        if self._order is not None:  # lists are ordered by the names of the source, and so is this
            names = self._column.names
        return [given.get(name, 0.0) for name in names]

    def _no_label(self, name: str) -> str:
        names = self._answers.names
        if not self._answers.have_names:
            return (
                "and the student's labels have no names; give them: --label-names, in Python id2label= of "
                "from_pretrained"
            )
        return f"which is no label of the student; expected {listing(map(repr, names), _MOST_SHOWN)}" + did_you_mean(
            name, names
        )

    def _order_of_names(self) -> NDArray[np.int64] | None:
        """Return the place in the source of each of the student's outputs; None where it is the same."""
        theirs, ours = list(self._column.names), list(self._answers.names)
        if not ours or is_unnamed(dict(enumerate(theirs))):
            return None
        whose = f"{self._column.source}: {self._column.name}"
        if len(set(theirs)) < len(theirs):
            raise ValueError(f"{whose} is for the labels {listing(map(repr, theirs), _MOST_SHOWN)}, one of them twice")
        unknown = [name for name in theirs if name not in ours]
        if unknown:
            raise ValueError(f"{whose} is for the label {unknown[0]!r}, {self._no_label(unknown[0])}")
        missing = [name for name in ours if name not in theirs]
        if missing:
            raise ValueError(
                f"{whose} is for the labels {listing(map(repr, theirs), _MOST_SHOWN)}, and the student has "
                f"{listing(map(repr, missing), _MOST_SHOWN)} beside them; expected the same labels"
            )
        order = np.array([theirs.index(name) for name in ours])
        return None if (order == np.arange(len(order))).all() else order

    def _wrong_width(self, found: int, expected: int) -> str:
        if not self._answers.names:
            return f"{found} numbers, and the first row {expected}; expected as many in every row"
        return (
            f"{found} numbers; the student has {expected} outputs "
            f"({listing(map(repr, self._answers.names), _MOST_SHOWN)}): expected one for each, in this order"
        )

    def _of_probabilities(self, values: NDArray[np.float64], rows: Sequence[int]) -> NDArray[np.float64]:
        """Return the logits that give these probabilities, float64 (n, outputs)."""
        wrong = (values < 0) | (values > 1 + SUM_TOLERANCE)
        if wrong.any():
            place, label = (int(index) for index in np.argwhere(wrong)[0])
            raise ValueError(
                f"{self._where(rows[place])} holds {values[place, label]:g}; expected probabilities, 0 to 1"
            )
        if self._answers.score_function == "softmax":
            sums = values.sum(axis=1)
            off = np.abs(sums - 1) > SUM_TOLERANCE
            if off.any():
                place = int(off.argmax())
                raise ValueError(
                    f"{self._where(rows[place])} has the sum {sums[place]:.4g}; expected 1 (within {SUM_TOLERANCE:g}): "
                    f"logits belong into {LOGITS!r}"
                )
            return np.asarray(np.log(np.maximum(values / sums[:, None], LEAST_PROBABILITY)))
        clipped = np.clip(values, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _is_missing(value: Any) -> bool:
    """Return whether a row has no answer; an object without a number is what Parquet makes of a missing one."""
    return is_empty(value) or (isinstance(value, Mapping) and all(map(is_empty, value.values())))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
