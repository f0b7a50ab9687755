"""Progress of long work in a log: seldom, with an estimate, and nothing when it is to be quiet."""

from __future__ import annotations

import pytest
from support.clock import Clock, clock_of_progress

from kdistill.system.progress import Progress, format_duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_progress(monkeypatch)


def work(clock: Clock, seconds: float, *, quiet: bool = False, first: int = 0) -> None:
    """A hundred units at even speed."""
    with Progress("tokenize", unit="rows", quiet=quiet) as shown:
        for done in range(first, 101):
            shown(done, 100)
            clock.now += seconds / 100


def interrupted_work(clock: Clock) -> None:
    with Progress("tokenize", unit="rows") as shown:
        shown(0, 10)
        clock.now += 5
        raise KeyboardInterrupt


def test_lines_of_a_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 25)
    assert capsys.readouterr().err.splitlines() == [
        "tokenize: 40 of 100 rows (40%), 4.0/s, 0:15 left",
        "tokenize: 80 of 100 rows (80%), 4.0/s, 0:05 left",
        "tokenize: 100 rows in 0:25",
    ]


def test_work_that_goes_on_counts_its_own_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 25, first=50)
    assert capsys.readouterr().err.splitlines() == [
        "tokenize: 90 of 100 rows (90%), 4.0/s, 0:02 left",
        "tokenize: 50 rows in 0:13",
    ]


def test_no_line_for_the_last_unit(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 10)
    assert capsys.readouterr().err.splitlines() == ["tokenize: 100 rows in 0:10"]


def test_silence(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 25, quiet=True)
    work(clock, 0.5)
    with pytest.raises(KeyboardInterrupt):
        interrupted_work(clock)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
