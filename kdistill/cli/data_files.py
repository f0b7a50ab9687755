"""The files of rows that a command's options name, with `--delimiter` and `--quoted`."""

from __future__ import annotations

from ..data.files import DataFile, FileFormat

_TABS = ("tab", "\\t")


def data_file(path: str, delimiter: str | None, quoted: bool | None) -> DataFile:
    """Return the file at `path`, written as the options say; None where they were not given."""
    return DataFile(path, FileFormat(delimiter="\t" if delimiter in _TABS else delimiter, quoted=quoted))
