"""Find texts, pairs and labels in a table: which columns hold them, by name or by convention."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .labels import LabelReader, as_integer, implied_label_map, is_missing, label_ids
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


class Columns(NamedTuple):
    """Names of the columns that hold texts, second texts and labels; None for those that are not there."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


NO_COLUMNS = Columns()


@dataclass(frozen=True)
class Rows:
    """Texts with their pairs (or None) and labels (or None), and the table they came from.

    Attributes:
        labels: as the source holds them, see `labels_of`.
        class_names: names that the source itself has for the labels 0, 1, ..., or none.
        columns: where all of that was found.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    table: Table
    class_names: Sequence[str] = ()
    columns: Columns = NO_COLUMNS

    def __len__(self) -> int:
        return len(self.texts)

    def read_labels(self, id2label: Mapping[int, str] | None = None, reader: LabelReader = label_ids) -> NDArray[Any]:
        """Return the labels as `reader` makes them, an entry for each row; all missing without a label column."""
        labels = [None] * len(self) if self.labels is None else self.labels
        return reader(labels, id2label, self.table.where, self.class_names)

    def id2label(self) -> dict[int, str]:
        """Return the label map of these rows: the names that the source states, else what the labels imply.

        Raises ValueError as `implied_label_map` does.
        """
        return (
            dict(enumerate(self.class_names)) if self.class_names else implied_label_map(self.labels or [], self.table)
        )


def read_rows(
    source: Any,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
) -> Rows:
    """Read texts, pairs and labels of a source.

    Columns not named are found by convention: `sentence` or `text`, or a pair such as `sentence1`/`sentence2` or
    `premise`/`hypothesis`; `label`, `labels` or `gold_label`. A source without a label column gives labels None.

    Args:
        source: anything that `sources.read_table` takes.
        text_column: the column of texts.
        text_pair_column: the column of second texts.
        label_column: one column, or several, see `labels_of`.
        trained_on: the columns that the model was trained on. They go before the convention where the source has them
            and no argument names others; a warning says where it has not.

    Raises:
        ValueError: a column is missing (the message lists those there are), the source is empty, or a row is ragged
            (with file and line number).
        TypeError: a text is not a string.
    """
    return rows_of(
        read_table(source),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        trained_on=trained_on,
    )


def rows_of(
    table: Table,
    *,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str | None,
    trained_on: Columns = NO_COLUMNS,
) -> Rows:
    """Return the rows of a table; arguments and errors as in `read_rows`."""
    _check_column("text_column", text_column, table)
    _check_column("text_pair_column", text_pair_column, table)
    label_column = label_column or label_column_of(table, trained_on.label)
    labels, class_names = labels_of(table, label_column)
    if text_column is None and text_pair_column is None:
        text_column, text_pair_column = _text_columns(table, trained_on)
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
        columns=Columns(text_column, text_pair_column, label_column),
    )


def _text_columns(table: Table, trained_on: Columns) -> tuple[str | None, str | None]:
    """Return the columns of the texts and of their pairs: those of the training, else a pair by convention, or none."""
    theirs = [name for name in trained_on[:2] if name is not None]
    if theirs and set(theirs) <= set(table.columns):
        return trained_on.text, trained_on.text_pair
    single = next((name for name in TEXT_COLUMNS if name in table.columns), None)
    found = next((pair for pair in TEXT_PAIR_COLUMNS if set(pair) <= set(table.columns)), (single, None))
    conventional = {*TEXT_COLUMNS, *chain.from_iterable(TEXT_PAIR_COLUMNS)}
    same_kind = (trained_on.text_pair is None) == (found[1] is None)
    if theirs and found != (None, None) and not (same_kind and conventional.issuperset(theirs)):
        _warn_of_other_columns(table, theirs, [name for name in found if name is not None])
    return found


def label_column_of(table: Table, trained_on: str | None) -> str | None:
    """Return the column of the labels: that of the training, else the first by convention, or None."""
    if trained_on is not None:
        names = [trained_on] if trained_on in table.columns else [name.strip() for name in trained_on.split(",")]
        if set(names) <= set(table.columns):
            return trained_on
    found = next((name for name in LABEL_COLUMNS if name in table.columns), None)
    if trained_on is not None and found is not None and trained_on not in LABEL_COLUMNS:
        _warn_of_other_columns(table, [trained_on], [found])
    return found


def _warn_of_other_columns(table: Table, theirs: Sequence[str], found: Sequence[str]) -> None:
    warnings.warn(
        f"the model was trained on the column {listing(theirs)}, which {table.source} lacks; {listing(found)} is read",
        stacklevel=4,
    )


def labels_of(table: Table, label_column: str | None) -> tuple[list[Any] | None, Sequence[str]]:
    """Return the labels of a table as the source holds them, or None, and the names it states for them, or none.

    A label is an id, a number, a name, a list of these, or None for a row without one. In TSV and CSV all of them are
    text, and empty where there is none; text such as `[0, 1]` or `['a', 'b']` is a list.

    Args:
        table: the table.
        label_column: the column; by default the first that is called so by convention. Several columns of 0 and 1,
            their names separated by commas, give each row the list of the columns that are 1.

    Raises:
        ValueError: a column is missing, or one of several holds anything but 0 and 1.
    """
    if label_column is None:
        label_column = label_column_of(table, None)
    if label_column is None:
        return None, ()
    if label_column not in table.columns and "," in label_column:
        columns = [name.strip() for name in label_column.split(",")]
        for name in columns:
            _check_column("label_column", name, table)
        return [_columns_that_are_1(table, columns, row) for row in range(len(table))], columns
    _check_column("label_column", label_column, table)
    labels = [_parsed_list(label) if isinstance(label, str) else label for label in table.columns[label_column]]
    return labels, table.class_names.get(label_column, ())


def _columns_that_are_1(table: Table, columns: Sequence[str], row: int) -> list[str] | None:
    """Return the names of the columns that are 1 in this row; None when all are empty."""
    values = {name: table.columns[name][row] for name in columns}
    if all(map(is_missing, values.values())):
        return None
    for name, value in values.items():
        if as_integer(value) not in (0, 1):
            raise ValueError(
                f"{table.where(row)}: column {name!r} holds {value!r}; of several label columns each is 0 or 1"
            )
    return [name for name, value in values.items() if as_integer(value)]


def _parsed_list(label: str) -> Any:
    """Return the list that a text spells as JSON or as Python writes it; any other text as it is."""
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


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.columns[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"{table.where(row)}: column {column!r} holds {value!r} of type {type(value).__name__}; expected text"
            )
    return values
