"""Lines that are written while a bar is shown, on an emulated terminal of 100 columns (pyte) and in tmux."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT

COLUMNS, ROWS = 100, 12
BEGIN = """
import sys, time, warnings
from kdistill.system import progress
from kdistill.system.progress import Progress, say
progress.SECONDS_BETWEEN_BARS = 0.0
"""


def screen_of(program: str, at_end: str | None = None) -> list[str]:
    """Run a program of Python in a terminal; return all lines that it leaves, or what is there as it prints `at_end`.

    Lines that the terminal has wrapped are separate lines here.
    """
    pyte = pytest.importorskip("pyte")
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm"
        time.sleep(0.1)  # until the terminal has its size
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-W", "default", "-c", BEGIN + program])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        while data := os.read(terminal, 1 << 16):
            stream.feed(data)
    except OSError:  # Linux ends a terminal whose program is gone so
        pass
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    above = ["".join(line[column].data for column in range(COLUMNS)) for line in screen.history.top]
    lines = [line.rstrip() for line in (*above, *screen.display)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def test_long_messages_are_broken_between_words() -> None:
    sentence = "kdistill: warning: " + "words_of_a_sentence " * 11 + "end"
    lines = screen_of(f"""
with Progress("train", unit="steps") as bar:
    bar(1, 4)
    say({sentence!r})
    bar.write("  " + {sentence!r})
""")
    assert [line.split() for line in lines if line.startswith("kd")] == [sentence.split()[:6]]
    assert " ".join(lines).split() == [*sentence.split(), *sentence.split()]
    assert lines[1].startswith("  words")
    assert lines[-1].startswith("    words")


def test_lines_written_while_bars_are_shown_come_out_alone() -> None:
    assert screen_of("""
with Progress("train", unit="steps") as train:
    for step in range(30):
        train(step, 30)
        if step % 10 == 9:
            with Progress("evaluate", unit="rows") as evaluate:
                for row in range(3):
                    evaluate(row, 3)
            train.write(f"epoch {step // 10}")
            say(f"kdistill: warning: {step}")
            print("to stdout", step)
            print("to", "stderr", step, file=sys.stderr)
""") == [
        line
        for epoch in range(3)
        for line in (
            f"epoch {epoch}",
            f"kdistill: warning: {10 * epoch + 9}",
            f"to stdout {10 * epoch + 9}",
            f"to stderr {10 * epoch + 9}",
        )
    ]


def test_warnings_of_python_come_out_whole_above_the_bar() -> None:
    lines = screen_of("""
with Progress("train", unit="steps") as train:
    train(1, 30)
    warnings.warn("the log is full", stacklevel=1)
    train(2, 30)
""")
    assert [line.partition(":")[2] for line in lines] == ["9: UserWarning: the log is full"]


def test_a_line_longer_than_the_terminal_wraps_and_nothing_else_is_lost() -> None:
    assert screen_of("""
with Progress("train", unit="steps") as train:
    for step in range(20):
        train(step, 20)
        if step % 10 == 0:
            train.write("x" * 250 + str(step))
""") == ["x" * 100, "x" * 100, "x" * 50 + "0", "x" * 100, "x" * 100, "x" * 50 + "10"]


@pytest.mark.parametrize("name", ["long " * 60, "文書" * 60, "two\\nlines \\x1b[31m"])
def test_a_bar_of_any_description_takes_one_line_with_its_figures(name: str) -> None:
    lines = screen_of(f"""
say("before")
bar = Progress("tokenize {name}", unit="rows")
bar(10, 40)
bar(20, 40)
import os
os._exit(0)  # leaves the screen as it is
""")
    assert lines[0] == "before"
    assert len(lines) == 2
    assert lines[1].startswith("tokenize ")
    assert "50%" in lines[1]
    assert "20/40" in lines[1]


def test_a_line_in_parts_is_not_cut_by_the_bar() -> None:
    assert screen_of("""
with Progress("train", unit="steps") as train:
    for step in range(5):
        train(step, 5)
        print(step, end="" if step < 4 else "\\n", flush=True)
""") == ["01234"]


def test_the_streams_of_the_process_are_back_when_no_bar_is_left() -> None:
    assert (
        screen_of("""
before = sys.stdout, sys.stderr
with Progress("train", unit="steps") as train:
    train(0, 2)
    assert sys.stdout is not before[0] and sys.stdout.isatty() and sys.stdout.fileno() == 1
    with Progress("evaluate", unit="rows") as evaluate:
        evaluate(0, 2)
    assert sys.stderr is not before[1]
assert (sys.stdout, sys.stderr) == before
""")
        == []
    )


def test_a_terminal_that_does_not_erase_gets_lines() -> None:
    assert screen_of("""
import os
os.environ["TERM"] = "dumb"
with Progress("train", unit="steps") as train:
    train(0, 2)
    train.write("epoch 1")
""") == ["epoch 1"]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_narrower_window_leaves_no_remains_of_the_bar(tmp_path: Path) -> None:
    tmux = shutil.which("tmux")
    if tmux is None:
        pytest.skip("tmux is not installed")
    go_on, program = tmp_path / "go-on", tmp_path / "program.py"
    program.write_text(f"""{BEGIN}
from pathlib import Path
print("before\\n" * 12, end="", flush=True)  # tmux keeps the cursor's place only where the screen is full
with Progress("train", unit="steps") as train:
    train(10, 40)
    while not Path({str(go_on)!r}).exists():
        time.sleep(0.05)
    train(20, 40)
    train.write("epoch 1")
print("end", flush=True)
time.sleep(60)
""")
    here = [tmux, "-S", str(tmp_path / "socket"), "-f", os.devnull]

    def shown() -> list[str]:
        return subprocess.run([*here, "capture-pane", "-p", "-S", "-"], capture_output=True, text=True).stdout.split(
            "\n"
        )

    command = f"cd {ROOT}; {sys.executable} {program}"
    subprocess.run([*here, "new-session", "-d", "-x", "100", "-y", "12", command], check=True)
    try:
        wait_for(lambda: any("10/40" in line for line in shown()))
        subprocess.run([*here, "resize-window", "-x", "40"], check=True)
        wait_for(lambda: not any("train" in line and "10/40" in line for line in shown()))  # tmux has wrapped the bar
        go_on.touch()
        wait_for(lambda: "end" in shown())
        assert [line for line in shown() if line not in ("", "before")] == ["epoch 1", "end"]
    finally:
        subprocess.run([*here, "kill-server"], check=False)
