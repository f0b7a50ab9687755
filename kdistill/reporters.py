"""The callbacks that show a run while it goes on: progress on a terminal, TensorBoard."""

from __future__ import annotations

import importlib.util
import time
import warnings
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .progress import Progress
from .state import TrainerState, is_curve


class ProgressCallback(TrainerCallback):
    """Shows the steps done, the time left and every log entry on stderr."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress = Progress("train", unit="steps")
        self._progress(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            logs: dict[str, float] = kwargs["logs"]
            shown = (f"{name} {value:.4g}" for name, value in logs.items() if is_curve(name))
            self._progress.write(f"epoch {logs['epoch']:.2f}, step {logs['step']}: {', '.join(shown)}", state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.close(finished=state.global_step >= state.max_steps)
            self._progress = None


class TensorBoardCallback(TrainerCallback):
    """Writes every log entry for `tensorboard --logdir`: into `logging_dir`, or `runs/` in the output directory."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        run_name = args.run_name or time.strftime("%Y-%m-%d_%H-%M-%S")
        self._writer = EventFileWriter(args.logging_dir or str(Path(args.output_dir, "runs", run_name)))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._writer is None:
            return  # an evaluation outside training
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in kwargs["logs"].items()
            if name not in ("epoch", "step")
        ]
        self._writer.add_event(Event(wall_time=time.time(), step=state.global_step, summary=Summary(value=values)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str) -> str:
    """Group a log's name as `transformers` does: eval_loss becomes eval/loss, all else train/..."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def default_callbacks(args: TrainingArguments) -> list[TrainerCallback]:
    """The callbacks that `disable_tqdm` and `report_to` ask for."""
    callbacks: list[TrainerCallback] = [] if args.disable_tqdm else [ProgressCallback()]
    if args.report_to in ("tensorboard", "all"):
        if importlib.util.find_spec("tensorboard") is not None:
            callbacks.append(TensorBoardCallback())
        elif args.report_to == "tensorboard":
            warnings.warn(
                "report_to is 'tensorboard', but TensorBoard is not installed, so no runs/ is written (trainer_state"
                '.json holds every log entry too); install it with: pip install "kdistill[tensorboard]"',
                stacklevel=3,
            )
    return callbacks
