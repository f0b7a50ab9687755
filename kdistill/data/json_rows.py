"""Read the rows of a JSON file, in the forms that programs write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..system.files import distinct_names
from ..system.names import listing
from .table import Table

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(
    path: Path,
    text: str,
    field: str | None = None,
    *,
    row_a_line: bool = False,
    column_names: Sequence[str] | None = None,
) -> Table:
    """Read rows of JSON.

    They are an object a line (JSON Lines), objects that span lines, one list of objects, or an object that holds them:
    as columns of lists, `{"text": [...], "label": [...]}`; as pandas writes a frame, `{"text": {"0": ...}}` or
    `{"columns": [...], "data": [[...]]}`; or as its only list of objects, `{"version": 1, "data": [{...}]}`. With
    `column_names` they are lists of values, `[["one", "a"], ["two", "b"]]`, or values alone, of one column.

    Args:
        path: the file, for messages.
        text: its content.
        field: the name of the list of objects, or of the object of columns, in the object that the file consists of.
        row_a_line: whether a single object is a row, as in .jsonl, whatever it holds.
        column_names: names of the values in the lists that the rows are.

    Raises:
        ValueError: it is not JSON, or does not hold rows; with file and line or row.
    """
    values = list(_values(path, text))
    if len(values) == 1:
        place, value = values[0]
        if field is not None:
            if not isinstance(value, dict) or field not in value:
                names = listing(value) if isinstance(value, dict) else f"a {type(value).__name__}"
                raise ValueError(f"field is {field!r}; {path} holds {names}")
            value = value[field]
        if isinstance(value, list) and not (row_a_line and column_names is not None and not _is_list_of_rows(value)):
            return rows_of_values(str(path), value, None, column_names)
        if isinstance(value, dict) and (field is not None or not row_a_line):
            return _of_object(path, value, place, column_names)
    elif field is not None:
        raise ValueError(f"field is {field!r}; {path} holds {len(values)} objects; expected one that holds all rows")
    places = [place for place, _ in values]
    return rows_of_values(str(path), [value for _, value in values], places, column_names)


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the file and line where each JSON value of a file begins, and the value."""
    decoder = json.JSONDecoder(object_pairs_hook=distinct_names)
    line, counted, start = 1, 0, _after_space(text, 0)
    first = start
    while start < len(text):
        line, counted = line + text.count("\n", counted, start), start
        place = str(path) if start == first and text[start] == "[" else f"{path}:{line}"
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: not valid JSON: {error}") from error
        yield place, value
        start = _after_space(text, end)


def _after_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    assert match is not None
    return match.end()


def rows_of_values(
    source: str, values: Sequence[Any], places: Sequence[str] | None, names: Sequence[str] | None = None
) -> Table:
    """Return the rows that are objects, or with `names` lists of as many values; with one name values alone."""
    if names is not None and len(names) == 1:
        values = [value if isinstance(value, list | dict) else [value] for value in values]
    for row, value in enumerate(values):
        if isinstance(value, dict) if names is None else isinstance(value, list) and len(value) == len(names):
            continue
        where = f"row {row} of {source}" if places is None else places[row]
        raise ValueError(f"{where}: {_wrong_row(value, names)}")
    if names is None:
        return Table.from_records(values, source, places)
    return Table(source, {name: [value[place] for value in values] for place, name in enumerate(names)}, places)


def _wrong_row(value: Any, names: Sequence[str] | None) -> str:
    """Return what is wrong with a row that is neither an object nor, with `names`, a list of as many values."""
    found = f"a list of {len(value)} values" if isinstance(value, list) else type(value).__name__
    if names is not None and isinstance(value, dict):
        return "the row is an object, which names its values itself; leave --columns (column_names) out"
    if names is not None:
        return f"expected a list of {len(names)} values ({listing(names)}), found {found}"
    columns = "text,label" if isinstance(value, list) else "text" if isinstance(value, str) else None
    hint = f"; name the values, as in --columns {columns} (in Python load_dataset(..., column_names=[...]))"
    return f"expected a JSON object, found {found}{hint if columns else ''}"


def _is_list_of_rows(value: Any) -> bool:
    """Return whether a value is a list of objects or of lists."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict | list) for row in value)


def _of_object(path: Path, value: Mapping[str, Any], place: str, column_names: Sequence[str] | None) -> Table:
    """Return the rows that one object holds, or the row that it is."""
    content = list(value.values())
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and set(value) <= {"columns", "index", "data"}:
        for row, fields in enumerate(rows):
            if not isinstance(fields, list) or len(fields) != len(names):
                raise ValueError(
                    f"row {row} of {path}: {fields!r}; expected {len(names)} values ({listing(map(str, names))})"
                )
        return Table(str(path), {str(name): [fields[place] for fields in rows] for place, name in enumerate(names)})
    lists_of_rows = [
        name for name, of in value.items() if isinstance(of, list) and of and all(isinstance(x, dict) for x in of)
    ]
    if len(lists_of_rows) == 1 and not any(
        isinstance(of, list) for name, of in value.items() if name not in lists_of_rows
    ):
        return rows_of_values(str(path), value[lists_of_rows[0]], None, column_names)
    if len(content) > 1 and all(map(_is_list_of_rows, content)) and _are_parts(content):
        raise ValueError(
            f"{path} holds {len(content)} lists of rows ({listing(value)}): name one as in {path}#{next(iter(value))}"
        )
    if column_names is not None and len(content) == 1 and isinstance(content[0], list):
        return rows_of_values(str(path), content[0], None, column_names)
    if content and all(isinstance(of, list) for of in content):
        return Table(str(path), value)
    if content and all(isinstance(of, dict) and of.keys() == content[0].keys() for of in content):
        return Table(str(path), {name: list(of.values()) for name, of in value.items()})
    return Table.from_records([value], str(path), [place])


def _are_parts(lists: Sequence[Any]) -> bool:
    """Return whether lists are parts of a data set: lists of objects, or of lists that differ in their number."""
    return isinstance(lists[0][0], dict) or len(set(map(len, lists))) > 1
