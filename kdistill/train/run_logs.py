"""Log files of a run for other programs to plot: CSV, JSON lines and TensorBoard's events, in a directory per run.

CSV and JSON lines hold exactly the entries of `state.log_history`, also after a run was killed and resumed; the CSV and
TensorBoard's events their numbers alone.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from ..system.files import json_text, write_text
from ..system.names import as_file_name
from ..system.unicode import encodable
from .arguments import TrainingArguments
from .callbacks import Callback, TrainerCallback, TrainerControl
from .state import TrainerState, numbers_of

CSV_FILE, JSONL_FILE = "metrics.csv", "metrics.jsonl"
_EVENTS_PREFIX = "events.out.tfevents."
_FIRST_COLUMNS = ("step", "epoch")
# Groups of arguments that are not hyperparameters, such as paths and intervals.
_NOT_HYPERPARAMETERS = ("output", "hub", "checkpoints and logs")
_EVENT_FILES = itertools.count()  # numbers the event files of this process, which need different names


def logs_root(args: TrainingArguments) -> Path:
    """Return the directory that holds the logs of runs, `logging_dir` or else `runs` in the output directory."""
    return Path(args.logging_dir) if args.logging_dir else Path(args.output_dir, "runs")


def tracking_directory(args: TrainingArguments, continued: str | None = None) -> Path:
    """Return the directory of a run's logs: `logging_dir`, or `runs/<run_name or time>` in the output directory.

    A new run does not touch the logs of an earlier one there and takes the next free name: first-2 beside runs/first,
    or run-2 inside `logging_dir`.

    Args:
        args: the run's arguments.
        continued: the name of the directory that a resumed run has, as its checkpoint states it: below `runs`, or
            inside `logging_dir`, where "" is that directory itself. It counts unless the arguments now name another.
    """
    root = logs_root(args)
    if args.logging_dir:
        names = itertools.chain([""], (f"run-{number}" for number in itertools.count(2)))
        own = r"(run-\d+)?"
    else:
        first = as_file_name(args.run_name or time.strftime("%Y-%m-%d_%H-%M-%S"))
        names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
        own = r"[^/]+" if args.run_name is None else rf"{re.escape(first)}(-\d+)?"
    if continued is not None and re.fullmatch(own, continued) and continued not in (".", ".."):
        return root / continued
    return next(root / name for name in names if not (root / name).is_dir() or not any((root / name).iterdir()))


def discard_logs(callbacks: Iterable[Callback]) -> None:
    """Delete the log files of the run that these callbacks watch, which is to begin again, and nothing beside them."""
    for callback in callbacks:
        if isinstance(callback, MetricsCallback) and callback.directory is not None:
            with suppress(OSError):
                for path in (callback.directory / CSV_FILE, callback.directory / JSONL_FILE):
                    path.unlink(missing_ok=True)
                for path in callback.directory.glob(f"{_EVENTS_PREFIX}*"):
                    path.unlink()
                callback.directory.rmdir()  # unless another run logs below it


class MetricsCallback(TrainerCallback):
    """A callback that writes every log entry as a row of metrics.csv and a line of metrics.jsonl.

    The CSV has a column for each name of a number in any entry, left empty in entries without it. Numbers are written
    with all their digits. Logs that cannot be written (a full disk) end with a warning, and the training goes on.

    Attributes:
        directory: where it writes; None outside of a run, and once writing has failed.
        log_directory: its name, see `tracking_directory`; a resumed run goes on with it.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.log_directory: str | None = None
        self._columns: tuple[str, ...] = ()
        self._stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Create the run's files, in a resumed run with the entries up to its checkpoint."""
        self._stopped = False
        with self._or_stop():
            self._begin(args, state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the entry, unless it is of an evaluation outside of a run."""
        if self.directory is not None:
            with self._or_stop():
                self._append(kwargs["logs"], state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop writing: later entries do not belong to the run."""
        with self._or_stop():
            self._end()
        self.directory = None

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on with: the name of the directory."""
        return {"args": {}, "attributes": {"log_directory": self.log_directory}}

    @contextmanager
    def _or_stop(self) -> Iterator[None]:
        """End the logs, not the run, when the block cannot write them."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever TensorBoard raises
            if not self._stopped:
                where = "of this run" if self.directory is None else f"in {self.directory}"
                warnings.warn(f"the logs {where} end here, and the training goes on: {error}", stacklevel=5)
            self._stopped, self.directory = True, None

    def _begin(self, args: TrainingArguments, state: TrainerState) -> None:
        self.directory = tracking_directory(args, self.log_directory if state.global_step else None)
        self.log_directory = self.directory.relative_to(logs_root(args)).as_posix().removeprefix(".")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._columns = ()
        if state.global_step:  # entries that an interrupted run logged after its checkpoint are logged again
            self._write(state.log_history)
            write_text(self.directory / JSONL_FILE, "".join(f"{json_text(entry)}\n" for entry in state.log_history))

    def _append(self, entry: dict[str, Any], state: TrainerState) -> None:
        assert self.directory is not None
        with (self.directory / JSONL_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{json_text(entry)}\n")
        if set(numbers_of(entry)) <= set(self._columns):
            with (self.directory / CSV_FILE).open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(numbers_of(entry))
        else:  # the entry has a new name, for example after the first evaluation
            self._write(state.log_history)

    def _end(self) -> None:
        """Close what is open."""

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        """Rewrite the whole CSV with all columns."""
        rows = list(map(numbers_of, entries))
        self._columns = tuple(dict.fromkeys((*_FIRST_COLUMNS, *(name for row in rows for name in row))))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        assert self.directory is not None
        write_text(self.directory / CSV_FILE, text.getvalue())


class TensorBoardCallback(MetricsCallback):
    """A callback that writes entries and hyperparameters for TensorBoard, besides the files of `MetricsCallback`."""

    def __init__(self) -> None:
        super().__init__()
        self._file: BinaryIO | None = None

    def _begin(self, args: TrainingArguments, state: TrainerState) -> None:
        """Create an event file. TensorBoard drops entries that an interrupted run logged after its checkpoint."""
        super()._begin(args, state)
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        assert self.directory is not None
        name = f"{_EVENTS_PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_EVENT_FILES)}"
        self._file = (self.directory / name).open("ab")
        self._add(0, file_version="brain.Event:2")
        if state.global_step:
            logged = int(state.log_history[-1]["step"]) if state.log_history else 0
            self._add(logged + 1, session_log=SessionLog(status=SessionLog.START))
        self._add(state.global_step, summary=hparams_pb(hyperparameters(args)))

    def _append(self, entry: dict[str, Any], state: TrainerState) -> None:
        """Append a scalar for each number of the entry."""
        super()._append(entry, state)
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = {tag(name): value for name, value in numbers_of(entry).items() if name not in _FIRST_COLUMNS}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(state.global_step, summary=Summary(value=values))

    def _end(self) -> None:
        """Close the event file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _add(self, step: int, **content: Any) -> None:
        """Write an event, here and now: TensorBoard's own writer does it in a thread, whose errors nobody catches."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        assert self._file is not None
        RecordWriter(self._file).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
        self._file.flush()


def hyperparameters(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments that affect the results, without those that are None, which TensorBoard does not accept."""
    ready = args.record()
    values = {
        field.name: ready[field.name] for field in fields(args) if field.metadata["group"] not in _NOT_HYPERPARAMETERS
    }
    values |= {name: json_text(value) for name, value in values.items() if isinstance(value, dict | list)}
    encoded = {name: encodable(value) if isinstance(value, str) else value for name, value in values.items()}
    return {name: value for name, value in encoded.items() if value is not None}


def tag(name: str) -> str:
    """Return TensorBoard's tag of a log's name, as in `transformers`: eval/loss for eval_loss, otherwise train/..."""
    name = encodable(name)
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
