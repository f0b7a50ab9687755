"""Log files of a run for other programs to plot: CSV, JSON lines and TensorBoard's events, in a directory per run.

CSV and JSON lines hold exactly the entries of `state.log_history`, also after a run was killed and resumed.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..system.files import atomic_write
from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .state import TrainerState

CSV_FILE, JSONL_FILE = "metrics.csv", "metrics.jsonl"
_FIRST_COLUMNS = ("step", "epoch")
# Groups of arguments that are not hyperparameters, such as paths and intervals.
_NOT_HYPERPARAMETERS = ("output", "hub", "checkpoints and logs")


def tracking_directory(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the directory of a run's logs: `logging_dir`, or `runs/<run_name or time>` in the output directory.

    A new run does not touch the logs of an earlier one there and takes the next free name: first-2 beside runs/first,
    or run-2 inside `logging_dir`. A resumed run continues in the newest directory.
    """
    runs = Path(args.output_dir, "runs")
    unnamed = args.logging_dir is None and args.run_name is None
    if unnamed and state.global_step and runs.is_dir() and any(runs.iterdir()):
        return max(runs.iterdir(), key=lambda path: path.stat().st_mtime)
    base = Path(args.logging_dir) if args.logging_dir else runs / (args.run_name or time.strftime("%Y-%m-%d_%H-%M-%S"))

    def numbered(number: int) -> Path:
        if number == 1:
            return base
        return base / f"run-{number}" if args.logging_dir else base.with_name(f"{base.name}-{number}")

    free = next(n for n in itertools.count(1) if not numbered(n).is_dir() or not any(numbered(n).iterdir()))
    return numbered(max(1, free - 1) if state.global_step else free)


class MetricsCallback(TrainerCallback):
    """A callback that writes every log entry as a row of metrics.csv and a line of metrics.jsonl.

    The CSV has a column for each name that occurs in any entry, left empty in entries without it. Numbers are written
    with all their digits.
    """

    def __init__(self) -> None:
        self.directory: Path | None = None
        self._columns: tuple[str, ...] = ()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Create the run's files, in a resumed run with the entries up to its checkpoint."""
        self.directory = tracking_directory(args, state)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._columns = ()
        if state.log_history:
            self._write(state.log_history)
            lines = "".join(map(_json_line, state.log_history))
            atomic_write(self.directory / JSONL_FILE, lines.encode())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the entry to both files."""
        if self.directory is None:
            return  # an evaluation outside training
        entry: dict[str, float] = kwargs["logs"]
        with (self.directory / JSONL_FILE).open("a", encoding="utf-8") as file:
            file.write(_json_line(entry))
        if set(entry) <= set(self._columns):
            with (self.directory / CSV_FILE).open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(entry)
        else:  # the entry has a new name, for example after the first evaluation
            self._write(state.log_history)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop writing: later entries do not belong to the run."""
        self.directory = None

    def _write(self, entries: Sequence[dict[str, float]]) -> None:
        """Rewrite the whole CSV with all columns."""
        self._columns = tuple(dict.fromkeys((*_FIRST_COLUMNS, *(name for entry in entries for name in entry))))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(entries)
        assert self.directory is not None
        atomic_write(self.directory / CSV_FILE, text.getvalue().encode())


class TensorBoardCallback(MetricsCallback):
    """A callback that writes entries and hyperparameters for TensorBoard, besides the files of `MetricsCallback`."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Create an event file. TensorBoard drops entries that an interrupted run logged after its checkpoint."""
        super().on_train_begin(args, state, control, **kwargs)
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(self.directory))
        if state.global_step:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=state.global_step + 1, session_log=start))
        self._add(state.global_step, hparams_pb(hyperparameters(args)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append a scalar for each number of the entry."""
        super().on_log(args, state, control, **kwargs)
        if self._writer is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = {tag(name): value for name, value in kwargs["logs"].items() if name not in _FIRST_COLUMNS}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(state.global_step, Summary(value=values))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the event file."""
        super().on_train_end(args, state, control, **kwargs)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _json_line(entry: dict[str, float]) -> str:
    """Return the entry as a line of JSON, which has neither NaN nor infinity: both become null."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in entry.items()}) + "\n"


def hyperparameters(args: TrainingArguments) -> dict[str, Any]:
    """Return the arguments that affect the results, without those that are None, which TensorBoard does not accept."""
    values = {
        field.name: getattr(args, field.name)
        for field in fields(args)
        if field.metadata["group"] not in _NOT_HYPERPARAMETERS
    }
    values |= {name: json.dumps(value) for name, value in values.items() if isinstance(value, dict)}
    return {name: value for name, value in values.items() if value is not None}


def tag(name: str) -> str:
    """Return TensorBoard's tag of a log's name, as in `transformers`: eval/loss for eval_loss, otherwise train/..."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
