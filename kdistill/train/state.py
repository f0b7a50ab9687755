"""`TrainerState`: all that a training run must remember beside parameters and optimiser to go on bit for bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..system.files import json_text, read_json_object, write_text
from ..system.notebook import html_table
from .arguments import DEFAULT_STEPS, TrainingArguments, whole_steps
from .world import current_world

STATE_FILE = "trainer_state.json"
# Fields that earlier versions lacked, with what holds for their runs: every teacher computed in float32.
_OF_EARLIER_VERSIONS: dict[str, Any] = {
    "interrupted": False,
    "ranks": 1,
    "unfinished": {},
    "settled": {"teacher_dtype": "float32"},
}


@dataclass
class TrainerState:
    """The progress of a run.

    The order of the rows follows from the seed and the epoch, dropout from the seed and the optimiser step, the
    learning rate from the step; so these few numbers, with the parameters and AdamW's m, v and step, are a whole run.
    """

    epoch: float = 0.0
    """Epochs done, with the fraction of the present one."""
    global_step: int = 0
    """Optimiser steps done."""
    skipped_steps: int = 0
    """Steps of epochs that a callback ended early (`control.should_epoch_stop`): they count as passed."""
    max_steps: int = 0
    """Optimiser steps of the whole run."""
    num_train_epochs: int = 0
    """Epochs of the whole run, with the last one that is begun."""
    logging_steps: int = 0
    eval_steps: int = 0
    save_steps: int = 0
    """The arguments of these names as whole steps of this run."""
    stopped: bool = False
    """Whether a callback ended the run before `max_steps`."""
    log_history: list[dict[str, float]] = field(default_factory=list)
    """One entry per logged training loss, per evaluation and, at the end, for the run: oldest first."""
    best_metric: float | None = None
    best_global_step: int | None = None
    """The step whose evaluation gave `best_metric`."""
    best_model_checkpoint: str | None = None
    """Directory of that step's checkpoint, once it is written."""
    total_loss: float = 0.0
    """Sum of the losses of all steps done."""
    logged_step: int = 0
    logged_loss: float = 0.0
    """`global_step` and `total_loss` at the latest logged training loss."""
    part_sums: dict[str, float] = field(default_factory=dict)
    part_steps: dict[str, int] = field(default_factory=dict)
    """Of each part of the loss, by the name it is logged under: the sum of its means over the steps since
    `logged_step`, and how many of these steps had it."""
    train_runtime: float = 0.0
    """Seconds of training so far, in all the processes that the run took."""
    trained_on: dict[str, str] = field(default_factory=dict)
    """Hashes of the encoded training rows ("data") and of the teacher's weights ("teacher"), where there is one: a run
    is resumed on these only."""
    settled: dict[str, Any] = field(default_factory=dict)
    """What was decided before the first step, and a resumed run keeps: the teacher's compute type and its check."""
    evaluated_on: str = ""
    """Hash of the encoded evaluation rows, empty without any: evaluations of a run are of the same rows."""
    stateful_callbacks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What callbacks with a state go on with, by the name of their class."""
    interrupted: bool = False
    """Whether an interrupt, and no strategy, has left this checkpoint: the next one takes its place."""
    unfinished: dict[str, Any] = field(default_factory=dict)
    """What was still to be done after the latest step, see `resume_points`."""
    args: dict[str, Any] = field(default_factory=dict)
    """The run's `TrainingArguments`, see `TrainingArguments.record`."""
    ranks: int = 1
    """How many processes share the micro-batches of a step."""

    steps_per_epoch = 0  # no field: it follows from the rows and the arguments, see `set_length`

    @property
    def is_world_process_zero(self) -> bool:
        """Whether this process is the one that writes: callbacks that were written for transformers ask."""
        return current_world().leads

    @property
    def is_local_process_zero(self) -> bool:
        """Whether this process is the first on its host."""
        return current_world().local_rank == 0

    @property
    def callback_states(self) -> dict[str, list[dict[str, Any]]]:
        """The states that callbacks had when this state was saved."""
        states: dict[str, list[dict[str, Any]]] = self.unfinished.get("callbacks", self.stateful_callbacks)
        return states

    @property
    def steps_passed(self) -> int:
        """Optimiser steps done or skipped; a resumed run continues from here."""
        return self.global_step + self.skipped_steps

    def set_length(self, args: TrainingArguments, max_steps: int, steps_per_epoch: int) -> None:
        """Set how long the run is to be, and the intervals that follow."""
        self.stopped = self.stopped and self.max_steps == max_steps
        self.max_steps, self.steps_per_epoch, self.args = max_steps, steps_per_epoch, args.record()
        self.ranks = args.world_size
        self.num_train_epochs = math.ceil(max_steps / steps_per_epoch)
        self.logging_steps = whole_steps(args.logging_steps or DEFAULT_STEPS, max_steps)
        self.eval_steps = whole_steps(args.eval_steps or DEFAULT_STEPS, max_steps)
        self.save_steps = whole_steps(args.save_steps or DEFAULT_STEPS, max_steps)

    def add_step(self, loss: float, parts: Mapping[str, float]) -> None:
        """Count a step: its mean loss, and the mean of each part of the loss by name."""
        self.total_loss += loss
        for name, mean in parts.items():
            self.part_sums[name] = self.part_sums.get(name, 0.0) + mean
            self.part_steps[name] = self.part_steps.get(name, 0) + 1
        self.global_step += 1

    def mean_losses_since_log(self) -> dict[str, float]:
        """Return the mean loss and the means of its parts over the steps since the last call, by the logged names."""
        loss = (self.total_loss - self.logged_loss) / (self.global_step - self.logged_step)
        parts = {name: total / self.part_steps[name] for name, total in self.part_sums.items()}
        self.part_sums, self.part_steps = {}, {}
        self.logged_step, self.logged_loss = self.global_step, self.total_loss
        return {"loss": loss, **parts}

    def is_finished(self, max_steps: int) -> bool:
        """Return whether a run of `max_steps` has ended: all steps are passed, or a callback stopped it."""
        return self.steps_passed >= max_steps or (self.stopped and self.max_steps == max_steps)

    def copied(self) -> TrainerState:
        """Return a copy that further steps leave alone; only the list of log entries is shared."""
        copied = copy.copy(self)
        copied.part_sums, copied.part_steps = dict(self.part_sums), dict(self.part_steps)
        return copied

    def to_json(self) -> str:
        """Return the content of `trainer_state.json`."""
        return json_text(asdict(self), indent=2) + "\n"

    def save(self, directory: Path) -> None:
        """Write `trainer_state.json` into `directory`, atomically."""
        write_text(directory / STATE_FILE, self.to_json())

    @classmethod
    def load(cls, directory: Path) -> TrainerState:
        """Read `trainer_state.json` of a checkpoint or of an output directory.

        A figure that was not finite is NaN. Raises `ValueError` for one that another program or version wrote.
        """
        stored = read_json_object(directory / STATE_FILE)
        if isinstance(stored.get("trained_on"), str):
            stored["trained_on"] = _fingerprint_in_words(stored["trained_on"])
        stored = {**_OF_EARLIER_VERSIONS, **stored}
        expected = {field.name for field in fields(cls)}
        if set(stored) != expected:
            different = ", ".join(sorted(set(stored) ^ expected))
            raise ValueError(
                f"{directory / STATE_FILE} is of another program or version than this (it differs in {different}); "
                "choose another output_dir"
            )
        for name, kind in get_type_hints(cls).items():
            stored[name] = _with_nan(stored[name], kind)
            if not _is_a(stored[name], kind):
                raise ValueError(f"{directory / STATE_FILE}: {name} is {stored[name]!r}; expected {kind}")
        return cls(**stored)

    def history(self) -> list[dict[str, float]]:
        """Training loss and evaluation of each step that has either, as one entry a step, oldest first."""
        by_step: dict[int, dict[str, float]] = {}
        for entry in self.log_history:
            if "loss" in entry or is_evaluation(entry):
                by_step.setdefault(int(entry["step"]), {}).update(entry)
        return [by_step[step] for step in sorted(by_step)]

    def _repr_html_(self) -> str:
        """Return the history as an HTML table for Jupyter."""
        history = self.history()
        columns = ["step", *dict.fromkeys(name for entry in history for name in entry if is_curve(name))]
        return html_table(
            f"{self.global_step:,} of {self.max_steps:,} steps",
            ([f"{entry['epoch']:.2f}", *(entry.get(name) for name in columns)] for entry in history),
            header=["epoch", *columns],
        )

    def take_if_better(self, metric: float, greater_is_better: bool) -> bool:
        """Make the present step the best if `metric` is finite and beats the best so far (an equal one does not)."""
        sign = 1 if greater_is_better else -1
        better = math.isfinite(metric) and (self.best_metric is None or sign * metric > sign * self.best_metric)
        if better:
            self.best_metric, self.best_global_step = metric, self.global_step
        return better

    def forget_best(self) -> None:
        """Let no evaluation be the best so far."""
        self.best_metric = self.best_global_step = self.best_model_checkpoint = None


