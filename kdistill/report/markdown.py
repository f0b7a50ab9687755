"""Text and tables as Markdown, whatever characters they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table, without the columns in which no row has anything."""
    header, *lines = [list(map(_cell, cells)) for cells in (columns, *rows)]
    kept = [place for place, column in enumerate(zip(*lines, strict=True)) if any(column)] or [*range(len(header))]
    lines = [[cells[place] for place in kept] for cells in (header, *lines)]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """Write a column for each name that any row has, in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return table(columns, ([row.get(name, "") for name in columns] for row in rows))


def _cell(text: str) -> str:
    """Return text that stays in one cell of a table."""
    return line(text).replace("|", "\\|")


def code(text: str) -> str:
    """Return text as code inside of a line, whatever it holds: the fence is longer than the backticks in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{line(text)}{space}{fence}"


def line(text: str) -> str:
    """Return text without line ends and other characters that nobody sees: the names of files may have any."""
    return "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else " " for c in text)
