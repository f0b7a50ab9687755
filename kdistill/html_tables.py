"""Tables in HTML: how models, arguments and results show themselves in Jupyter, through `_repr_html_`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

# Beside the style of the notebook, which is light or dark: no colours of our own.
_CAPTION = "caption-side: top; text-align: left; font-weight: bold; color: inherit; padding: 0.2em 0"
_CELL = "text-align: left; vertical-align: top; padding: 0.15em 0.8em 0.15em 0"
_NUMBER = "text-align: right; vertical-align: top; padding: 0.15em 0.8em 0.15em 0; font-variant-numeric: tabular-nums"


def html_table(caption: str, rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> str:
    """A table of text and numbers, one tuple a row, all of it escaped. None is an empty cell.

    Whole numbers show their thousands, others four places (five digits where that shows too little).
    """
    lines = [f'<caption style="{_CAPTION}">{escape(caption)}</caption>'] if caption else []
    if header:
        cells = "".join(f'<th scope="col" style="{_CELL}">{escape(name)}</th>' for name in header)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    lines += [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    return "\n".join(["<table>", *lines, "</tbody>", "</table>"])


def folded(summary: str, content: str) -> str:
    """`content`, which is HTML, behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def shown(value: Any) -> str:
    """A value as a table shows it, as plain text."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == round(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.4f}" if abs(value) >= 0.01 else f"{value:.5g}"


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td style="{_NUMBER if is_number else _CELL}">{escape(shown(value))}</td>'


class Metrics(dict[str, float]):
    """Figures by name: a dictionary that Jupyter shows as a table."""

    def _repr_html_(self) -> str:
        return html_table("", self.items())
