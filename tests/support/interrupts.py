"""Interrupts at moments that are counted, not timed: before the nth call of a function, Python's or C's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def keyboard_interrupt() -> None:
    raise KeyboardInterrupt


class Calls:
    """Counts the calls of functions and their returns, and calls `interrupt` at the nth.

    Attributes:
        count: so far.
    """

    def __init__(self, interrupt_at: int | None = None, interrupt: Callable[[], None] = keyboard_interrupt) -> None:
        self.count, self._at, self._interrupt = 0, interrupt_at, interrupt

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.count += 1
        if self.count == self._at:
            self._interrupt()


@contextmanager
def counted(calls: Calls) -> Iterator[Calls]:
    """Let `calls` count those of this thread inside the block."""
    sys.setprofile(calls)
    try:
        yield calls
    finally:
        sys.setprofile(None)
