"""Read files of rows into columns: TSV, CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .table import Table, listing

COMPRESSED = (".gz", ".xz")
# A compressed file may hold this many times its bytes, or this many: English text takes 3 to 5 times.
GREATEST_RATIO = 100
LEAST_LIMIT_BYTES = 16 << 20
KINDS = ".tsv, .csv, .jsonl or .json (each also with .gz or .xz) or .parquet"


def read_file(path: Path, kind: str | None = None) -> Table:
    """Read the columns of a file in UTF-8.

    A TSV is read as GLUE writes it: a header line, no quoting, a tab between columns. A CSV has a header and quotes
    fields with commas, quotes (doubled) or newlines in them, after RFC 4180. All values of both are text. JSON is an
    object a line, or one list of objects.

    Args:
        path: the file; its name ends with its kind.
        kind: "tsv", "csv", "json" or "parquet", for a name with another ending.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.
        ValueError: the kind is unknown, or a row is broken or ragged (with file and line number).
    """
    if not path.is_file():
        found = "is a directory; name a file in it" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {found}; expected a {KINDS} file")
    suffix = (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix.lower().removeprefix(".")
    readers = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_json, "ndjson": _read_json, "json": _read_json}
    kind = suffix if suffix in (*readers, "parquet") else kind
    if kind == "parquet":
        return _read_parquet(path)
    if kind not in readers:
        raise ValueError(f"{path}: unknown kind of file; expected a {KINDS} file")
    content = _decompressed(path)
    if not content:
        raise ValueError(f"{path} is empty; expected rows")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file, e.g. with iconv") from error
    return readers[kind](path, text)


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
        raise ValueError(f"{path} holds more than {most} bytes in {path.stat().st_size}: no text compresses so well")
    return content


def _read_tsv(path: Path, text: str) -> Table:
    # Not str.splitlines: sentences may hold U+0085 or U+2028, which it takes for line ends.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
    # Nothing follows the last line end, and an empty line can only be a row where there is one column.
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
    if len(header) == 1 and ";" in header[0]:
        raise ValueError(
            f"{path}:1: one column {header[0]!r}: separated by semicolons? Expected commas; save it with them or as TSV"
        )
    return _fields_table(path, header, rows)


def _fields_table(path: Path, header: list[str], records: Iterable[tuple[int, list[str]]]) -> Table:
    """Make a table of (line number, fields) records; every one must have as many fields as the header."""
    if not any(header) or len(set(header)) < len(header):
        raise ValueError(f"{path}:1: expected a header line of different column names, found {header!r}")
    places, rows = [], []
    for line, fields in records:
        if len(fields) != len(header):
            raise ValueError(
                f"{path}:{line}: {len(fields)} fields; the header names {len(header)} columns ({listing(header)})"
            )
        places.append(f"{path}:{line}")
        rows.append(fields)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return Table(str(path), dict(zip(header, columns, strict=True)), places)


def _read_json(path: Path, text: str) -> Table:
    """Read a list of objects or, as in .jsonl, an object a line."""
    if text.lstrip()[:1] == "[":
        return _read_json_list(path, text)
    records, places = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: not valid JSON: {error}") from error
        places.append(f"{path}:{number}")
        records.append(_object(record, places[-1]))
    return Table.from_records(records, str(path), places)


def _read_json_list(path: Path, text: str) -> Table:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    return Table.from_records([_object(value, f"row {row} of {path}") for row, value in enumerate(values)], str(path))


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('reading Parquet files needs pyarrow: pip install "kdistill[data]"') from error
    try:
        return Table(str(path), pyarrow.parquet.read_table(path).to_pydict())
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
