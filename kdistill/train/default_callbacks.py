"""The callbacks that `disable_tqdm` and `report_to` add: progress, log files, TensorBoard."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from ..system.progress import Progress
from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .run_logs import MetricsCallback, TensorBoardCallback
from .state import TrainerState, is_curve, numbers_of


class ProgressCallback(TrainerCallback):
    """A callback that shows the steps done, the time left and every log entry, on stderr or in Jupyter."""

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
            shown = (f"{name} {value:.4g}" for name, value in numbers_of(logs).items() if is_curve(name))
            self._progress.write(f"epoch {logs['epoch']:.2f}, step {logs['step']}: {', '.join(shown)}", state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.close(finished=state.global_step >= state.max_steps)
            self._progress = None


def default_callbacks(args: TrainingArguments) -> list[TrainerCallback]:
    """Return the callbacks that `disable_tqdm` and `report_to` ask for."""
    callbacks: list[TrainerCallback] = [] if args.disable_tqdm else [ProgressCallback()]
    if args.report_to == "none":
        return callbacks
    installed = importlib.util.find_spec("tensorboard") is not None
    if args.report_to == "tensorboard" and not installed:
        warnings.warn(
            "report_to is 'tensorboard', but TensorBoard is not installed: the run's directory below runs/ gets "
            'metrics.csv and metrics.jsonl alone; install it with: pip install "kdistill[tensorboard]"',
            stacklevel=3,
        )
    callbacks.append(TensorBoardCallback() if installed and args.report_to != "files" else MetricsCallback())
    return callbacks
