"""The program `kdistill`: runs one command and turns its figures and errors into output and an exit status."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from ..system.files import json_text
from ..system.progress import say
from ..train.arguments import TrainingArguments
from ..train.world import ALONE, World, current_world, launched_processes
from .command_line import parse
from .options import CommandLineError, build_parsers, options_of

_BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
_FAILED = (ArithmeticError, RuntimeError, MemoryError)
_TOGETHER = ("finetune", "distill")  # commands that several processes of an MPI launcher run together
_TABLES = ("per_class", "confusions")
_MOST_CONFUSIONS = 10
_ABOUT_AN_ARGUMENT = re.compile("([a-z][a-z0-9_]*)(?= is | has | ')")
_OPTIONS = {"teacher_model": "teacher"}  # whose names in Python are others
_ONE_LINE = str.maketrans("\t\n\r", "   ")  # a label's name may hold any of them


class _Terminated(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C but for the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words, without the program's name (default: those of the process).

    Returns:
        The exit status: 0, 1 (failed, wholly or in part, or the results could not be written), 2 (bad input), 130
        (Ctrl-C), 141 (the reader of standard output is gone) or 143 (SIGTERM).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    options, world = Namespace(), ALONE

    def work() -> int:
        nonlocal options, world
        started = time.monotonic()
        world, missing = _launched_world()
        with world.together(), silent_unless(world.leads):
            options = parse(argv)
            options.started = started
            _check_runs_together(options.command, missing)
            figures = run_command(options)
        if not world.leads:
            return 0
        sys.stdout.flush()  # raises for a closed pipe here, not when the interpreter ends
        return _print_figures(figures, options)

    def on_error(sentence: str) -> None:
        if world.leads or not world.met:  # otherwise rank 0 knows, and says it
            _say_error(sentence)

    def on_interrupt() -> None:
        if world.leads:
            _report_interrupt(options)

    def as_typed(sentence: str) -> str:
        return _as_typed(sentence, getattr(options, "command", None))

    return run_as_program(work, on_error=on_error, on_interrupt=on_interrupt, as_typed=as_typed)


def _launched_world() -> tuple[World, Exception | None]:
    """Return the processes of the launcher, of which one speaks for all, and why they do not find each other."""
    try:
        return current_world(), None
    except (ImportError, RuntimeError) as error:
        return ALONE, error


def _check_runs_together(command: str, missing: Exception | None) -> None:
    """Raise for several processes of a command that is the work of one, or that do not find each other.

    Args:
        command: the command.
        missing: why they do not.
    """
    if command not in _TOGETHER and (count := launched_processes()) > 1:
        raise ValueError(
            f"an MPI launcher has started {count} processes of `kdistill {command}`, which is the work of one; start "
            f"it without mpirun, which is for {' and '.join(_TOGETHER)}"
        )
    if missing is not None:
        raise missing


@contextmanager
def silent_unless(shows: bool) -> Iterator[None]:
    """Let nothing that the block writes be seen unless this process is the one that shows."""
    if shows:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run_as_program(
    work: Callable[[], int],
    *,
    on_error: Callable[[str], object],
    on_interrupt: Callable[[], object],
    as_typed: Callable[[str], str] = str,
) -> int:
    """Do the work of a program, with its standard streams, its warnings in one line and its signals.

    Args:
        work: returns the exit status.
        on_error: called with one sentence about an error that ends the work.
        on_interrupt: called when Ctrl-C or SIGTERM has ended it.
        as_typed: returns the sentence of an error or a warning with the names that the user has given things by.

    Returns:
        The exit status, as `main`.
    """
    with _standard_streams(), _warnings_in_one_line(as_typed), _sigterm_as_interrupt():
        try:
            return work()
        except CommandLineError as error:
            on_error(as_typed(error.sentence))
            return 2
        except SystemExit as end:  # argparse's, after --help
            return int(end.code or 0)
        except BrokenPipeError:  # the reader, for example `head`, has closed the pipe
            return 141
        except _BAD_INPUT as error:
            on_error(as_typed(_sentence(error)))
            return 2
        except _FAILED as error:
            on_error(as_typed(_sentence(error)))
            return 1
        except KeyboardInterrupt as interrupt:
            for note in getattr(interrupt, "__notes__", ()):
                say(f"kdistill: warning: {note}")
            on_interrupt()
            return 143 if isinstance(interrupt, _Terminated) else 130


def run_command(options: Namespace, **more: Any) -> dict[str, Any]:
    """Run the command of parsed options, with `more` arguments of its function, and return its figures."""
    from ..system.threads import set_num_threads
    from . import commands

    if options.threads is not None:
        set_num_threads(options.threads)
    run: Callable[..., dict[str, Any]] = getattr(commands, options.command)
    return run(options, **more)


def _print_figures(figures: dict[str, Any], options: Namespace) -> int:
    """Print the figures of work that is done, and return the exit status: 1 when a part failed or nothing is shown."""
    # The predictions themselves may be on standard output.
    file: TextIO = sys.stderr if options.command == "predict" and not options.json else sys.stdout
    encoding = file.encoding or "utf-8"
    text = _text_of(figures, options).encode(encoding, "backslashreplace").decode(encoding)  # names may be any bytes
    try:
        print(text, file=file, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"kdistill: error: the results could not be written: {error.strerror}")
        return 1
    return 1 if figures.get("failed") or figures.get("unanswered") else 0


def _text_of(figures: dict[str, Any], options: Namespace) -> str:
    if options.json:
        return json_text(figures) + "\n"
    if options.command == "bench":
        from ..bench import bench, exports

        table = exports.table if options.export else bench.table
        return table(figures) + "\n"
    if options.command == "doctor":
        from ..doctor.page import page

        return page(figures)
    if options.command == "serve":
        from .serve import ending_text

        return ending_text(figures)
    if "compute" in figures:  # None is left out below
        figures |= {"compute": {name: isa or "none (portable)" for name, isa in figures["compute"].items()}}
    if options.command == "completion":
        return str(figures["script"])
    if "summary" in figures:
        from .ending import run_text, search_text

        return search_text(figures) if options.command == "search" else run_text(figures)
    lines = dict(_flat({name: value for name, value in figures.items() if name not in _TABLES}))
    width = max(map(len, lines))
    text = "".join(f"{name:{width}}  {_shown(value)}\n" for name, value in lines.items() if value is not None)
    return text + _tables_of(figures) if options.command == "evaluate" else text  # a report has them in its card


def _tables_of(figures: dict[str, Any]) -> str:
    """Return the figures that are rows of a table, aligned; of the confused classes the first pairs."""
    tables = [(name, figures[name]) for name in _TABLES if figures.get(name)]
    if not tables:
        return ""
    from ..report.per_class import text_of

    shown = {name: rows[:_MOST_CONFUSIONS] if name == "confusions" else rows for name, rows in tables}
    text = "".join(f"\n{text_of(rows)}" for rows in shown.values())
    left = len(figures["confusions"]) - _MOST_CONFUSIONS if "confusions" in shown else 0
    return f"{text}and {left} more pairs, which --json lists\n" if left > 0 else text


def _flat(figures: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the figures with nested ones flattened, under both names."""
    for name, value in figures.items():
        parts = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        if parts and all(isinstance(part, dict) for part in parts):
            yield from ((f"{name} {inner}", of) for part in parts for inner, of in _flat(part))
        else:
            yield name, value


