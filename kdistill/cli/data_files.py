"""The rows that a command's options name: files with `--columns`, `--delimiter`, `--quoted` and `--encoding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.files import DataFile, FileFormat

_TABS = ("tab", "\\t")
FORMAT = ("columns", "delimiter", "quoted", "encoding")
"""Options about how files of rows are written."""


def data_file(path: str, options: Mapping[str, Any]) -> DataFile:
    """Return the file at `path`, written as the options of `FORMAT` describe; None where they were not given."""
    return DataFile(path, file_format(options))


def file_format(options: Mapping[str, Any], kind: str | None = None) -> FileFormat:
    """Return the format that the options of `FORMAT` describe, for a name without an ending of this kind.

    Raises:
        ValueError: `--columns` names a column twice or not at all, or `--delimiter` is no character.
    """
    columns, delimiter = options["columns"], options["delimiter"]
    return FileFormat(
        kind,
        delimiter="\t" if delimiter in _TABS else delimiter,
        quoted=options["quoted"],
        column_names=None if columns is None else tuple(name.strip() for name in columns.split(",")),
        encoding=options["encoding"] or "utf-8",
    )
