"""Read the tables of a model card back."""

from __future__ import annotations

from collections.abc import Iterator


def tables(card: str) -> Iterator[list[dict[str, str]]]:
    """Every Markdown table as its rows, each a dictionary by the names of the columns."""
    for block in card.split("\n\n"):
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line.startswith("|")
        ]
        if lines:
            header, _, *rows = lines
            assert all(len(row) == len(header) for row in rows), block
            yield [dict(zip(header, row, strict=True)) for row in rows]


def row_of(card: str, name: str) -> dict[str, str]:
    """The first row whose first cell is `name`."""
    return next(row for table in tables(card) for row in table if next(iter(row.values())) == name)
