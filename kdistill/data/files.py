"""Read files of rows into columns: TSV, CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..system.names import listing
from .class_names import class_names_of_schema
from .json_rows import read_json
from .table import Table

COMPRESSED = (".gz", ".xz")
# A compressed file may hold this many times its bytes, or this many: English text takes 3 to 5 times.
GREATEST_RATIO = 100
LEAST_LIMIT_BYTES = 16 << 20
KINDS = ".tsv, .csv, .jsonl or .json (each also with .gz or .xz) or .parquet"
_DELIMITERS = {"tsv": "\t", "csv": ","}
_ROW_A_LINE = ("jsonl", "ndjson")
_KINDS = ("tsv", "csv", "json", "parquet")
# A field that a program has quoted, with a quote doubled in it; text with quotes of its own is rarely written so.
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_FIELD_LIMIT = threading.Lock()


@dataclass(frozen=True)
class FileFormat:
    """How a file of rows is written, as far as that does not follow from its name.

    Attributes:
        kind: "tsv", "csv", "json" or "parquet", for a name with another ending.
        delimiter: the character between the columns of a TSV (default: a tab) or CSV (a comma).
        quoted: whether fields may stand in quotes, with quotes in them doubled (default: in a CSV, not in a TSV).
        column_names: names of the columns of a TSV or CSV without a header line.
        field: where the rows of a JSON file are: the name in the object that the file consists of.
        encoding: of the text.
    """

    kind: str | None = None
    delimiter: str | None = None
    quoted: bool | None = None
    column_names: Sequence[str] | None = None
    field: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"delimiter is {self.delimiter!r}; expected one character, such as ';' or a tab")


@dataclass(frozen=True)
class DataFile:
    """A file of rows with its format. It is a path, too (`os.PathLike`)."""

    path: str
    format: FileFormat = field(default_factory=FileFormat)

    def __fspath__(self) -> str:
        return self.path

    def read(self) -> Table:
        """Read the columns, see `read_file`."""
        return read_file(Path(self.path), self.format)


def read_file(path: Path, how: FileFormat | str | None = None) -> Table:
    """Read the columns of a file, by default in UTF-8.

    A TSV is read as GLUE writes it: a header line, no quoting, a tab between columns. A CSV has a header and quotes
    fields with commas, quotes (doubled) or newlines in them, after RFC 4180. All values of both are text. JSON is read
    as `json_rows.read_json` describes.

    Args:
        path: the file; its name ends with its kind.
        how: its format, or the kind alone.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.
        ValueError: the kind is unknown, an option does not belong to it, or a row is broken or ragged (with file and
            line number).
    """
    if not path.is_file():
        found = "is a directory; name a file in it" if path.is_dir() else "does not exist"
        if path.exists() and not path.is_dir():
            found = "is a pipe or device; save its content as a file"
        raise FileNotFoundError(f"{path} {found}; expected a {KINDS} file")
    how = FileFormat(how) if how is None or isinstance(how, str) else how
    suffix = (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower().removeprefix(".")
    named = "json" if suffix in _ROW_A_LINE else suffix
    kind = named if named in _KINDS else how.kind
    if kind is None or kind not in _KINDS:
        raise ValueError(f"{path}: unknown file type; expected a {KINDS} file")
    _check_format(path, kind, how)
    if kind == "parquet":
        return _read_parquet(path)
    text = _decoded(path, _decompressed(path), how.encoding)
    if kind == "json":
        return read_json(path, text, how.field, row_a_line=suffix in _ROW_A_LINE)
    quoted = kind == "csv" if how.quoted is None else how.quoted
    delimiter = how.delimiter or _DELIMITERS[kind]
    records = _quoted_records(path, text, delimiter) if quoted else _plain_records(text, delimiter)
    return _fields_table(path, records, delimiter, quoted, how)


def _check_format(path: Path, kind: str, how: FileFormat) -> None:
    """Raise ValueError for an option of another kind of file, which would have no effect."""
    of_fields = {"delimiter": how.delimiter, "quoted": how.quoted, "column_names": how.column_names}
    wrong = {"field": how.field} if kind != "json" else of_fields
    if kind == "parquet":
        wrong = {**of_fields, **wrong}
    for name, value in wrong.items():
        if value is not None:
            raise ValueError(f"{name} is {value!r}, which does not apply to {path}, a {kind} file; leave it out")


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    if not content:
        raise ValueError(f"{path} is empty; expected rows")
    try:
        # With a byte order mark or without.
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding.lower() in ("utf-8", "utf8") else encoding
        raise ValueError(f"{path}:{line}: not {name} ({error.reason}); convert the file, e.g. with iconv") from error
    except LookupError as error:
        raise ValueError(
            f"encoding is {encoding!r}; expected one that Python knows, such as utf-8 or latin-1"
        ) from error


def _decompressed(path: Path) -> bytes:
    if path.suffix not in COMPRESSED:
        return path.read_bytes()
    import lzma  # not at the top: Python can be built without it

    most = max(LEAST_LIMIT_BYTES, GREATEST_RATIO * path.stat().st_size)
    try:
        with gzip.open(path) if path.suffix == ".gz" else lzma.open(path) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if len(content) > most:
        raise ValueError(
            f"{path} holds more than {most} bytes in {path.stat().st_size}: text does not compress that well"
        )
    return content


_Records = Iterator[tuple[int, list[str]]]
"""(number of the first line, fields) of each record, the header's first."""


