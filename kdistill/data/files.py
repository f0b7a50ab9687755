"""Read files of rows into columns: TSV, CSV, plain text, JSON and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ..system.names import listing
from .class_names import class_names_of_schema
from .conll import read_conll
from .folders import read_folder
from .headers import header_that_is_a_row, word_with_its_tag
from .json_rows import read_json
from .patterns import is_pattern, joined, matching_paths
from .table import Table
from .text_files import decoded, lines_of, read_documents, read_lines

COMPRESSED = (".gz", ".xz")
# A compressed file may hold this many times its bytes, or this many: English text takes 3 to 5 times.
GREATEST_RATIO = 100
LEAST_LIMIT_BYTES = 16 << 20
KINDS = ".tsv, .csv, .txt, .jsonl, .json or .conll (each also with .gz or .xz) or .parquet"
DELIMITERS = {"tsv": "\t", "csv": ",", "txt": "\t"}
ROW_A_LINE = ("jsonl", "ndjson")
DOCUMENTS = "documents"
"""The kind of a .txt file of running text, see `text_files.read_documents`."""
TOKEN_HEADER = "tokens.json"
"""The file by which a directory of token files is known."""
_KINDS = ("tsv", "csv", "txt", "json", "parquet", "conll", DOCUMENTS)
_WORD_A_LINE = ("iob", "iob2", "bio", "bioes")  # other endings of such files
# A field that a program has quoted, with a quote doubled in it; text with quotes of its own is rarely written so.
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_FIELD_LIMIT = threading.Lock()


@dataclass(frozen=True)
class FileFormat:
    """How a file of rows is written, as far as that does not follow from its name.

    Attributes:
        kind: "tsv", "csv", "txt", "json", "parquet", "conll" or "documents", for a name with another ending. "conll", a
            word and its tag a line, goes before the endings .txt and .tsv, and "documents", running text, before .txt.
        delimiter: the character between the columns of a TSV or .txt (default: a tab) or CSV (a comma).
        quoted: whether fields may stand in quotes, with quotes in them doubled (default: in a CSV alone).
        column_names: names of the columns of a TSV, CSV or .txt without a header line, or of the values in the lists
            that the rows of a JSON file are.
        field: where the rows of a JSON file are: the name in the object that the file consists of. The path may name it
            too, as in `rows.json#train`.
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
        names = self.column_names
        if names is not None and (not names or not all(names) or len(set(names)) < len(names)):
            raise ValueError(f"the column names are {listing(map(repr, names))}; expected different names")


@dataclass(frozen=True)
class DataFile:
    """A file of rows with its format, or several that a pattern stands for. It is a path, too (`os.PathLike`)."""

    path: str
    format: FileFormat = field(default_factory=FileFormat)

    def __fspath__(self) -> str:
        return self.path

    @cached_property
    def table(self) -> Table:
        """The columns, which are read when first asked for, see `read_file`."""
        return read_file(Path(self.path), self.format)


def read_file(path: Path, how: FileFormat | str | None = None) -> Table:
    """Read the columns of a file, by default in UTF-8, of a folder of texts, or of the files that a pattern stands for.

    A TSV is read as GLUE writes it: a header line, no quoting, a tab between columns. A CSV has a header and quotes
    fields with commas, quotes (doubled) or newlines in them, after RFC 4180. All values of both are text. A .txt file
    holds a text a line, unless its delimiter or its columns are given: then it is read as a TSV. JSON is read as
    `json_rows.read_json` describes, a folder as `folders.read_folder` does.

    Args:
        path: the file; its name ends with its kind. `rows.json#train` are the rows under that name in the object that a
            JSON file consists of. A pattern such as `part-*.parquet` is read as in `read_files`, in the order of names.
        how: its format, or the kind alone.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.
        ValueError: the kind is unknown, an option does not belong to it, or a row is broken or ragged (with file and
            line number), or see `read_files`.
    """
    paths = matching_paths(str(path))
    if paths == [str(path)]:
        return _read_one(path, how)
    encoded = next(filter(are_token_files, paths), None)
    if encoded is not None:
        raise ValueError(
            f"{path} stands for {encoded}, which holds token files; expected one such directory, by its name"
        )
    return read_files(list(map(Path, paths)), how, str(path))


