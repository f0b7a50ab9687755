"""Progress of long work: a bar in Jupyter or on a terminal's stderr, otherwise an occasional line in the log."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from .notebook import JupyterBar, ShowsItself, in_jupyter
from .terminal import BOTTOM_LINE, between_words, can_redraw

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_BARS = 0.1
SHORTEST_SUMMED_UP = 1.0


def format_duration(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def few_digits(value: float) -> str:
    """Return a figure as people read it in passing: three decimal places, or three digits where these do not fit."""
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.3g}"


class Progress:
    """A progress display for one piece of work, with an estimate of the time left.

    Call it with (units done, units in total), the first time before any work; it is a `data.dataset.OnProgress`. Used
    as a context manager, it prints a summary line at the end, unless the work failed or took less than a second. Where
    the display can no longer be written to (stderr closed, its disk full, its reader gone), it ends with a warning, and
    the work goes on.

    Args:
        description: a word or two before the figures, such as "train".
        unit: the name of what is counted, in the plural.
        quiet: whether to show nothing at all.
    """

    def __init__(self, description: str, *, unit: str, quiet: bool = False) -> None:
        self.description, self.unit, self.quiet = description, unit, quiet
        self._display = None if quiet else _display(description, unit)
        self._first: int | None = None
        self._done = self._total = 0
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        self._done, self._total = done, total
        self._on_display(lambda display: display.show(done, total, self._where))

    def _per_second(self) -> float:
        elapsed = time.monotonic() - self._started
        return (self._done - (self._first or 0)) / elapsed if elapsed else 0.0

    def time_left(self) -> str:
        """Return how long the rest takes at the speed so far, such as "1:05 left"; "" where none is known."""
        per_second, rest = self._per_second(), self._total - self._done
        return f"{format_duration(rest / per_second)} left" if per_second and rest else ""

    def _where(self) -> str:
        done, total = self._done, self._total
        share = f" ({done / total:.0%})" if total else ""
        where = f"{self.description}: {done} of {total} {self.unit}{share}, {self._per_second():.1f}/s"
        return ", ".join(filter(None, (where, self.time_left())))

    def write(self, line: str, table: ShowsItself | None = None) -> None:
        """Print a line without breaking the bar. In Jupyter, show the present state of `table` instead of the lines."""
        self._on_display(lambda display: display.write(line, table))

    def close(self, *, finished: bool = True) -> None:
        """Remove the bar; print a summary of work that is finished and took `SHORTEST_SUMMED_UP` seconds or more."""
        elapsed = time.monotonic() - self._started
        units = self._done - (self._first or 0)
        summary = f"{self.description}: {units} {self.unit} in {format_duration(elapsed)}"
        ending = summary if finished and elapsed >= SHORTEST_SUMMED_UP else None
        self._on_display(lambda display: display.close(ending))

    def _on_display(self, do: Callable[[Display], None]) -> None:
        if self._display is None:
            return
        try:
            do(self._display)
        except (OSError, ValueError) as error:  # ValueError: the file object is closed
            self._display = None
            warnings.warn(f"the progress of {self.description} is no longer shown: {error}", stacklevel=3)


class Display(Protocol):
    """A place that shows progress."""

    def show(self, done: int, total: int, where: Callable[[], str]) -> None:
        """Show how far the work is, unless it was shown a moment ago; `where` returns that as a line of text."""

    def write(self, line: str, table: ShowsItself | None) -> None:
        """Show a line, or a table, that stays."""

    def close(self, summary: str | None) -> None:
        """End with the summary, if there is one."""


def _display(description: str, unit: str) -> Display | None:
    if in_jupyter():
        return JupyterBar()
    if sys.stderr is None or sys.stderr.closed:  # the process was started without one, as daemons are
        return None
    return TerminalBar(description, unit) if can_redraw(sys.stderr) else LogLines()


def say(line: str) -> None:
    """Print a line on stderr; where nobody can read it, do nothing."""
    if sys.stderr is not None:  # print would take stdout in its place
        with suppress(OSError, ValueError):
            print(between_words(line, sys.stderr), file=sys.stderr, flush=True)


class TerminalBar:
    """A bar at the bottom of the terminal on stderr, removed when the work is done."""

    def __init__(self, description: str, unit: str) -> None:
        self._description, self._unit = "".join(c if c.isprintable() else " " for c in description), unit
        self._first: int | None = None
        self._done = self._total = 0
        self._started = self._due = 0.0

    def show(self, done: int, total: int, where: Callable[[], str]) -> None:
        """Move the bar, unless it was moved a moment ago."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        self._done, self._total = done, total
        if now >= self._due:
            self._due = now + SECONDS_BETWEEN_BARS
            BOTTOM_LINE.show(self._draw)

    def _draw(self, columns: int) -> str:
        """Return the bar as tqdm draws it, with a description of at most a third of the line."""
        from tqdm import tqdm
        from tqdm.utils import disp_len, disp_trim

        description, most = self._description, max(columns // 3, 1)
        if disp_len(description) > most:
            description = disp_trim(description, most - 1) + "…"
        return str(
            tqdm.format_meter(
                self._done,
                self._total,
                time.monotonic() - self._started,
                ncols=columns,
                prefix=description,
                unit=f" {self._unit}",
                initial=self._first or 0,
            )
        )

    def write(self, line: str, table: ShowsItself | None) -> None:
        """Print above the bar."""
        print(between_words(line, sys.stderr), file=sys.stderr, flush=True)

    def close(self, summary: str | None) -> None:
        """Remove the bar and print the summary."""
        BOTTOM_LINE.remove(self._draw)
        if summary is not None:
            self.write(summary, None)


class LogLines:
    """Occasional lines on stderr, for a log file."""

    def __init__(self) -> None:
        self._last_line: float | None = None

    def show(self, done: int, total: int, where: Callable[[], str]) -> None:
        """Print how far the work is, unless the last line is recent or the work is done."""
        now = time.monotonic()
        if self._last_line is None:
            self._last_line = now
        elif done < total and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.write(where(), None)

    def write(self, line: str, table: ShowsItself | None) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)

    def close(self, summary: str | None) -> None:
        """Print the summary."""
        if summary is not None:
            self.write(summary, None)
