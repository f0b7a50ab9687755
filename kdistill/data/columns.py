"""Texts, pairs and labels of a table: which columns hold them, and which ids the labels stand for."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problem_types import MULTI_LABEL, REGRESSION
from .sources import TEXT_COLUMN, read_table
from .table import Table, listing

# Column names by convention, the first that a table has; a pair goes before a single text. The last of each list are in
# GLUE's own files of QQP and MRPC.
TEXT_PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
    ("#1 String", "#2 String"),
)
TEXT_COLUMNS = (TEXT_COLUMN, "text")
LABEL_COLUMNS = ("label", "labels", "gold_label", "is_duplicate", "Quality")
# Label id of a row without a label; transformers and PyTorch ignore the same number.
NO_LABEL = -100
_HOW_TO_LEARN_NUMBERS = (
    f'to learn numbers, load the model with num_labels=1, problem_type="{REGRESSION}" (--problem-type {REGRESSION})'
)


@dataclass(frozen=True)
class Rows:
    """Texts with their pairs (or None) and labels (or None), and the table they came from.

    labels: see `labels_of`. class_names: what the source itself calls the labels 0, 1, ..., or none.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    table: Table
    class_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def label_ids(self, id2label: Mapping[int, str] | None = None) -> NDArray[np.int64]:
        """Label ids, int64 (rows,), NO_LABEL where there is none; see `label_ids`."""
        if self.labels is None:
            return np.full(len(self), NO_LABEL, dtype=np.int64)
        return label_ids(self.labels, id2label, self.table.where, self.class_names)

    def label_array(self, id2label: Mapping[int, str] | None, problem_type: str | None) -> NDArray[Any]:
        """The labels for a model of `problem_type`, all of them missing without a label column; see `label_array`."""
        labels = [None] * len(self) if self.labels is None else self.labels
        return label_array(labels, id2label, problem_type, self.table.where, self.class_names)

    def id2label(self) -> dict[int, str]:
        """Label map that these rows imply, for a model that has none yet.

        Labels that are ids give LABEL_0, LABEL_1, ... up to the largest, or the names that the source states for them;
        lists of 0.0 and 1.0 give as many as they are long; names are numbered in sorted order.

        Raises ValueError when no row has a label, or when the labels are fractions, which name nothing.
        """
        if self.class_names:
            return dict(enumerate(self.class_names))
        width = max((len(label) for label in self.labels or () if _is_indicator(label)), default=0)
        if width:
            return {index: f"LABEL_{index}" for index in range(width)}
        flat = list(chain.from_iterable(x if isinstance(x, list) else [x] for x in self.labels or ()))
        values = {str(label) for label in flat if not _is_missing(label)}
        if not values:
            raise ValueError(
                f"{self.table.source} has no labels; its columns are {listing(self.table.columns)}. "
                "Name theirs with --label-column, in Python rename the column"
            )
        if all(_as_integer(value) is not None for value in values):
            return {index: f"LABEL_{index}" for index in range(int(label_ids(flat, None, self.table.where).max()) + 1)}
        if all(map(_is_number, values)):
            fraction = next(label for label in flat if not _is_missing(label) and _as_integer(label) is None)
            raise ValueError(f"{self.table.source} has numbers such as {fraction} for labels; {_HOW_TO_LEARN_NUMBERS}")
        return dict(enumerate(sorted(values)))


