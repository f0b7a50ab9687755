"""The callbacks that `disable_tqdm` and `report_to` add: progress, log files, TensorBoard, trackers."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

from ..system.progress import Progress, few_digits
from .arguments import TrainingArguments
from .callbacks import TrainerCallback, TrainerControl
from .run_logs import MetricsCallback, TensorBoardCallback
from .stages import stage_ends, stages_of
from .state import TrainerState, is_curve, numbers_of
from .trackers import TRACKERS


class ProgressCallback(TrainerCallback):
    """A callback that shows the steps done, the time left and the log, on stderr or in Jupyter.

    A line has the training loss since the line before and the evaluation of the same step. It leaves out what changes
    in every step (learning rate and the gradient's norm), which the log files have. Each stage of `matches` has a
    display of its own, for its steps take their own time.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._stages: list[
            tuple[str, int]
        ] = []  # what is shown of each that is left, and the step before which it ends
        self._logged: dict[str, float] = {}  # since the last line, all of one step

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._stages, self._logged = _stages(args, state), {}
        self._begin_stage(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._write(args, state)
        if self._progress is not None and state.steps_passed >= self._stages[0][1]:
            self._progress.close()
            self._begin_stage(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._show(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._logged |= kwargs["logs"]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._write(args, state)
            self._progress.close(finished=state.global_step >= state.max_steps)
            self._progress = None

    def _begin_stage(self, state: TrainerState) -> None:
        while len(self._stages) > 1 and state.steps_passed >= self._stages[0][1]:
            del self._stages[0]
        self._progress = Progress(self._stages[0][0], unit="steps")
        self._show(state)

    def _show(self, state: TrainerState) -> None:
        if self._progress is not None:
            self._progress(state.global_step, self._stages[0][1])

    def _write(self, args: TrainingArguments, state: TrainerState) -> None:
        """Write the line of what was logged, if anything was."""
        logged, self._logged = numbers_of(self._logged), {}
        if self._progress is None or not any(map(_is_shown, logged)):
            return
        figures = [*_losses(logged), *_evaluation(logged, args.metric_for_best_model)]
        left = self._progress.time_left()
        left += " of this stage" if left and len(self._stages) > 1 else ""
        self._progress.write(f"{_place(logged, state)}: {', '.join([*figures, *([left] if left else [])])}", state)


def _stages(args: TrainingArguments, state: TrainerState) -> list[tuple[str, int]]:
    """Return what is shown of each stage of a run, and the step before which it ends."""
    stages = stages_of(getattr(args, "matches", None))
    if len(stages) < 2:
        return [("train", state.max_steps)]
    ends = stage_ends(stages, state.max_steps, state.steps_per_epoch)
    names = (stage.name or f"stage {number}" for number, stage in enumerate(stages, start=1))
    return [(f"train, {name}", end) for name, end in zip(names, ends, strict=True)]


def _is_shown(name: str) -> bool:
    return is_curve(name) and name not in ("grad_norm", "learning_rate", "train_loss")


def _place(logged: dict[str, float], state: TrainerState) -> str:
    """Return the epochs done, of all of them, and inside of an epoch the step."""
    epoch, step = logged["epoch"], f", step {logged['step']}"
    return f"epoch {epoch:.4g} of {state.num_train_epochs}{'' if epoch == int(epoch) else step}"


def _losses(logged: dict[str, float]) -> Iterator[str]:
    """Yield the training loss with its parts, such as hard_loss, in brackets."""
    parts = [
        f"{name.removesuffix('_loss')} {few_digits(value)}"
        for name, value in logged.items()
        if name.endswith("_loss") and not name.startswith("eval_") and _is_shown(name)
    ]
    if "loss" in logged:
        yield f"loss {few_digits(logged['loss'])}" + (f" ({', '.join(parts)})" if parts else "")


def _evaluation(logged: dict[str, float], best: str) -> Iterator[str]:
    """Yield the other figures, the metric that chooses the best weights first."""
    first = f"eval_{best.removeprefix('eval_')}"
    others = [name for name in logged if _is_shown(name) and (name.startswith("eval_") or not name.endswith("loss"))]
    for name in sorted(others, key=lambda name: name != first):
        yield f"{name} {few_digits(logged[name])}"


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
