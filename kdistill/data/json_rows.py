"""Read the rows of a JSON file, in the forms that programs write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .table import Table, listing

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(path: Path, text: str, field: str | None = None, *, row_a_line: bool = False) -> Table:
    """Read rows of JSON.

    They are an object a line (JSON Lines), objects that span lines, one list of objects, or an object that holds them:
    as columns of lists, `{"text": [...], "label": [...]}`; as pandas writes a frame, `{"text": {"0": ...}}` or
    `{"columns": [...], "data": [[...]]}`; or as its only list of objects, `{"version": 1, "data": [{...}]}`.

    Args:
        path: the file, for messages.
        text: its content.
        field: the name of the list of objects, or of the object of columns, in the object that the file consists of.
        row_a_line: whether a single object is a row, as in .jsonl, whatever it holds.

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
        if isinstance(value, list):
            return _of_list(path, value)
        if isinstance(value, dict) and (field is not None or not row_a_line):
            return _of_object(path, value, place)
    elif field is not None:
        raise ValueError(f"field is {field!r}; {path} holds {len(values)} objects; expected one that holds all rows")
    places = [place for place, _ in values]
    return Table.from_records([_object(value, place) for place, value in values], str(path), places)


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the file and line where each JSON value of a file begins, and the value."""
    decoder = json.JSONDecoder(object_pairs_hook=_distinct_names)
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


def _distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object as a dict. Raises ValueError for a repeated name, whose first value nobody would read."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice in one object"
        )
    return result


def _of_list(path: Path, values: Sequence[Any]) -> Table:
    return Table.from_records([_object(value, f"row {row} of {path}") for row, value in enumerate(values)], str(path))


def _of_object(path: Path, value: Mapping[str, Any], place: str) -> Table:
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
        return _of_list(path, value[lists_of_rows[0]])
    if content and all(isinstance(of, list) for of in content):
        return Table(str(path), value)
    if content and all(isinstance(of, dict) and of.keys() == content[0].keys() for of in content):
        return Table(str(path), {name: list(of.values()) for name, of in value.items()})
    return Table.from_records([value], str(path), [place])


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