def read_rows(
    source: Any,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Rows:
    """Read texts, pairs and labels; `table_sources.read_table` says what a source may be.

    Columns not named are found by convention: `sentence` or `text`, or a pair such as `sentence1`/`sentence2` or
    `premise`/`hypothesis`; `label`, `labels` or `gold_label`. A source without a label column gives labels None.
    `labels_of` says what `label_column` may be.

    Raises ValueError for a missing column (and says which there are), an empty source or a ragged row (file and line
    number), TypeError for a text that is not a string.
    """
    return rows_of(
        read_table(source), text_column=text_column, text_pair_column=text_pair_column, label_column=label_column
    )


def rows_of(table: Table, *, text_column: str | None, text_pair_column: str | None, label_column: str | None) -> Rows:
    """The rows of a table; arguments and errors as in `read_rows`."""
    _check_column("text_column", text_column, table)
    _check_column("text_pair_column", text_pair_column, table)
    labels, class_names = labels_of(table, label_column)
    if text_column is None and text_pair_column is None:
        pair = next((pair for pair in TEXT_PAIR_COLUMNS if set(pair) <= set(table.columns)), (None, None))
        text_column, text_pair_column = pair
    text_column = text_column or next((name for name in TEXT_COLUMNS if name in table.columns), None)
    if text_column is None:
        raise ValueError(
            f"{table.source} has no text column: expected one of {listing(TEXT_COLUMNS)}, or a pair such as sentence1 "
            f"and sentence2; its columns are {listing(table.columns)}. Name it with "
            "--text-column (and --text-pair-column), in Python rename the column"
        )
    texts = _texts(table, text_column)
    if not texts:
        raise ValueError(f"{table.source} has no rows")
    return Rows(
        texts=texts,
        pairs=None if text_pair_column is None else _texts(table, text_pair_column),
        labels=labels,
        table=table,
        class_names=class_names,
    )


def labels_of(table: Table, label_column: str | None) -> tuple[list[Any] | None, Sequence[str]]:
    """The labels of a table as the source holds them, or None; and the names that it states for them, or none.

    label_column: the column; by default the first that is called so by convention. Several columns of 0 and 1, their
        names separated by commas, give each row the list of the columns that are 1.

    A label is an id, a number, a name, a list of these, or None for a row without one. In TSV and CSV all of them are
    text, and empty where there is none; text such as `[0, 1]` or `['a', 'b']` is a list.

    Raises ValueError when a column is missing, or when one of several holds anything but 0 and 1.
    """
    if label_column is None:
        label_column = next((name for name in LABEL_COLUMNS if name in table.columns), None)
        if label_column is None:
            return None, ()
    elif label_column not in table.columns and "," in label_column:
        columns = [name.strip() for name in label_column.split(",")]
        for name in columns:
            _check_column("label_column", name, table)
        return [_columns_that_are_1(table, columns, row) for row in range(len(table))], columns
    _check_column("label_column", label_column, table)
    labels = [_parsed_list(label) if isinstance(label, str) else label for label in table.columns[label_column]]
    return labels, table.class_names.get(label_column, ())


def _columns_that_are_1(table: Table, columns: Sequence[str], row: int) -> list[str] | None:
    """Names of the columns that are 1 in this row; None when all are empty."""
    values = {name: table.columns[name][row] for name in columns}
    if all(map(_is_missing, values.values())):
        return None
    for name, value in values.items():
        if _as_integer(value) not in (0, 1):
            raise ValueError(
                f"{table.where(row)}: column {name!r} holds {value!r}; of several label columns each is 0 or 1"
            )
    return [name for name, value in values.items() if _as_integer(value)]


def _parsed_list(label: str) -> Any:
    """The list that a text spells as JSON or as Python writes it; any other text as it is."""
    if not (label.startswith("[") and label.endswith("]")):
        return label
    try:
        return ast.literal_eval(label)
    except (ValueError, SyntaxError):
        return label


def _check_column(argument: str, column: str | None, table: Table) -> None:
    if column is not None and column not in table.columns:
        raise ValueError(
            f"{argument}={column!r}: {table.source} has no such column; its columns are {listing(table.columns)}"
        )


def label_ids(
    labels: Iterable[Any],
    id2label: Mapping[int, str] | None,
    where: Callable[[int], str],
    class_names: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Ids of labels given as ids or names; None, NaN, "" and NO_LABEL become NO_LABEL.

    id2label: the model's label map; without it only ids are understood and no upper bound is checked.
    where: place of a row, for messages.
    class_names: names that the source has for its ids. When the model has the same names in another order, an id means
        the model's label of that name.

    A whole number may be a float, which is what data frames make of integers when a value is missing (and "1.0" is what
    they write). Raises ValueError for an id outside the label map (GLUE's -1 with its reason) or an unknown name,
    TypeError for anything but a whole number or a string.
    """
    name_ids = {name: index for index, name in (id2label or {}).items()}
    translated = _translation(class_names, id2label or {})
    ids = []
    for row, label in enumerate(labels):
        if _is_missing(label):
            ids.append(NO_LABEL)
            continue
        if isinstance(label, bool) or not isinstance(label, (int, np.integer, float, np.floating, str)):
            raise TypeError(
                f"{where(row)}: label {label!r} is a {type(label).__name__}; expected an integer id or a label's name"
            )
        named = name_ids.get(label) if isinstance(label, str) else None
        label_id = _as_integer(label) if named is None else named
        label_id = translated.get(label_id, label_id) if label_id is not None else None
        if label_id is None or label_id < 0 or (id2label is not None and label_id not in id2label):
            raise ValueError(f"{where(row)}: {_why_no_label(label, label_id, id2label)}")
        ids.append(label_id)
    return np.array(ids, dtype=np.int64)


def label_array(
    labels: Sequence[Any],
    id2label: Mapping[int, str] | None,
    problem_type: str | None,
    where: Callable[[int], str],
    class_names: Sequence[str] = (),
) -> NDArray[Any]:
    """Labels in the form that losses and metrics of the problem type take; `labelled_rows` tells which are missing.

    single_label_classification: int64 (rows,), see `label_ids`. regression: float32 (rows,), or (rows, outputs) where
    `id2label` has several. multi_label_classification: float32 (rows, labels), 1 for each label of a row and 0 for the
    others; a row gives the list of its labels' ids or names, [] for none.

    problem_type None: regression where `id2label` has one label; multi-label where a row's label is a list.

    Raises ValueError or TypeError naming the row.
    """
    if problem_type is None and id2label is not None:
        several = any(isinstance(label, (list, tuple, np.ndarray)) for label in labels)
        problem_type = REGRESSION if len(id2label) == 1 else MULTI_LABEL if several else None
    if problem_type == REGRESSION:
        return _numbers(labels, len(id2label or {0: ""}), where)
    if problem_type == MULTI_LABEL:
        return _indicators(labels, id2label or {}, where, class_names)
    return label_ids(labels, id2label, where, class_names)


def labelled_rows(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of a `label_array` have a label, bool (rows,)."""
    if labels.dtype.kind != "f":
        return np.asarray(labels != NO_LABEL)
    return np.asarray(~np.isnan(labels.reshape(len(labels), -1)).any(axis=1))


def unlabelled(labels: NDArray[Any]) -> NDArray[Any]:
    """What a `label_array` of this form says of as many rows without a label."""
    return np.full_like(labels, np.nan if labels.dtype.kind == "f" else NO_LABEL)


def _numbers(labels: Sequence[Any], outputs: int, where: Callable[[int], str]) -> NDArray[np.float32]:
    values = np.full((len(labels), outputs), np.nan, dtype=np.float32)
    for row, label in enumerate(labels):
        if not isinstance(label, (list, tuple, np.ndarray)) and (label is None or label == ""):
            continue
        try:
            given = np.atleast_1d(np.asarray(label, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where(row)}: label {label!r} is not a number; expected one for a regression") from error
        if given.shape != (outputs,) or np.isinf(given).any():
            raise ValueError(f"{where(row)}: label {label!r}; the regression expects {outputs} finite number(s)")
        values[row] = given
    return values[:, 0] if outputs == 1 else values


def _indicators(
    labels: Sequence[Any], id2label: Mapping[int, str], where: Callable[[int], str], class_names: Sequence[str]
) -> NDArray[np.float32]:
    values = np.full((len(labels), len(id2label)), np.nan, dtype=np.float32)
    for row, label in enumerate(labels):
        several = isinstance(label, (list, tuple, np.ndarray))
        if not several and _is_missing(label):
            continue
        if not several:
            raise TypeError(
                f"{where(row)}: label {label!r} is no list; expected the list of a row's labels, such as [{label!r}], "
                "or [] for none"
            )
        given = list(label)
        if len(given) == len(id2label) and _is_indicator(given):
            if not set(given) <= {0.0, 1.0}:
                raise ValueError(f"{where(row)}: label {label!r}; expected 0.0 or 1.0 for each label")
            values[row] = given  # what transformers' users write: a number for each label
            continue
        if len(set(given)) < len(given):
            raise ValueError(
                f"{where(row)}: label {label!r} names a label twice; expected a row's labels, or 0.0 or 1.0 for each"
            )
        values[row] = 0
        values[row, label_ids(given, id2label, lambda _, row=row: where(row), class_names)] = 1  # type: ignore[misc]
    return values


def _is_indicator(label: Any) -> bool:
    """Whether a row's label is a list of floats, as transformers' users write them: 0.0 or 1.0 for each label."""
    several = isinstance(label, (list, tuple, np.ndarray)) and len(label) > 0
    return several and all(isinstance(value, (float, np.floating)) for value in label)


def _translation(class_names: Sequence[str], id2label: Mapping[int, str]) -> dict[int, int]:
    """Source's id -> model's id, when both have the same names (in any case); else nothing."""
    ids = {name.lower(): index for index, name in id2label.items()}
    if len(ids) < len(id2label) or {name.lower() for name in class_names} != ids.keys():
        return {}
    return {index: ids[name.lower()] for index, name in enumerate(class_names)}


def _why_no_label(label: Any, label_id: int | None, id2label: Mapping[int, str] | None) -> str:
    if label_id == -1:
        return (
            "label -1 is how GLUE marks rows whose label is withheld (its test sets); leave the label empty, or the "
            "column out (remove_columns), to use such rows without a label"
        )
    if id2label is None:
        return f"label {label!r} is not an id of 0 or more; give id2label= when labels are names"
    known = ", ".join(f"{index} ({name})" for index, name in sorted(id2label.items()))
    if label_id is None and _is_number(label):
        return f"label {label!r} is not one of the model's labels: {known}; {_HOW_TO_LEARN_NUMBERS}"
    return (
        f"label {label!r} is not one of the model's labels: {known}; to train on other labels, load the model with "
        "ignore_mismatched_sizes=True (--ignore-mismatched-sizes)"
    )


def _is_missing(label: Any) -> bool:
    if isinstance(label, (float, np.floating)):
        return math.isnan(label)
    return label is None or label == "" or (not isinstance(label, bool) and label == NO_LABEL)


def _as_integer(label: Any) -> int | None:
    """The whole number that a label is or spells, or None."""
    if isinstance(label, (int, np.integer)):
        return int(label)
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _is_number(label: Any) -> bool:
    try:
        return math.isfinite(float(label))
    except (TypeError, ValueError):
        return False


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.columns[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"{table.where(row)}: column {column!r} holds {value!r} of type {type(value).__name__}; expected text"
            )
    return values
