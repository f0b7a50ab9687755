"""Rows of text as people have them: files, lists, data sets; read into columns, then into texts, pairs and labels."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Column names by convention, the first that a table has; a pair goes before a single text.
TEXT_PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
TEXT_COLUMNS = ("sentence", "text")
LABEL_COLUMNS = ("label", "labels", "gold_label")
COMPRESSED = (".gz", ".xz")
# Label id of a row without a label; transformers and PyTorch ignore the same number.
NO_LABEL = -100


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and where they came from.

    lines: line number in the file for each row, or None when the rows did not come from a file of lines.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int] | None = None

    def where(self, row: int) -> str:
        """Place of a row for a message: `train.tsv:17`, or `row 16 of the list`."""
        return f"row {row} of {self.source}" if self.lines is None else f"{self.source}:{self.lines[row]}"


@dataclass(frozen=True)
class Rows:
    """Texts with their pairs (or None) and labels (or None), and the table they came from.

    A label is what the source holds: an id, a name, or None (in a file: empty) for a row without one.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None
    table: Table

    def __len__(self) -> int:
        return len(self.texts)

    def label_ids(self, id2label: Mapping[int, str] | None = None) -> NDArray[np.int64]:
        """Label ids, int64 (rows,), NO_LABEL where there is none; see `label_ids`."""
        if self.labels is None:
            return np.full(len(self), NO_LABEL, dtype=np.int64)
        return label_ids(self.labels, id2label, self.table.where)

    def id2label(self) -> dict[int, str]:
        """Label map that these rows imply, for a model that has none yet.

        Labels that are ids give LABEL_0, LABEL_1, ... up to the largest; names are numbered in sorted order.
        Raises ValueError when no row has a label.
        """
        values = {str(label) for label in self.labels or () if not _is_missing(label)}
        if not values:
            raise ValueError(f"{self.table.source} has no labels; its columns are {_listing(self.table.columns)}")
        if all(_as_integer(value) is not None for value in values):
            return {index: f"LABEL_{index}" for index in range(int(self.label_ids().max()) + 1)}
        return dict(enumerate(sorted(values)))


def read_rows(
    source: Any,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Rows:
    """Read texts, pairs and labels; `read_table` says what a source may be.

    Columns not named are found by convention: `sentence` or `text`, or a pair such as `sentence1`/`sentence2` or
    `premise`/`hypothesis`; `label`, `labels` or `gold_label`. A source without a label column gives labels None.

    Raises ValueError for a missing column (and says which there are), an empty source or a ragged row (file and line
    number), TypeError for a text that is not a string.
    """
    return rows_of(
        read_table(source), text_column=text_column, text_pair_column=text_pair_column, label_column=label_column
    )


def rows_of(table: Table, *, text_column: str | None, text_pair_column: str | None, label_column: str | None) -> Rows:
    """The rows of a table; arguments and errors as in `read_rows`."""
    for argument, column in (
        ("text_column", text_column),
        ("text_pair_column", text_pair_column),
        ("label_column", label_column),
    ):
        if column is not None and column not in table.columns:
            raise ValueError(
                f"{argument}={column!r}: {table.source} has no such column; its columns are {_listing(table.columns)}"
            )
    if text_column is None and text_pair_column is None:
        pair = next((pair for pair in TEXT_PAIR_COLUMNS if set(pair) <= set(table.columns)), (None, None))
        text_column, text_pair_column = pair
    text_column = text_column or next((name for name in TEXT_COLUMNS if name in table.columns), None)
    if text_column is None:
        raise ValueError(
            f"{table.source} has no text column: expected one of {_listing(TEXT_COLUMNS)}, or a pair such as sentence1 "
            f"and sentence2; its columns are {_listing(table.columns)}. Pass text_column= (and text_pair_column=)"
        )
    label_column = label_column or next((name for name in LABEL_COLUMNS if name in table.columns), None)
    texts = _texts(table, text_column)
    if not texts:
        raise ValueError(f"{table.source} has no rows")
    return Rows(
        texts=texts,
        pairs=None if text_pair_column is None else _texts(table, text_pair_column),
        labels=None if label_column is None else list(table.columns[label_column]),
        table=table,
    )


def label_ids(
    labels: Iterable[Any], id2label: Mapping[int, str] | None, where: Callable[[int], str]
) -> NDArray[np.int64]:
    """Ids of labels given as ids or names; None, NaN, "" and NO_LABEL become NO_LABEL.

    id2label: the model's label map; without it only ids are understood and no upper bound is checked.
    where: place of a row, for messages.

    Raises ValueError for an id outside the label map (GLUE's -1 with its reason) or an unknown name, TypeError for
    anything but an integer or a string.
    """
    name_ids = {name: index for index, name in (id2label or {}).items()}
    ids = []
    for row, label in enumerate(labels):
        if _is_missing(label):
            ids.append(NO_LABEL)
            continue
        if isinstance(label, bool) or not isinstance(label, (int, np.integer, str)):
            raise TypeError(
                f"{where(row)}: label {label!r} is a {type(label).__name__}; expected an integer id or a label's name"
            )
        named = name_ids.get(label) if isinstance(label, str) else None
        label_id = _as_integer(label) if named is None else named
        if label_id is None or label_id < 0 or (id2label is not None and label_id not in id2label):
            raise ValueError(f"{where(row)}: {_why_no_label(label, label_id, id2label)}")
        ids.append(label_id)
    return np.array(ids, dtype=np.int64)


def _why_no_label(label: Any, label_id: int | None, id2label: Mapping[int, str] | None) -> str:
    if label_id == -1:
        return (
            "label -1 is how GLUE marks rows whose label is withheld (its test sets); leave the label empty, or the "
            "column out, to use such rows without a label"
        )
    if id2label is None:
        return f"label {label!r} is not an id of 0 or more; give id2label= when labels are names"
    known = ", ".join(f"{index} ({name})" for index, name in sorted(id2label.items()))
    return f"label {label!r} is not one of the model's labels: {known}"


def _is_missing(label: Any) -> bool:
    if isinstance(label, (float, np.floating)):
        return math.isnan(label)
    return label is None or label == "" or (not isinstance(label, bool) and label == NO_LABEL)


def _as_integer(label: Any) -> int | None:
    try:
        return int(label)
    except ValueError:
        return None


def _texts(table: Table, column: str) -> list[str]:
    values = list(table.columns[column])
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"{table.where(row)}: column {column!r} holds {value!r} of type {type(value).__name__}; expected text"
            )
    return values