def read_files(paths: Sequence[Path], how: FileFormat | str | None, source: str) -> Table:
    """Read the rows of files one after another, which all have the same columns; rows of JSON may leave some out.

    Args:
        paths: the files, each as in `read_file`.
        how: as in `read_file`, the same for all.
        source: what messages call them together.

    Raises:
        ValueError: also for other columns, or other names of labels, in a later file.
    """
    how = FileFormat(how) if how is None or isinstance(how, str) else how
    of_json = all(kind_of(file_and_field(path)[0], how)[0] == "json" for path in paths)
    return joined([_read_one(path, how) for path in paths], source, may_lack=of_json)


def _read_one(path: Path, how: FileFormat | str | None) -> Table:
    how = FileFormat(how) if how is None or isinstance(how, str) else how
    if are_token_files(path):
        raise ValueError(
            f"{path} holds token files, and here rows of text are read; expected the file that they were made of "
            "(token files are for training and measuring)"
        )
    if path.is_dir():
        _check_format(path, "folder", how)
        return read_folder(path, how.encoding)
    file, field_name = file_and_field(path)
    if field_name is not None:
        path, how = file, replace(how, field=field_name)
    check_is_there(path)
    kind, suffix = kind_of(path, how)
    if kind is None or kind not in _KINDS:
        raise ValueError(f"{path}: unknown file type; expected a {KINDS} file")
    _check_format(path, kind, how)
    if kind == "parquet":
        return _read_parquet(path)
    return read_content(path, _decompressed(path), replace(how, kind=kind), row_a_line=suffix in ROW_A_LINE)


def check_is_there(path: Path) -> None:
    """Raise FileNotFoundError for a path, perhaps with a `#`, that is no file and no folder."""
    file, _ = file_and_field(path)
    if file.is_file() or file.is_dir():
        return
    found = "is a pipe or device; save its content as a file" if path.exists() else "does not exist"
    found = "stands for no file" if is_pattern(str(path)) else found
    raise FileNotFoundError(f"{path} {found}; expected a {KINDS} file or a folder of texts")


