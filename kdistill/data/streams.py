"""Read files of rows a part at a time, for more rows than fit into memory."""

from __future__ import annotations

import gzip
import json
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..system.files import distinct_names
from .files import (
    COMPRESSED,
    DELIMITERS,
    ROW_A_LINE,
    DataFile,
    FileFormat,
    file_and_field,
    kind_of,
    parquet_parts,
    quoted_records,
    read_file,
    records_table,
    records_within,
)
from .json_rows import rows_of_values
from .table import Table
from .text_files import PLAIN_TEXT_COLUMN, decoded, warn_of_tabs

# An object of JSON that spans lines has at most this many characters; with more, a broken line would have all others
# read before it is named.
_LONGEST_VALUE = 1 << 20
_PROBED = 1 << 16  # bytes of a file that show how its lines end


class Part(NamedTuple):
    """Some rows of a file that follow each other, and which share of its bytes is read once they are."""

    table: Table
    share: float


def stamp_of(file: DataFile) -> dict[str, Any]:
    """Return what shows that a file is still the same, or all those in a folder."""
    path, _ = file_and_field(Path(file.path))
    states = [each.stat() for each in (path, *(path.rglob("*") if path.is_dir() else ())) if each.exists()]
    return {
        "path": str(Path(file.path).absolute()),
        "format": repr(file.format),
        "size": sum(state.st_size for state in states if not stat.S_ISDIR(state.st_mode)),
        "mtime_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def parts_of(file: DataFile, rows: int) -> Iterator[Part]:
    """Yield the rows of a file in parts, with the columns, places and errors of `files.read_file`.

    Parquet, JSON Lines (.jsonl, .ndjson, or .json with an object in its first line), TSV, CSV and .txt with a text a
    line are never whole in memory, whether compressed or not. Others are read whole and cut: a JSON list, running text,
    CoNLL, folders, and text in UTF-16 or with the line ends of old Macs.

    Args:
        file: the file.
        rows: those of a part, at most.
    """
    path, how = Path(file.path), file.format
    kind = _streamed_kind(path, how)
    if kind == "parquet":
        yield from (Part(table, share) for table, share in parquet_parts(path, rows))
    elif kind is None:
        yield from _cut(read_file(path, how), rows)
    else:
        with _reading(path), _opened(path) as (content, position):
            size = max(path.stat().st_size, 1)
            lines = _Lines(path, content, how.encoding)
            for table in _tables(path, kind, lines, how, rows):
                yield Part(table, min(position() / size, 1.0))


def _streamed_kind(path: Path, how: FileFormat) -> str | None:
    """Return the kind of a file that is read in parts; None for one that `read_file` reads whole, or refuses."""
    kind, suffix = kind_of(path, how)
    of_lines = (how.delimiter, how.quoted, how.column_names) == (None, None, None)
    if not path.is_file() or how.field is not None or kind not in (*DELIMITERS, "json", "parquet"):
        return None
    if kind in ("json", "parquet") and not of_lines:
        return None
    if kind == "parquet":
        return kind
    with _reading(path), _opened(path) as (content, _):
        first = content.readline(_LONGEST_VALUE)
        more = content.read(_PROBED)
    if not first or b"\0" in first + more or b"\n" not in first:  # empty, UTF-16, a line or those of old Macs
        return None
    if kind == "json":
        rows = first.lstrip().startswith(b"{") if suffix in ROW_A_LINE else _is_object(first)
        return kind if rows and more.strip() else None
    return kind


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the content of a file, decompressed, and a function that returns how many of its bytes are read."""
    with path.open("rb") as file:
        if path.suffix not in COMPRESSED:
            yield file, file.tell
            return
        import lzma  # not at the top: Python can be built without it

        with gzip.open(file) if path.suffix == ".gz" else lzma.open(file) as content:
            yield content, file.tell


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in errors of its compression."""
    import lzma

    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


class _Lines:
    """The lines of a file with their ends, decoded; each is counted."""

    def __init__(self, path: Path, content: Any, encoding: str) -> None:
        self._path, self._content, self._encoding = path, content, encoding
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._content.readline()
        if not line:
            raise StopIteration
        self.read += 1
        return decoded(self._path, line, self._encoding, first_line=self.read)


def _tables(path: Path, kind: str, lines: _Lines, how: FileFormat, rows: int) -> Iterator[Table]:
    if kind == "json":
        values = _values(path, lines)
        while found := list(islice(values, rows)):
            yield rows_of_values(str(path), [value for _, value in found], [place for place, _ in found])
        return
    if kind == "txt" and how.delimiter is None and how.column_names is None:
        yield from _texts(path, lines, rows)
        return
    quoted = kind == "csv" if how.quoted is None else how.quoted
    delimiter = how.delimiter or DELIMITERS[kind]
    records = quoted_records(path, lines, delimiter) if quoted else _plain(lines, delimiter)
    header = records_within(records, 1) if how.column_names is None else []
    first = True  # also of a header without rows
    while (some := records_within(records, rows)) or first:
        first = False
        yield records_table(str(path), chain(header, some), delimiter, quoted, how)
        if how.column_names is not None:  # a header that is there all the same is in the first part alone
            header, how = [(1, list(how.column_names))], replace(how, column_names=None)


def _texts(path: Path, lines: _Lines, rows: int) -> Iterator[Table]:
    first = 1
    while some := [_without_end(line) for line in islice(lines, rows)]:
        if first == 1:
            warn_of_tabs(path, some)
        places = [f"{path}:{line}" for line in range(first, first + len(some))]
        yield Table(str(path), {PLAIN_TEXT_COLUMN: some}, places)
        first += len(some)


def _plain(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each line, without empty ones at the end where there are several columns."""
    empty: list[tuple[int, list[str]]] = []
    one_column: bool | None = None
    for line in lines:
        text = _without_end(line)
        if one_column is None:
            one_column = delimiter not in text
        record = (lines.read, text.split(delimiter))
        if not text and not one_column:
            empty.append(record)
            continue
        yield from empty
        empty = []
        yield record


def _values(path: Path, lines: _Lines) -> Iterator[tuple[str, Any]]:
    """Yield the file and line where each JSON value begins, and the value: one a line, several, or one over lines."""
    decoder = json.JSONDecoder(object_pairs_hook=distinct_names)
    text, line, begins = "", 0, 0
    for more in lines:
        if not text:
            line = lines.read
        text += more
        begins, error = 0, None
        while rest := text[begins:].lstrip(" \t\n\r"):
            begins = len(text) - len(rest)
            try:
                value, end = decoder.raw_decode(text, begins)
            except (ValueError, RecursionError) as found:
                error = found
                break
            yield f"{path}:{line + text.count(chr(10), 0, begins)}", value
            begins = end
        if error is None:
            text = ""
            continue
        line, text = line + text.count("\n", 0, begins), text[begins:]
        if len(text) > _LONGEST_VALUE or not isinstance(error, json.JSONDecodeError):
            raise ValueError(f"{path}:{line}: not valid JSON: {error}") from error
    if text:
        try:
            decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{line}: not valid JSON: {error}") from error


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _cut(table: Table, rows: int) -> Iterator[Part]:
    for first in range(0, max(len(table), 1), rows):
        last = min(first + rows, len(table))
        part = table if last - first == len(table) else table.select(range(first, last))
        if part is not table and table.places is None:
            part = replace(part, places=[table.where(row) for row in range(first, last)])
        yield Part(part, last / max(len(table), 1))
