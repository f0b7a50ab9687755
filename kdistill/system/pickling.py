"""What an object may hold that goes to other processes: a lock of its own, and a value that is made when needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Lock:
    """A `threading.Lock` that comes out of pickle as another one, which nobody holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        """Return how pickle makes the other one."""
        return Lock, ()


class Once(Generic[_Value]):
    """A function without arguments whose value is made at the first call and kept. Pickle takes the value.

    Args:
        make: makes the value.
    """

    def __init__(self, make: Callable[[], _Value]) -> None:
        self._make, self._made, self._lock = make, list[_Value](), Lock()

    def __call__(self) -> _Value:
        """Return the value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def __reduce__(self) -> tuple[type[_Made[_Value]], tuple[_Value]]:
        """Return how pickle makes another function of the same value."""
        return _Made, (self(),)


class _Made(Generic[_Value]):
    """A function that returns a value that another process has made."""

    def __init__(self, value: _Value) -> None:
        self._value = value

    def __call__(self) -> _Value:
        """Return the value."""
        return self._value
