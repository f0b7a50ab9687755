"""Progress of long work on stderr: a bar on a terminal, an occasional plain line in a log, or nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

SECONDS_BETWEEN_LINES = 10.0
SHORTEST_SUMMED_UP = 1.0


def format_duration(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Shows how far one piece of work has come, with an estimate of the time left.

    Call it with (units done, units in all), first before any work; it is a `data.OnProgress`. Leaving it as a context
    manager without an error sums up in one line, unless it took no time. With `quiet` it prints nothing.
    """

    def __init__(self, description: str, *, unit: str, quiet: bool = False) -> None:
        self.description, self.unit, self.quiet = description, unit, quiet
        self._bar: Any = None
        self._first: int | None = None
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._start(done, total)
        elif self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        if self._bar is None and done < total:
            self._occasional_line(done, total)

    def _start(self, done: int, total: int) -> None:
        self._first = done
        self._started = self._last_line = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, desc=self.description, unit=f" {self.unit}", dynamic_ncols=True, leave=False
            )

    def _occasional_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        per_second = (done - (self._first or 0)) / (now - self._started)
        left = f", {format_duration((total - done) / per_second)} left" if per_second else ""
        self.write(f"{self.description}: {done} of {total} {self.unit} ({done / total:.0%}), {per_second:.1f}/s{left}")

    def write(self, line: str) -> None:
        """Print a line of its own without tearing the bar."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self, *, finished: bool = True) -> None:
        """Take the bar off the screen; sum up work that is finished and took long enough to notice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elapsed = time.monotonic() - self._started
        if finished and elapsed >= SHORTEST_SUMMED_UP:
            units = self._done - (self._first or 0)
            self.write(f"{self.description}: {units} {self.unit} in {format_duration(elapsed)}")
