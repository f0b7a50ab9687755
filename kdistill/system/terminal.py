"""The bottom line of a terminal: it shows how far the work is, and all that is written meanwhile comes above it."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast

# From the cursor to the end of the screen. It also erases the rows into which a narrower window has wrapped the line.
_ERASE = "\x1b[J"
DEFAULT_COLUMNS = 80

Draw = Callable[[int], str]
"""(columns) -> a line of text, at most so wide."""


def can_redraw(stream: TextIO) -> bool:
    """Return whether the stream is a terminal that erases what it is told to."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def between_words(text: str, stream: TextIO) -> str:
    """Return the text with its long lines broken between words where the stream is a terminal, whose size is known."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return text
    return "\n".join(_broken(line, columns) if 0 < columns < len(line) else line for line in text.split("\n"))


def _broken(line: str, columns: int) -> str:
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.fill(
        line,
        max(columns, len(indent) + 1),
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,  # paths, commands and numbers are copied from the screen
        break_on_hyphens=False,
    )


class BottomLine:
    """The line below all others on a terminal; it shows the newest of the bars that are in progress.

    The cursor waits at the beginning of the line, where a terminal keeps it when the window becomes narrower, so that
    erasing from there on leaves nothing of the line. While there is a bar, `sys.stderr`, and `sys.stdout` where it is
    a terminal too, are replaced by streams that erase the line, write, and draw it again: warnings, prints and log
    lines come out whole, whoever writes them.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: list[Draw] = []
        self._replaced: list[tuple[str, _AboveTheLine]] = []
        self._is_drawn = False
        self._in_a_line = False

    def show(self, bar: Draw) -> None:
        """Draw the bar, or draw it anew, if it is the newest one. Raises `OSError` when the terminal is gone."""
        with self._lock:
            if bar not in self._bars:
                self._bars.append(bar)
            if not self._replaced:
                self._replace_streams()
            if bar != self._bars[-1]:
                return
            try:
                self._draw()
            except BaseException:
                self._forget(bar)
                raise

    def remove(self, bar: Draw) -> None:
        """Remove the bar; the one before it, if there is one, comes back."""
        with self._lock:
            if bar not in self._bars:
                return
            try:
                self._erase()
            finally:
                self._forget(bar)
            self._draw()

    def write(self, stream: TextIO, text: str) -> int:
        """Write text to the stream, above the line."""
        with self._lock:
            self._erase()
            written = stream.write(text)
            if text:
                self._in_a_line = not text.endswith("\n")
            if not self._in_a_line:
                stream.flush()
                self._draw()
            return written

    def _forget(self, bar: Draw) -> None:
        self._bars.remove(bar)
        if not self._bars:
            self._restore_streams()

    def _draw(self) -> None:
        if self._bars and not self._in_a_line:
            stream = self._replaced[0][1].stream
            stream.write(f"\r{self._bars[-1](_columns(stream) - 1)}{_ERASE}\r")
            stream.flush()
            self._is_drawn = True

    def _erase(self) -> None:
        if self._is_drawn:
            stream = self._replaced[0][1].stream
            stream.write(f"\r{_ERASE}")
            stream.flush()
            self._is_drawn = False

    def _replace_streams(self) -> None:
        for name in ("stderr", "stdout"):
            stream = getattr(sys, name)
            if name == "stderr" or (stream is not None and not stream.closed and stream.isatty()):
                above = _AboveTheLine(stream, self)
                self._replaced.append((name, above))
                setattr(sys, name, above)

    def _restore_streams(self) -> None:
        for name, above in self._replaced:
            if getattr(sys, name) is above:  # somebody else may have put another one there since
                setattr(sys, name, above.stream)
        self._replaced, self._is_drawn, self._in_a_line = [], False, False


class _AboveTheLine:
    """A standard stream whose text is written above the bottom line; all else is that of the stream."""

    def __init__(self, stream: Any, line: BottomLine) -> None:
        self.stream = cast(TextIO, stream)
        self._line = line

    def write(self, text: str) -> int:
        return self._line.write(self.stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return DEFAULT_COLUMNS


BOTTOM_LINE = BottomLine()
"""That of the process's terminal."""