def are_token_files(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a directory that `kdistill encode` has written, or begun to, see `token_files`."""
    return Path(path, TOKEN_HEADER).is_file()


def kind_of(path: Path, how: FileFormat) -> tuple[str | None, str]:
    """Return the kind of a file by its name and format, None for an unknown one, and the ending of its name."""
    suffix = (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower().removeprefix(".")
    named = "json" if suffix in ROW_A_LINE else "conll" if suffix in _WORD_A_LINE else suffix
    other = (named == "txt" and how.kind is not None) or (named == "tsv" and how.kind == "conll")
    by_name = named in _KINDS and not other  # .txt may be a CSV
    return (named if by_name else how.kind), suffix


def is_plain_text(path: Path) -> bool:
    """Return whether a path by its name is a .txt file, compressed perhaps."""
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower() == ".txt"


def file_and_field(path: Path) -> tuple[Path, str | None]:
    """Return the file that a path names, and the name behind its `#`, or None where the path itself is there."""
    file, sign, name = str(path).rpartition("#")
    return (Path(file), name) if sign and not path.exists() and Path(file).is_file() else (path, None)


def read_content(path: str | os.PathLike[str], content: bytes, how: FileFormat, *, row_a_line: bool = False) -> Table:
    """Return the columns of the content of a text file, whose kind `how` gives.

    Args:
        path: the file, for messages.
        content: its content, decompressed.
        how: its format.
        row_a_line: as in `json_rows.read_json`.

    Raises:
        ValueError: a row is broken or ragged, as in `read_file`.
    """
    if not content:
        raise ValueError(f"{os.fspath(path)} is empty; expected rows")
    text = decoded(path, content, how.encoding)
    assert how.kind is not None
    if how.kind == "conll":
        return read_conll(path, text)
    if how.kind == DOCUMENTS:
        return read_documents(path, text)
    if how.kind == "json":
        return read_json(Path(path), text, how.field, row_a_line=row_a_line, column_names=how.column_names)
    if how.kind == "txt" and how.delimiter is None and how.column_names is None:
        return read_lines(path, text)
    quoted = how.kind == "csv" if how.quoted is None else how.quoted
    delimiter = how.delimiter or DELIMITERS[how.kind]
    if quoted:
        lines = io.StringIO(text, newline="")
        records = iter(records_within(quoted_records(path, lines, delimiter), sys.maxsize))
    else:
        records = _plain_records(text, delimiter)
    return records_table(os.fspath(path), records, delimiter, quoted, how)


# Options of a format that files of a kind have no use for.
_WITHOUT_USE = {
    **dict.fromkeys(("tsv", "csv", "txt"), ("field",)),
    "json": ("delimiter", "quoted"),
    **dict.fromkeys(("conll", DOCUMENTS), ("delimiter", "quoted", "column_names", "field")),
    **dict.fromkeys(("parquet", "folder"), ("delimiter", "quoted", "column_names", "field")),
}


def _check_format(path: Path, kind: str, how: FileFormat) -> None:
    """Raise ValueError for an option of another kind of file, which would have no effect."""
    for name in _WITHOUT_USE[kind]:
        value = getattr(how, name)
        if value is not None:
            shown = listing(value) if name == "column_names" else repr(value)
            called = {"column_names": "column_names (--columns)"}.get(name, name)
            what = "folder" if kind == "folder" else f"{kind} file"
            raise ValueError(f"{called} is {shown}, which does not apply to {path}, a {what}; leave it out")


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


Records = Iterator[tuple[int, list[str]]]
"""(number of the first line, fields) of each record, the header's first."""


def _plain_records(text: str, delimiter: str) -> Records:
    lines = lines_of(text)
    # An empty line can only be a row where there is one column.
    while delimiter in lines[0] and not lines[-1]:
        lines.pop()
    return ((number, line.split(delimiter)) for number, line in enumerate(lines, start=1))


def quoted_records(path: str | os.PathLike[str], lines: Iterable[str], delimiter: str) -> Records:
    """Yield the records of lines whose fields may be quoted; to be read by `records_within`, which bounds no field."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{os.fspath(path)}:{first_line}: {error}") from error
        if fields is None:
            return
        if fields:
            yield first_line, fields


def records_within(records: Records, most: int) -> list[tuple[int, list[str]]]:
    """Return the next records, up to `most` of them, with fields of any length."""
    with _fields_of_any_length():
        return list(islice(records, most))


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the limit of 131,072 characters a field, which the csv module keeps for the whole process."""
    with _FIELD_LIMIT:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def records_table(path: str, records: Records, delimiter: str, quoted: bool, how: FileFormat) -> Table:
    """Make a table of records; every one must have as many fields as there are columns."""
    named = how.column_names is not None
    header = list(how.column_names or next(records, (1, [""]))[1])
    if how.delimiter is None and delimiter == "," and len(header) == 1 and ";" in header[0] and not named:
        raise ValueError(
            f"{path}:1: one column {header[0]!r}: separated by semicolons? Expected commas; give --delimiter ';' (in "
            "Python load_dataset(..., delimiter=';')), or save it with commas"
        )
    if not any(header) or len(set(header)) < len(header):
        hint = word_with_its_tag(header) or header_that_is_a_row(header)
        raise ValueError(
            f"{path}:1: expected a header line of different column names, found {header!r}{hint and f'; {hint}'}"
        )
    whose = "--columns (column_names) names" if named else "the header names"
    places: list[str] = []
    rows: list[list[str]] = []
    for line, fields in records:
        if named and not rows and fields == header:
            continue  # the file has a header all the same
        if len(fields) != len(header):
            hint = _HOW_TO_READ_QUOTES if not quoted and any(map(_begins_quoted, fields)) else ""
            if len(fields) == 1 and delimiter == "," and ";" in fields[0]:
                hint = "; separated by semicolons? Then give --delimiter ';'"
            if not named and (of_words := word_with_its_tag(header)):
                hint = f"; {of_words}"
            raise ValueError(
                f"{path}:{line}: {len(fields)} fields; {whose} {len(header)} columns ({listing(header)}){hint}"
            )
        places.append(f"{path}:{line}")
        rows.append(fields)
    if not quoted and how.quoted is None:
        _warn_of_quotes(path, rows)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(path, dict(zip(header, columns, strict=True)), places)


_HOW_TO_READ_QUOTES = (
    "; where the fields are quoted, as pandas writes them, give --quoted (in Python load_dataset(..., quoting=0))"
)


def _begins_quoted(field: str) -> bool:
    return field.startswith('"') and (field.count('"') % 2 == 1)


def _warn_of_quotes(path: str, rows: Iterable[Sequence[str]]) -> None:
    """Warn of a TSV whose fields a program has quoted: all that begin with a quote are, and quotes in them doubled."""
    suspects = [field for fields in rows for field in fields if field.startswith('"')]
    quoted = sum(_QUOTED_FIELD.fullmatch(field) is not None for field in suspects)
    if quoted and all(
        len(field) > 1 and field.endswith('"') and not field[1:-1].replace('""', "").count('"') for field in suspects
    ):
        field = next(filter(_QUOTED_FIELD.fullmatch, suspects))
        warnings.warn(
            f"{path}: {quoted} fields seem to be quoted, such as "
            f"{field if len(field) <= 60 else field[:60] + '...'}, and their quotes are read as text"
            f"{_HOW_TO_READ_QUOTES}",
            stacklevel=4,
        )


def _read_parquet(path: Path) -> Table:
    with _parquet_errors(path) as pyarrow:
        _check_names(path, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path)
    return _parquet_table(path, table)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: expected different column names, found {list(names)!r}")


def parquet_parts(path: Path, rows: int) -> Iterator[tuple[Table, float]]:
    """Yield parts of a Parquet file of at most `rows` rows, and the share of its rows read so far; errors as above."""
    with _parquet_errors(path) as pyarrow, path.open("rb") as opened:
        file = pyarrow.parquet.ParquetFile(opened)
        _check_names(path, file.schema_arrow.names)
        total, done = file.metadata.num_rows, 0
        if total == 0:
            yield _parquet_table(path, file.schema_arrow.empty_table()), 1.0
        for batch in file.iter_batches(batch_size=rows):
            part = _parquet_table(path, pyarrow.Table.from_batches([batch], file.schema_arrow), done)
            done += len(part)
            yield part, done / total


@contextmanager
def _parquet_errors(path: Path) -> Iterator[Any]:
    """Yield pyarrow, and turn its errors into those of `read_file`."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('reading Parquet files needs pyarrow: pip install "kdistill[data]"') from error
    try:
        # What is damaged can be an OSError, too; text that is not UTF-8 is found when it becomes Python's.
        yield pyarrow
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_one_line(error)}") from error


def _parquet_table(path: Path, table: Any, first: int = 0) -> Table:
    """Return Python's columns of an arrow table, whose rows are those of the file from `first` on."""
    columns = {
        name: _python_values(path, name, table.column(index), first) for index, name in enumerate(table.column_names)
    }
    places = [f"row {row} of {path}" for row in range(first, first + len(table))] if first else None
    return Table(str(path), columns, places, class_names_of_schema(table.schema))


def _python_values(path: Path, name: str, column: Any, first: int) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, OSError) as error:
        row = next(row for row in range(len(column)) if not _can_be_read(column[row].as_py))
        raise ValueError(f"row {first + row} of {path}: column {name!r} cannot be read: {_one_line(error)}") from error
    return values


def _can_be_read(value: Callable[[], Any]) -> bool:
    try:
        value()
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
