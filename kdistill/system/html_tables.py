"""Tables in HTML: how models, arguments and results show themselves in Jupyter, through `_repr_html_`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

# Beside the style of the notebook, which is light or dark: no colours of our own.
_CAPTION = "caption-side: top; text-align: left; font-weight: bold; color: inherit; padding: 0.2em 0"
_TEXT = "text-align: left; vertical-align: top; padding: 0.15em 0.8em 0.15em 0"
_NUMBER = "text-align: right; vertical-align: top; padding: 0.15em 0.8em 0.15em 0; font-variant-numeric: tabular-nums"


def html_table(caption: str, rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> str:
    """A table of text and numbers, one sequence a row, all of it escaped. None is an empty cell.

    See `shown` for how numbers are written; a column that holds nothing else is aligned to the right.
    """
    cells = list(rows)
    styles = [_TEXT if any(map(_is_text, column)) else _NUMBER for column in zip(*cells, strict=True)]
    styles = styles or [_TEXT] * len(header)
    lines = [f'<caption style="{_CAPTION}">{escape(caption)}</caption>'] if caption else []
    if header:
        names = (
            f'<th scope="col" style="{style}">{escape(name)}</th>' for name, style in zip(header, styles, strict=True)
        )
        lines.append(f"<thead><tr>{''.join(names)}</tr></thead>")
    lines.append("<tbody>")
    for row in cells:
        values = (f'<td style="{style}">{escape(shown(value))}</td>' for value, style in zip(row, styles, strict=True))
        lines.append(f"<tr>{''.join(values)}</tr>")
    return "\n".join(["<table>", *lines, "</tbody>", "</table>"])


def folded(summary: str, content: str) -> str:
    """`content`, which is HTML, behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def shown(value: Any) -> str:
    """A value as a table shows it, as plain text: whole numbers with their thousands, others with four places, or with
    five digits where that shows too little."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and value == round(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.4f}" if abs(value) >= 0.01 else f"{value:.5g}"


def _is_text(value: Any) -> bool:
    return value is not None and (isinstance(value, bool) or not isinstance(value, int | float))


class Metrics(dict[str, float]):
    """Figures by name: a dictionary that Jupyter shows as a table."""

    def _repr_html_(self) -> str:
        return html_table("", self.items())
