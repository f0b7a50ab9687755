"""Read plain text: its encoding, its lines, and a text a line as rows."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

from .table import Table

PLAIN_TEXT_COLUMN = "text"
"""Name of the column that plain text becomes, as in the builder "text" of `datasets`."""


def decoded(path: str | os.PathLike[str], content: bytes, encoding: str = "utf-8", *, first_line: int = 1) -> str:
    """Return the text of a file's content from a line on; the first may begin with a byte order mark in UTF-8.

    Raises:
        ValueError: it is not in this encoding, with file and line, or Python knows no such encoding.
    """
    is_utf8 = encoding.lower() in ("utf-8", "utf8")
    try:
        return content.decode("utf-8-sig" if is_utf8 and first_line == 1 else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        raise ValueError(
            f"{os.fspath(path)}:{line}: not {'UTF-8' if is_utf8 else encoding} ({error.reason}); convert the file, "
            "e.g. with iconv, or give its encoding, such as --encoding cp1252 (in Python load_dataset(..., encoding=))"
        ) from error
    except LookupError as error:
        raise ValueError(
            f"encoding is {encoding!r}; expected one that Python knows, such as utf-8 or latin-1"
        ) from error


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends. Nothing follows the last end."""
    # Not str.splitlines: sentences may hold U+0085 or U+2028, which it takes for line ends. Old Macs end lines with \r.
    lines = text.split("\n") if "\n" in text else text.split("\r")
    lines = [line.removesuffix("\r") for line in lines]
    if not lines[-1]:
        lines.pop()
    return lines


def read_lines(path: str | os.PathLike[str], text: str) -> Table:
    """Return a row for each line of a text. Warns where a tab in each of them seems to separate columns."""
    lines = lines_of(text)
    warn_of_tabs(path, lines)
    name = os.fspath(path)
    return Table(name, {PLAIN_TEXT_COLUMN: lines}, [f"{name}:{line}" for line in range(1, len(lines) + 1)])


def read_documents(path: str | os.PathLike[str], text: str) -> Table:
    """Return a row for each document of a text.

    Where blank lines (empty, or of nothing but white space) stand between lines of text, they separate the documents,
    and the lines of a document are joined with spaces: they are broken where a page or a terminal is narrow. Where
    there is none, each line is a document.
    """
    lines = lines_of(text)
    written = [number for number, line in enumerate(lines) if line.strip()]
    name = os.fspath(path)
    if not written:
        raise ValueError(f"{name} holds nothing but white space; expected text")
    one_a_line = written[-1] - written[0] == len(written) - 1
    documents: list[list[str]] = []
    places = []
    for number, before in zip(written, [None, *written], strict=False):
        if one_a_line or before is None or number > before + 1:
            documents.append([])
            places.append(f"{name}:{number + 1}")
        documents[-1].append(lines[number].strip())
    return Table(name, {PLAIN_TEXT_COLUMN: [" ".join(document) for document in documents]}, places)


def warn_of_tabs(path: str | os.PathLike[str], lines: Sequence[str]) -> None:
    """Warn where a tab in each line seems to separate columns."""
    tabs = {line.count("\t") for line in lines if line}
    if len(tabs) == 1 and tabs != {0}:
        names = ",".join([PLAIN_TEXT_COLUMN, "label", *(f"column{number}" for number in range(3, max(tabs) + 2))])
        warnings.warn(
            f"{os.fspath(path)}: each line is read as one text, and each holds {max(tabs)} tab(s): where tabs separate "
            f"columns, name them, as in --columns {names}, or give --delimiter tab if the first line does",
            stacklevel=6,
        )
