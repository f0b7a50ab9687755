"""Read a data set into a table from whatever it is given as: a file, columns, rows, a `datasets.Dataset`, a frame."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..system.names import listing
from .class_names import class_names_of_features, class_names_of_schema
from .files import DataFile, FileFormat, kind_of, read_file
from .table import Table

# Name of the column that a list of texts becomes.
TEXT_COLUMN = "sentence"


def read_table(source: Any) -> Table:
    """Read columns from a file or from objects. Values that a data frame misses become None.

    Args:
        source: the path of a file or folder, see `files.read_file`, or a `DataFile`; a list of texts; a list of dicts;
            a dict of columns; a `datasets.Dataset` in any format or IterableDataset; a pandas (or polars) frame; a
            pyarrow table; any object with a length that gives dicts by row number, as a PyTorch data set does; a table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file cannot be read, as in `read_file`, or the source has several splits.
        TypeError: an object is none of these.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, DataFile):
        return source.table
    if isinstance(source, (str, os.PathLike)):
        return read_file(Path(source))
    if isinstance(source, Mapping):
        if source and all(hasattr(value, "column_names") for value in source.values()):
            return _only_split(source)
        return _from_columns(source, "the dict")
    if hasattr(source, "column_names"):
        return _from_hub_dataset(source)
    if hasattr(source, "columns"):
        return _from_columns({str(name): source[name] for name in source.columns}, "the data frame")
    if isinstance(source, (list, tuple)) and source and all(hasattr(part, "column_names") for part in source):
        return _only_split(dict(enumerate(source)))
    if isinstance(source, Sequence) and all(isinstance(row, str) for row in source):
        if source and all(map(_is_file_of_rows, source)):
            raise ValueError(
                f"the list names files, such as {source[0]!r}; expected texts, or several files by a pattern such as "
                "'part-*.tsv', in place of a list"
            )
        return Table("the list", {TEXT_COLUMN: source})
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return _from_rows(source)
    raise TypeError(_unknown(source))


def _is_file_of_rows(text: str) -> bool:
    """Return whether a text is the name of a file that holds rows, and not itself one."""
    return kind_of(Path(text), FileFormat())[0] is not None and os.path.isfile(text)  # noqa: PTH113  # of any length


def _only_split(splits: Mapping[Any, Any]) -> Table:
    """Return the only split of a DatasetDict. Raises ValueError for several, among which the caller has to choose."""
    first = next(iter(splits))
    if len(splits) > 1:
        raise ValueError(
            f"a data set given as {len(splits)} splits ({listing(map(str, splits))}); pass one of them, such as "
            f"dataset[{first!r}]"
        )
    return read_table(splits[first])


def _from_columns(columns: Mapping[str, Any], source: str) -> Table:
    for name, values in columns.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise TypeError(f"column {name!r} of {source} is a {type(values).__name__}; expected a list")
    return Table(source, {name: _as_list(values) for name, values in columns.items()})


def _from_hub_dataset(source: Any) -> Table:
    """Read a `datasets.Dataset` or IterableDataset, in whatever format it was set to, or a pyarrow table."""
    name = "the data set"
    plain = source.with_format(None) if hasattr(source, "with_format") else source
    schema = getattr(source, "schema", None)  # a pyarrow table's
    class_names = class_names_of_features(getattr(source, "features", None)) or class_names_of_schema(schema)
    if not hasattr(source, "__len__"):  # an IterableDataset
        return replace(Table.from_records(list(plain), name), class_names=class_names)
    # All rows at once: eight times as fast as datasets' columns, which are read row by row.
    columns = plain[:] if plain is not source else {column: plain[column] for column in plain.column_names}
    table = _from_columns(columns, name)
    return replace(table, class_names=class_names)


def _from_rows(source: Any) -> Table:
    rows = [source[index] for index in range(len(source))]
    if not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(_unknown(source))
    records = [{name: _as_plain(value) for name, value in row.items()} for row in rows]
    return Table.from_records(records, "the list" if isinstance(source, list) else "the data set")


def _as_list(values: Any) -> Sequence[Any]:
    """Return a column as plain Python values, None where a data frame misses one."""
    if isinstance(values, (list, tuple)):
        return values
    method = next((name for name in ("tolist", "to_list", "to_pylist") if hasattr(values, name)), None)
    plain = list(values) if method is None else list(getattr(values, method)())
    if hasattr(values, "isna"):  # pandas has several kinds of missing values; NaN and NA among them
        plain = [None if missing else _as_plain(value) for value, missing in zip(plain, values.isna(), strict=True)]
    return plain


def _as_plain(value: Any) -> Any:
    """Return a value of a row without the array it may be wrapped in."""
    return value.tolist() if hasattr(value, "tolist") else value


def _unknown(source: Any) -> str:
    return (
        f"a data set given as {type(source).__name__}; expected the path of a file, a list of texts, a list of dicts, "
        "a dict of columns, a datasets.Dataset or a data frame"
    )