def read_table(source: Any) -> Table:
    """Read columns from a file or from objects.

    source: path of a .tsv, .csv, .jsonl (each also with .gz or .xz) or .parquet file (extra `[data]`), UTF-8; a list of
    texts; a list of dicts; a dict of columns; a `datasets.Dataset` or a pandas frame. A TSV is read as GLUE writes it:
    a header line, no quoting, a tab between columns. A CSV has a header and may quote.

    Raises FileNotFoundError, ValueError (unknown kind of file, broken or ragged row with file and line number) or
    TypeError (an object that is none of these).
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    if isinstance(source, Mapping):
        return _columns_table(source, "the dict")
    if hasattr(source, "column_names"):
        return _columns_table({name: list(source[name]) for name in source.column_names}, "the data set")
    if hasattr(source, "columns"):
        return _columns_table({str(name): source[name].tolist() for name in source.columns}, "the data frame")
    if isinstance(source, Sequence):
        if all(isinstance(row, str) for row in source):
            return Table("the list", {TEXT_COLUMNS[0]: source})
        if all(isinstance(row, Mapping) for row in source):
            return _records_table(source, "the list", None)
    raise TypeError(
        f"a data set given as {type(source).__name__}; expected the path of a file, a list of texts, a list of dicts, "
        "a dict of columns, a datasets.Dataset or a data frame"
    )


def _read_file(path: Path) -> Table:
    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {kind}; expected a .tsv, .csv, .jsonl or .parquet file")
    suffix = (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    readers = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    if suffix not in readers:
        raise ValueError(
            f"{path}: unknown kind of file; expected .tsv, .csv, .jsonl (also with .gz or .xz) or .parquet"
        )
    content = _decompressed(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv") from error
    return readers[suffix](path, text)


def _decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix not in COMPRESSED:
        return content
    import lzma  # not at the top: Python can be built without it

    try:
        return gzip.decompress(content) if path.suffix == ".gz" else lzma.decompress(content)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_tsv(path: Path, text: str) -> Table:
    # Not str.splitlines: sentences may hold U+0085 or U+2028, which it takes for line ends.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
    # What follows the last line end is no line; and an empty line can only be a row where there is one column.
    if not lines[-1]:
        lines.pop()
    while len(header) > 1 and not lines[-1]:
        lines.pop()
    return _fields_table(path, header, ((number, line.split("\t")) for number, line in enumerate(lines[1:], start=2)))


def _read_csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)

    def records() -> Iterable[tuple[int, list[str]]]:
        while True:
            first_line = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{path}:{first_line}: {error}") from error
            if fields is None:
                return
            if fields:
                yield first_line, fields

    rows = iter(records())
    _, header = next(rows, (1, []))
    return _fields_table(path, header, rows)


def _fields_table(path: Path, header: list[str], records: Iterable[tuple[int, list[str]]]) -> Table:
    """Table of (line number, fields) records; every one must have as many fields as the header."""
    if not any(header) or len(set(header)) < len(header):
        raise ValueError(f"{path}:1: expected a header line of different column names, found {header!r}")
    lines, rows = [], []
    for line, fields in records:
        if len(fields) != len(header):
            raise ValueError(
                f"{path}:{line}: {len(fields)} fields; the header names {len(header)} columns ({_listing(header)})"
            )
        lines.append(line)
        rows.append(fields)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(str(path), dict(zip(header, columns, strict=True)), lines)


def _read_jsonl(path: Path, text: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
        records.append(record)
        lines.append(number)
    return _records_table(records, str(path), lines)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('reading Parquet files needs pyarrow: pip install "kdistill[data]"') from error
    return Table(str(path), pyarrow.parquet.read_table(path).to_pydict())


def _records_table(records: Sequence[Mapping[str, Any]], source: str, lines: Sequence[int] | None) -> Table:
    """Table of dicts; a key that a row lacks is None there, so that a missing text is found with its row."""
    names = dict.fromkeys(name for record in records for name in record)
    return Table(source, {name: [record.get(name) for record in records] for name in names}, lines)


def _columns_table(columns: Mapping[str, Any], source: str) -> Table:
    for name, values in columns.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise TypeError(f"column {name!r} of {source} is a {type(values).__name__}; expected a list")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of {source} differ in length: {lengths}")
    return Table(source, columns)


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
