"""The callbacks that `disable_tqdm` and `report_to` add: progress, log files, TensorBoard, trackers."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from ..system.progress import Progress
from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .run_logs import MetricsCallback, TensorBoardCallback
from .state import TrainerState, is_curve, numbers_of
from .trackers import TRACKERS


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
    """Return the callbacks that `disable_tqdm` and `report_to` ask for.

    Raises:
        ImportError: `report_to` names a package that is not installed.
    """
    callbacks: list[TrainerCallback] = [] if args.disable_tqdm else [ProgressCallback()]
    named = args.reporters()
    if named == ("none",):
        return callbacks
    installed = importlib.util.find_spec("tensorboard") is not None
    if "tensorboard" in named and not installed:
        warnings.warn(
            "report_to is 'tensorboard', but TensorBoard is not installed: the run's directory below runs/ gets "
            'metrics.csv and metrics.jsonl alone; install it with: pip install "kdistill[tensorboard]"',
            stacklevel=3,
        )
    with_events = installed and {"local", "tensorboard", "all"} & {*named}
    callbacks.append(TensorBoardCallback() if with_events else MetricsCallback())
    for tracker in TRACKERS:
        if tracker.package in named and not tracker.is_installed():
            raise ImportError(
                f"report_to is {args.report_to!r}, but {tracker.package} is not installed; install it with: "
                f'pip install "kdistill[{tracker.package}]"'
            )
        if tracker.package in named or ("all" in named and tracker.is_installed()):
            callbacks.append(tracker())
    return callbacks
