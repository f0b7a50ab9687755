"""Output for Jupyter: tables as plain HTML, and a progress bar that stays readable in a saved notebook."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, Protocol

# Work shorter than the first shows no bar; the second limits how often a bar is redrawn.
SECONDS_BEFORE_BAR = 0.5
SECONDS_BETWEEN_UPDATES = 0.25

# No colours: the notebook's theme may be light or dark.
_CAPTION = "caption-side: top; text-align: left; font-weight: bold; color: inherit; padding: 0.2em 0"
_TEXT = "text-align: left; vertical-align: top; padding: 0.15em 0.8em 0.15em 0"
_NUMBER = "text-align: right; vertical-align: top; padding: 0.15em 0.8em 0.15em 0; font-variant-numeric: tabular-nums"


def html_table(caption: str, rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> str:
    """Return an HTML table of text and numbers, with all text escaped.

    Args:
        caption: the line above the table; "" for none.
        rows: one sequence of values a row; None is an empty cell. `shown` formats numbers, and a column of numbers
            alone is aligned to the right.
        header: the names of the columns (default: no header).
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
    """Return the HTML `content` folded behind a summary line, which opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def shown(value: Any) -> str:
    """Return a value as plain text for a table.

    Whole numbers get thousands separators, other numbers four decimal places, or five significant digits when they are
    below 0.01 in magnitude.
    """
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
    """A dictionary of metrics by name that Jupyter shows as a table."""

    def _repr_html_(self) -> str:
        return html_table("", self.items())


class ShowsItself(Protocol):
    """An object with an HTML form."""

    def _repr_html_(self) -> str: ...


def in_jupyter() -> bool:
    """Return whether this process is a Jupyter kernel; IPython in a terminal is not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class JupyterBar:
    """One output of a cell, redrawn during the work: a bar, and below it a table or the lines written so far.

    It does not use ipywidgets, because a widget disappears from a saved notebook.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._due = time.monotonic() + SECONDS_BEFORE_BAR
        self._head = ""
        self._text = ""
        self._table: ShowsItself | None = None
        self._lines: list[str] = []

    def show(self, done: int, total: int, where: Callable[[], str]) -> None:
        """Redraw the bar if the last time is long enough ago; `where` returns the text beside it."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SECONDS_BETWEEN_UPDATES
        self._text = where()
        bar = f'<progress value="{done}" max="{total}" style="width: 16em; vertical-align: middle"></progress>'
        self._head = f"<div>{bar} {escape(self._text)}</div>"
        self._draw()

    def write(self, line: str, table: ShowsItself | None) -> None:
        """Add a line, or show the present state of `table` in place of all lines."""
        self._table = table
        self._lines.append(line)
        self._draw()

    def close(self, summary: str | None) -> None:
        """Replace the bar by the summary, or remove it when there is none; lines and table stay."""
        if self._handle is None and summary is None:
            return
        self._text = summary or ""
        self._head = f"<div>{escape(summary)}</div>" if summary else ""
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        below = self._table._repr_html_() if self._table is not None else ""
        if self._table is None and self._lines:
            below = f"<pre>{escape(chr(10).join(self._lines))}</pre>"
        data = {"text/html": self._head + below, "text/plain": "\n".join([self._text, *self._lines])}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)