def _plain_records(text: str, delimiter: str) -> _Records:
    # Not str.splitlines: sentences may hold U+0085 or U+2028, which it takes for line ends. Old Macs end lines with \r.
    lines = text.split("\n") if "\n" in text else text.split("\r")
    lines = [line.removesuffix("\r") for line in lines]
    # Nothing follows the last line end, and an empty line can only be a row where there is one column.
    if not lines[-1]:
        lines.pop()
    while delimiter in lines[0] and not lines[-1]:
        lines.pop()
    return ((number, line.split(delimiter)) for number, line in enumerate(lines, start=1))


def _quoted_records(path: Path, text: str, delimiter: str) -> _Records:
    records: list[tuple[int, list[str]]] = []
    with _fields_of_any_length():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while True:
            first_line = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{path}:{first_line}: {error}") from error
            if fields is None:
                return iter(records)
            if fields:
                records.append((first_line, fields))


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the limit of 131,072 characters a field, which the csv module keeps for the whole process."""
    with _FIELD_LIMIT:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def _fields_table(path: Path, records: _Records, delimiter: str, quoted: bool, how: FileFormat) -> Table:
    """Make a table of records; every one must have as many fields as the header."""
    header = list(how.column_names) if how.column_names is not None else next(records, (1, [""]))[1]
    if how.delimiter is None and delimiter == "," and len(header) == 1 and ";" in header[0]:
        raise ValueError(
            f"{path}:1: one column {header[0]!r}: separated by semicolons? Expected commas; give --delimiter ';' (in "
            "Python load_dataset(..., delimiter=';')), or save it with commas"
        )
    if not any(header) or len(set(header)) < len(header):
        raise ValueError(f"{path}:1: expected a header line of different column names, found {header!r}")
    places, rows = [], []
    for line, fields in records:
        if len(fields) != len(header):
            raise ValueError(
                f"{path}:{line}: {len(fields)} fields; the header names {len(header)} columns ({listing(header)})"
                f"{'' if quoted or not any(map(_begins_quoted, fields)) else _HOW_TO_READ_QUOTES}"
            )
        places.append(f"{path}:{line}")
        rows.append(fields)
    if not quoted and how.quoted is None:
        _warn_of_quotes(path, rows)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(str(path), dict(zip(header, columns, strict=True)), places)


_HOW_TO_READ_QUOTES = (
    "; where the fields are quoted, as pandas writes them, give --quoted (in Python load_dataset(..., quoting=0))"
)


def _begins_quoted(field: str) -> bool:
    return field.startswith('"') and (field.count('"') % 2 == 1)


def _warn_of_quotes(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Warn of a TSV whose fields a program has quoted: all that begin with a quote are, and quotes in them doubled."""
    suspects = [field for fields in rows for field in fields if field.startswith('"')]
    quoted = sum(_QUOTED_FIELD.fullmatch(field) is not None for field in suspects)
    if quoted and all(
        len(field) > 1 and field.endswith('"') and not field[1:-1].replace('""', "").count('"') for field in suspects
    ):
        warnings.warn(
            f"{path}: {quoted} fields seem to be quoted, such as "
            f"{next(filter(_QUOTED_FIELD.fullmatch, suspects))[:60]}, and their quotes are read as text"
            f"{_HOW_TO_READ_QUOTES}",
            stacklevel=4,
        )


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('reading Parquet files needs pyarrow: pip install "kdistill[data]"') from error
    try:
        # What is damaged can be an OSError, too; text that is not UTF-8 is found when it becomes Python's.
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_one_line(error)}") from error
    columns = {name: _python_values(path, name, table.column(index)) for index, name in enumerate(table.column_names)}
    return Table(str(path), columns, class_names=class_names_of_schema(table.schema))


def _python_values(path: Path, name: str, column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, OSError) as error:
        row = next(row for row in range(len(column)) if not _can_be_read(column[row].as_py))
        raise ValueError(f"row {row} of {path}: column {name!r} cannot be read: {_one_line(error)}") from error
    return values


def _can_be_read(value: Callable[[], Any]) -> bool:
    try:
        value()
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
