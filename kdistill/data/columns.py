"""Find texts, pairs and labels in a table: which columns hold them, by name or by convention."""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..system.names import did_you_mean, listing
from ..system.unicode import check_characters
from .headers import header_that_is_a_row
from .label_names import implied_label_map, warn_of_missing_marks, warn_of_other_names
from .label_values import as_boolean, as_integer, is_missing
from .labels import LabelReader, label_ids
from .sources import TEXT_COLUMN, read_table
from .table import Table

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
TOKEN_COLUMNS = ("tokens", "words")
"""Columns of lists of words, by convention; else a tagger's texts are cut into words."""
LABEL_COLUMNS = ("label", "labels", "gold_label", "is_duplicate", "Quality")
# Names that columns of labels and texts often have, which are suggested and never taken: a guess could be wrong.
_ALSO_LABELS = (
    "class",
    "category",
    "target",
    "sentiment",
    "emotion",
    "intent",
    "polarity",
    "rating",
    "stars",
    "score",
    "y",
)
# Names of columns that number rows: nobody expects them to be read.
_ROW_NUMBERS = ("idx", "id", "index", "guid")
_ALSO_TEXTS = ("sentence1", "content", "review", "comment", "document", "tweet", "body", "utterance", "message", "x")


@dataclass(frozen=True)
class ColumnUse:
    """Which columns of a source are read and which are not, and the sentences that report it.

    Attributes:
        source: the source's name, for messages.
        texts: the columns of texts or of token ids.
        labels: the columns of labels, or none.
        unused: all others.
        expected: which columns of labels there may be, to end a message; "" where their names are those of texts.
        lacking: what messages call a column of labels that is not there.
    """

    source: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    unused: tuple[str, ...]
    expected: str = ""
    lacking: str = "label column"

    @classmethod
    def of(cls, table: Table, texts: Iterable[str | None], label_column: str | None) -> ColumnUse:
        """Return what was read of a table; a `label_column` may be several, see `label_columns_of`.

        Columns of text beside token ids and labels are what the ids were made of, so they count as read.
        """
        read = tuple(name for name in texts if name is not None)
        labels = tuple(label_columns_of(table, label_column))
        tokenised = bool("input_ids" in read and labels)
        unused = tuple(
            name
            for name, values in table.columns.items()
            if name not in read + labels and not (tokenised and isinstance(values[0], str))
        )
        return cls(table.source, read, labels, unused)

    def unused_sentence(self) -> str:
        """Return the sentence that lists the unused columns; "" where there are none but numbers of rows."""
        unused = [name for name in self.unused if name.lower() not in _ROW_NUMBERS]
        if not unused:
            return ""
        labels = f"labels are in {listing(self.labels)}" if self.labels else f"there is no {self.lacking}"
        columns = "the column {} is" if len(unused) == 1 else "the columns {} are"
        return (
            f"{self.source}: {columns.format(listing(map(repr, unused)))} not used (texts are in "
            f"{listing(self.texts)}, {labels})"
        )

    def why_no_labels(self) -> str:
        """Return why no row has a label, with the column that may have been meant, as the end of a message."""
        if self.labels:
            return f"{listing(self.labels)} of {self.source} is empty in every row"
        columns = listing(map(repr, (*self.texts, *self.unused)))
        return f"{self.source} has no {self.lacking}, its columns are {columns}{self.expected or self._meant()}"

    def _meant(self) -> str:
        name = _nearest(self.unused, (*LABEL_COLUMNS, *_ALSO_LABELS))
        if name is None and len(self.unused) == 1:
            name = self.unused[0]
        if name is None:
            return ""
        return f"; did you mean --label-column {shlex.quote(name)} (in Python: rename the column to 'label')?"


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
        columns: the columns where all of that was found.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    table: Table
    class_names: Sequence[str] = ()
    columns: Columns = NO_COLUMNS

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def column_use(self) -> ColumnUse:
        """The columns that these rows were read from, and the others of the table."""
        return ColumnUse.of(self.table, self.columns[:2], self.columns.label)

    def read_labels(self, id2label: Mapping[int, str] | None = None, reader: LabelReader = label_ids) -> NDArray[Any]:
        """Return the labels as `reader` makes them, an entry for each row; all missing without a label column."""
        return read_label_column(self.labels, self.table, id2label, reader, self.class_names)

    def id2label(self, num_labels: int = 0) -> dict[int, str]:
        """Return the label map of these rows: the names that the source states, else what the labels imply.

        Argument and errors as in `implied_label_map`; ValueError also for a name that no file can hold.
        """
        implied = dict(enumerate(self.class_names)) or implied_label_map(self.labels or [], self.table, num_labels)
        for name in implied.values():
            check_characters(f"{self.table.source}: the label {name!r}", name)
        return implied


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
            and no argument names others; a warning names the columns where it has not.

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
    if text_column is None and any(name in table.columns for name in TOKEN_COLUMNS):
        raise ValueError(
            f"{table.source} has tokens, and no text column, while the model reads whole texts. Learn a tag for each "
            "token with --task token-classification, in Python with BertForTokenClassification"
        )
    if text_column is None and (hint := header_that_is_a_row(list(table.columns))):
        raise ValueError(f"{table.source} has no text column: {hint}")
    if text_column is None:
        meant = _nearest(table.columns, (*TEXT_COLUMNS, *_ALSO_TEXTS))
        raise ValueError(
            f"{table.source} has no text column: expected one of {listing(TEXT_COLUMNS)}, or a pair such as sentence1 "
            f"and sentence2; its columns are {listing(table.columns)}. Name it with "
            "--text-column (and --text-pair-column), in Python rename the column"
            f"{'' if meant is None else f'; did you mean --text-column {shlex.quote(meant)}?'}"
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
    no_choice = len(table.columns) == 1  # plain text, for example, whose column nobody named
    if theirs and found != (None, None) and not (same_kind and (no_choice or conventional.issuperset(theirs))):
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
    columns = label_columns_of(table, label_column)
    if not columns:
        return None, ()
    if len(columns) > 1:
        return [_columns_that_are_1(table, columns, row) for row in range(len(table))], columns
    (column,) = columns
    labels = [parsed_list(label) if isinstance(label, str) else label for label in table.columns[column]]
    return labels, table.class_names.get(column, ())


def label_columns_of(table: Table, label_column: str | None) -> Sequence[str]:
    """Return the columns that hold a table's labels, or none; argument and errors as in `labels_of`."""
    if label_column is None:
        found = label_column_of(table, None)
        return [] if found is None else [found]
    separate = label_column not in table.columns and "," in label_column
    columns = [name.strip() for name in label_column.split(",")] if separate else [label_column]
    for name in columns:
        _check_column("label_column", name, table)
    return columns


def read_label_column(
    labels: Sequence[Any] | None,
    table: Table,
    id2label: Mapping[int, str] | None,
    reader: LabelReader,
    class_names: Sequence[str],
) -> NDArray[Any]:
    """Return labels as `reader` makes them, an entry for each row; all missing where there are none.

    Warns of labels that are read as missing because of a mark such as `-`, and of names unlike the model's.
    """
    if labels is None:
        return reader([None] * len(table), id2label, table.where, ())
    warn_of_missing_marks(table.source, labels, (id2label or {}).values())
    read = reader(labels, id2label, table.where, class_names)
    warn_of_other_names(table.source, class_names, id2label or {})
    return read


def _columns_that_are_1(table: Table, columns: Sequence[str], row: int) -> list[str] | None:
    """Return the names of the columns that are 1 in this row; None when all are empty."""
    values = {name: table.columns[name][row] for name in columns}
    if all(map(is_missing, values.values())):
        return None
    for name, value in values.items():
        if _as_0_or_1(value) is None:
            raise ValueError(
                f"{table.where(row)}: column {name!r} holds {value!r}; of several label columns each is 0 or 1"
            )
    return [name for name, value in values.items() if _as_0_or_1(value)]


def _as_0_or_1(value: Any) -> int | None:
    number = as_integer(value)
    return number if number in (0, 1) else as_boolean(value)


def parsed_list(label: str) -> Any:
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
            f"{did_you_mean(column, table.columns)}"
        )


def _nearest(columns: Collection[str], wanted: Collection[str]) -> str | None:
    """Return the column whose name, without case, spaces and signs, is one of the wanted or nearest to one."""
    plain = {_plain(name): name for name in columns}
    names = [_plain(name) for name in wanted]
    found = next((plain[name] for name in names if name in plain), None)
    if found is not None:
        return found
    near = (match for name in names if len(name) > 1 for match in get_close_matches(name, plain, n=1, cutoff=0.75))
    return plain[match] if (match := next(near, None)) is not None else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.columns[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"{table.where(row)}: column {column!r} holds {value!r} of type {type(value).__name__}; expected text"
            )
        if not value.isascii():  # the name would be made for every row
            check_characters(f"{table.where(row)}: column {column!r}", value)
    return values
