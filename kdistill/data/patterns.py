"""Several files as one source of rows: those that a pattern such as `part-*.parquet` stands for."""

from __future__ import annotations

import glob
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, overload

from ..system.names import listing
from .class_names import LABEL_NAMES
from .label_values import as_integer, is_list, is_missing
from .table import Table


def matching_paths(pattern: str) -> list[str]:
    """Return the paths that a pattern stands for, sorted; the pattern itself where it is a path or stands for none.

    Behind a `#` it may name where the rows of JSON files are, as in `part-*.json#train`.
    """
    if os.path.lexists(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # it may begin anywhere
    if not found and "#" in pattern:
        files, _, name = pattern.rpartition("#")
        found = [f"{file}#{name}" for file in sorted(glob.glob(files, recursive=True))]  # noqa: PTH207
    return found or [pattern]


def check_each_once(paths: Sequence[str]) -> None:
    """Raise `ValueError` for a file that several names and patterns together stand for more than once."""
    times = Counter(map(os.path.abspath, paths))  # of Path, `absolute` keeps ".."
    for path in paths:
        if (often := times[os.path.abspath(path)]) > 1:  # noqa: PTH100
            raise ValueError(
                f"{path} is named {often} times, by itself or by a pattern, and each of its rows would be read "
                f"{often} times; name each file once"
            )


def is_pattern(path: str) -> bool:
    """Return whether a path that is not there is a pattern, which then stands for no file."""
    return glob.has_magic(path) and not os.path.lexists(path)


def joined(tables: Sequence[Table], source: str, *, may_lack: bool = False) -> Table:
    """Return the rows of tables one after another.

    Args:
        tables: the tables.
        source: what messages call them together.
        may_lack: whether rows leave out what they do not have, as those of JSON do: it is then None in the result.

    Raises:
        ValueError: a table has other columns than the first one, or other names for the labels in one, or numbers in
            one whose labels have names in others.
    """
    if len(tables) == 1:
        return tables[0]
    names = dict.fromkeys(tables[0].columns)
    class_names: dict[str, Sequence[str]] = {}
    for table in tables:
        lacking, more = names.keys() - table.columns.keys(), table.columns.keys() - names.keys()
        if (lacking or more) if not may_lack else (lacking and more and len(table)):
            raise ValueError(
                f"{table.where(0) if len(table) else table.source}: the columns are {listing(map(repr, table.columns))}"
                f", and in the files before it {listing(map(repr, names))}; expected the same names in all files"
            )
        names |= dict.fromkeys(table.columns)
        for column, called in table.class_names.items():
            if list(class_names.setdefault(column, called)) != list(called):
                raise ValueError(
                    f"{table.source} calls the labels in {column!r} {listing(called)}; the files before it call them "
                    f"{listing(class_names[column])}"
                )
    _check_all_are_named(tables, class_names)
    columns = {
        name: [value for table in tables for value in table.columns.get(name, [None] * len(table))] for name in names
    }
    return Table(source, columns, _Places(tables), class_names)


def _check_all_are_named(tables: Sequence[Table], class_names: Mapping[str, Sequence[str]]) -> None:
    """Raise `ValueError` for a table that numbers labels which have names in other tables, and does not say which.

    Texts mean the labels of these names; a number would mean the one at this place in the list of another file.
    """
    for column, called in class_names.items():
        for table in tables:
            if column in table.class_names:
                continue
            labels = table.columns.get(column, ())
            row = next((row for row, label in enumerate(labels) if _has_number(label)), None)
            if row is not None or (column == LABEL_NAMES and len(table)):
                what = "the teacher's answers" if row is None else f"{labels[row]!r} in {column!r}"
                raise ValueError(
                    f"{table.where(row or 0)}: no names say what {what} means, and another file calls these labels "
                    f"{listing(called)}; expected the same names in all files (metadata of Parquet), or texts"
                )


def _has_number(label: Any) -> bool:
    if is_list(label):
        return any(map(_has_number, label))
    return not is_missing(label) and as_integer(label) is not None


class _Places(Sequence[str]):
    """The places of the rows of several tables."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._ends = [*accumulate(map(len, tables))]
        self._tables = [replace(table, columns={}) for table in tables]

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        number = bisect_right(self._ends, rows)
        return self._tables[number].where(rows - (self._ends[number - 1] if number else 0))
