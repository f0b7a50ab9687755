"""A clock that stands still until a test moves it on."""

from __future__ import annotations

import pytest

from kdistill.system import progress


class Clock:
    """Stands in for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def clock_of_progress(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let progress be timed by a clock of the test's own."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock
