"""The progress bar in Jupyter: plain HTML in the cell's output, which stays readable when the notebook is saved."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

# Shorter work shows nothing; a bar need not move more often than this.
SECONDS_BEFORE_BAR = 0.5
SECONDS_BETWEEN_UPDATES = 0.25


class ShowsItself(Protocol):
    """What has an HTML form."""

    def _repr_html_(self) -> str: ...


def in_jupyter() -> bool:
    """Whether this program is a Jupyter kernel (IPython in a terminal is none)."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class JupyterBar:
    """One output of a cell, drawn anew as the work goes on: a bar, and under it a table or the lines written so far.

    It needs no ipywidgets; a widget would be gone from a saved notebook.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._due = time.monotonic() + SECONDS_BEFORE_BAR
        self._head = ""
        self._text = ""
        self._table: ShowsItself | None = None
        self._lines: list[str] = []

    def show(self, done: int, total: int, where: Callable[[], str]) -> None:
        """Move the bar, if it is time; `where` says in words how far the work has come."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SECONDS_BETWEEN_UPDATES
        self._text = where()
        bar = f'<progress value="{done}" max="{total}" style="width: 16em; vertical-align: middle"></progress>'
        self._head = f"<div>{bar} {escape(self._text)}</div>"
        self._draw()

    def write(self, line: str, table: ShowsItself | None) -> None:
        """Add a line, or show `table` as it is now in place of all lines."""
        self._table = table
        self._lines.append(line)
        self._draw()

    def close(self, summary: str | None) -> None:
        """Put the summary in the bar's place; without one, take the bar away and leave what was written."""
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