def _shown(value: Any) -> str:
    if isinstance(value, float):  # small numbers such as a learning rate need significant digits
        return f"{value:.4f}" if value == 0 or abs(value) >= 1e-2 else f"{value:.3g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.translate(_ONE_LINE)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _as_typed(sentence: str, command: str | None) -> str:
    """Return a sentence that begins with an argument's name in Python with the name of the command's option for it."""
    begins = _ABOUT_AN_ARGUMENT.match(sentence)
    if begins is None or command is None:
        return sentence
    known = options_of(build_parsers()[1][command])
    name = f"--{_OPTIONS.get(begins[1], begins[1]).replace('_', '-')}"
    return f"{name}{sentence[begins.end(1) :]}" if name in known else sentence


def _say_error(sentence: str) -> None:
    say(f"kdistill: error: {sentence}")


def _report_interrupt(options: Namespace) -> None:
    command = getattr(options, "command", None)
    if command == "search" and not Path(getattr(options, "output_dir", TrainingArguments.output_dir)).is_dir():
        say("kdistill: interrupted before the first trial. Repeat the command to start again")
        return
    if command == "search":
        say(f"kdistill: interrupted; {_kept_of_search(getattr(options, 'interrupted', {}))}")
        return
    if command == "label":
        say("kdistill: interrupted; the teacher cache has what was answered. Repeat the command to go on")
        return
    if command == "prune" and getattr(options, "rounds", None):
        from .recover import ROUNDS_FILE

        begun = (Path(options.output) / ROUNDS_FILE).is_file()
        ending = "; what is done is kept. Repeat the command with --resume to continue" if begun else ""
        say(f"kdistill: interrupted{ending}")
        return
    if command == "encode":
        say("kdistill: interrupted; finished shards are kept. Repeat the command to go on")
        return
    if command not in ("finetune", "distill"):
        say("kdistill: interrupted")
        return
    from ..train.directory import RunDirectory
    from ..train.state import STATE_FILE

    output_dir = getattr(options, "output_dir", TrainingArguments.output_dir)
    if getattr(options, "finished", False):
        say(f"kdistill: interrupted after the run: {output_dir} holds the finished model")
        return
    directory = RunDirectory(output_dir)
    holds_run = Path(output_dir).is_dir() and directory.holds_run()
    begins_anew = getattr(options, "overwrite_output_dir", False) and not options.resume
    if not holds_run or (begins_anew and not getattr(options, "steps", 0)):
        there = holds_run and (directory.checkpoints() or (directory.path / STATE_FILE).is_file())
        earlier = f"; the earlier run in {output_dir} is as it was" if there else ""
        say(f"kdistill: interrupted before the first step{earlier}. Repeat the command to start again")
        return
    checkpoints = directory.checkpoints()
    kept = f"{checkpoints[-1]} is kept" if checkpoints else "there is no checkpoint yet"
    say(f"kdistill: interrupted; {kept}. Repeat the command with --resume to continue")


def _kept_of_search(interrupted: dict[str, Any]) -> str:
    from .ending import outcomes_text

    trials = interrupted.get("trials", {})
    counts = f" ({outcomes_text(trials)})" if trials else ""
    best = f"; the best so far is in {interrupted['best_run']}" if "best_run" in interrupted else ""
    return f"finished trials are kept{counts}{best}. Repeat the command to continue"


@contextmanager
def _standard_streams() -> Iterator[None]:
    """Give the process the standard streams that it was started without, and leave none that fails when it exits.

    A missing one would have Python's name None, and its number would go to the next file that is opened.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDONLY)  # stdout and stderr too, so that writing to them fails
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # full, or its reader is gone
                _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Let what a stream has not yet written go nowhere."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def _warnings_in_one_line(as_typed: Callable[[str], str]) -> Iterator[None]:
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = f"kdistill: warning: {as_typed(str(message))}"
        if text not in said:  # training and evaluation rows can both give rise to it
            said.add(text)
            say(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the program as Ctrl-C does, so that it deletes temporary files and releases locks.

    A second one changes nothing: it must not end what the first one makes the program do.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