def _with_nan(value: Any, kind: Any) -> Any:
    """Return a value from a JSON file with NaN for each null where a field of this type has a number."""
    if kind is float and value is None:
        return math.nan
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _with_nan(item, get_args(kind)[1]) for name, item in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        return [_with_nan(item, get_args(kind)[0]) for item in value]
    return value


def packed(value: Any) -> Any:
    """Return a value with {"float": "inf"} for each number that is not finite, of which JSON has none."""
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {name: packed(item) for name, item in value.items()}
    return [packed(item) for item in value] if isinstance(value, list | tuple) else value


def unpacked(value: Any) -> Any:
    """Return the value that `packed` was given."""
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            return float(value["float"])
        return {name: unpacked(item) for name, item in value.items()}
    return [unpacked(item) for item in value] if isinstance(value, list) else value


def read_figures(path: Path) -> dict[str, float]:
    """Return the figures by name in a JSON file, such as all_results.json; NaN is what was not finite."""
    figures: dict[str, float] = _with_nan(read_json_object(path), dict[str, float])
    return figures


def _fingerprint_in_words(words: str) -> dict[str, str]:
    """Return `trained_on` as kdistill wrote it at first: the hash of the rows, a space, and that of the teacher."""
    return dict(zip(("data", "teacher"), words.split(), strict=False))


def is_evaluation(entry: Mapping[str, Any]) -> bool:
    """Return whether a log entry is an evaluation, of the only set (eval_loss) or of one of several (eval_a_loss)."""
    return any(name.startswith("eval_") and name.endswith("loss") for name in entry)


def is_curve(name: str) -> bool:
    """Return whether a figure of a log entry measures how well the training goes, not its progress or speed."""
    return name not in ("epoch", "step") and not name.endswith(("_runtime", "_per_second", "_n"))


def numbers_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a log entry: a user's metrics may hold lists, texts and dictionaries too."""
    return {name: value for name, value in entry.items() if isinstance(value, int | float)}


def _is_a(value: Any, kind: Any) -> bool:
    """Return whether a value from a JSON file has a field's type; a whole number counts as a float."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    types = tuple(get_origin(each) or each for each in kinds)
    return type(value) in types or (type(value) is int and float in types)
