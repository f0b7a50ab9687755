"""`TrainingArguments` and `DistillationTrainingArguments`: all settings of a training run, checked on assignment.

Names and defaults are those of `transformers.TrainingArguments`, with these exceptions: batch size 128; evaluation,
saving and logging once per epoch; the newest and the best checkpoint kept; logs below `runs/`; the best model by
accuracy at the end. This is the only list of
the arguments: the command line's options and their help texts are made from these dataclass fields. It has more than
500 lines because one list is not cut in two.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import math
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..losses.kinds import LEAST_TEMPERATURE, MOST_TEMPERATURE
from ..system.files import json_text
from ..system.notebook import folded, html_table
from .fields import GROUPS, argument, argument_types, checked, did_you_mean_argument
from .schedules import SCHEDULES, check_scheduler_kwargs
from .transformers_names import OTHER_ARGUMENTS, PROCESS, instead_of_method, translate
from .without_effect import RECURRING, warn_of_arguments_without_effect

INTERVALS = ("no", "steps", "epoch")
SAVE_INTERVALS = (*INTERVALS, "best")
SCHEDULERS = tuple(SCHEDULES)
REPORTERS = ("none", "local", "files", "tensorboard", "wandb", "mlflow", "all")
HUB_STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
DEFAULT_STEPS = 500


def greater_is_better(metric: str) -> bool:
    """Return whether the largest value of a metric is the best: of all but losses and squared errors."""
    return not metric.endswith(("loss", "mse"))


def whole_steps(steps: float, max_steps: int) -> int:
    """Return the steps that an argument such as `save_steps` means: a value below 1 is a share of the run, rounded up.

    Args:
        steps: the argument.
        max_steps: steps of the whole run.
    """
    return int(steps) if steps >= 1 else math.ceil(max_steps * steps)


class _TakesNamesOfTransformers(type):
    """A metaclass whose constructor takes every argument of transformers: it translates, ignores or rejects it."""

    def __call__(cls, *args: Any, **given: Any) -> Any:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # its instances are dataclasses
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known and name not in OTHER_ARGUMENTS:
                raise TypeError(f"{cls.__name__} has no argument {name!r}{did_you_mean_argument(name, known)}")
            translated = (name, value) if name in known else translate(name, value, stacklevel=2)
            if translated is not None and translated[0] in values:
                raise TypeError(f"{translated[0]} is given twice, once under an older name; expected one of the two")
            values |= [translated] if translated is not None else []
        made = super().__call__(*args, **values)
        for name in given.keys() - set(known):
            made._keep(name, given[name])
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's signature, for help() and editors, which would otherwise show that of `__call__`."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


@dataclass
class TrainingArguments(metaclass=_TakesNamesOfTransformers):
    """Arguments of `Trainer`. Each field's help text describes it, and `docs/arguments.md` lists them all.

    Values are checked when they are set, in the constructor and later. Every other name that
    `transformers.TrainingArguments` has is understood as well: it sets the argument with the same effect, is ignored
    with a warning, or raises `ValueError` with the reason.

    Raises:
        TypeError: a value has the wrong type, or the constructor is given an unknown name (the message suggests the
            nearest one).
        ValueError: a value is out of its range.
        AttributeError: an unknown name is assigned.
    """

    output_dir: str = argument(
        "trainer_output",
        "directory that receives the model, its model card, the results and the checkpoints",
        group="output",
        none_is_default=True,
        theirs=None,
    )
    overwrite_output_dir: bool = argument(
        False,
        "delete the run that the output directory holds and start anew",
        group="output",
        origin="transformers 4",
    )
    run_name: str | None = argument(
        None,
        "name of the run in the model card and in TensorBoard (default: the output directory's name)",
        group="output",
    )
    search_trials: int | None = argument(
        None,
        "trials of a hyperparameter search that were scored on the evaluation rows before this run, for its model card "
        "to say so; best_run.toml and a search by the same trainer set it",
        group="output",
        at_least=0,
        origin="kdistill",
    )
    plots: bool = argument(
        False,
        "also write pictures into plots/ in the output directory, which the model card shows: the course of the "
        "training, reliability, accuracy against speed (needs the extra kdistill[plots])",
        group="output",
        origin="kdistill",
    )
    push_to_hub: bool = argument(
        False, "upload the finished model to the Hugging Face hub (needs the extra kdistill[hub])", group="hub"
    )
    hub_model_id: str | None = argument(
        None, "repository on the hub, such as user/name (default: the output directory's name)", group="hub"
    )
    hub_private_repo: bool | None = argument(
        None, "whether a repository made on the hub is private (default: the account's setting)", group="hub"
    )
    hub_strategy: str = argument(
        "end",
        "what to upload: the finished model alone, also the model of every checkpoint, or with it the whole newest "
        "checkpoint (as last-checkpoint) or all of them",
        group="hub",
        choices=HUB_STRATEGIES,
        theirs="every_save",
    )
    hub_revision: str | None = argument(
        None, "branch to upload to, made if missing (default: the main one)", group="hub"
    )
    hub_token: str | None = argument(
        None,
        "the hub's access token, never written to a file (default: that of hf auth login)",
        group="hub",
        secret=True,
    )

    num_train_epochs: float = argument(3.0, "how often to go over the training rows", group="training", above=0)
    max_steps: int = argument(
        -1,
        "stop after this many optimiser steps instead of num_train_epochs (-1: no limit)",
        group="training",
        at_least=-1,
    )
    per_device_train_batch_size: int = argument(
        128, "training rows computed together; less needs less memory", group="training", at_least=1, theirs=8
    )
    gradient_accumulation_steps: int = argument(
        1,
        "batches whose gradients are added up before each optimiser step: the same update as a batch that many times "
        "larger, in the memory of one",
        group="training",
        at_least=1,
    )
    dataloader_drop_last: bool = argument(
        False, "leave out the last batch of an epoch when fewer rows are left than a batch has", group="training"
    )
    label_smoothing_factor: float = argument(
        0.0,
        "share of a label's probability that is spread evenly over all labels, in training",
        group="training",
        at_least=0,
        at_most=1,
    )
    max_length: int | None = argument(
        None,
        "cut sentences to this many tokens (default: as many as the model has positions)",
        group="training",
        at_least=3,
        origin="kdistill",
    )
    seed: int = argument(
        42,
        "seed of all randomness: order of the rows, dropout, new weights",
        group="training",
        at_least=0,
        at_most=2**32 - 1,
    )
    data_seed: int | None = argument(
        None,
        "seed of the order of the rows and of their augmented copies alone (default: seed)",
        group="training",
        at_least=0,
        at_most=2**32 - 1,
    )

    learning_rate: float = argument(5e-5, "AdamW's highest learning rate", group="optimiser", at_least=0)
    lr_scheduler_type: str = argument(
        "linear",
        "how the learning rate falls after the warm-up (reduce_lr_on_plateau and greedy have none: they follow "
        "metric_for_best_model at each evaluation)",
        group="optimiser",
        choices=SCHEDULERS,
    )
    lr_scheduler_kwargs: dict[str, Any] | str | None = argument(  # noqa: RUF009  # a dataclass field, as all of them
        None,
        "settings of the schedule, such as num_cycles, power, min_lr or num_decay_steps, as in transformers; on the "
        "command line as JSON",
        group="optimiser",
    )
    warmup_ratio: float = argument(
        0.0,
        "share of all steps in which the learning rate rises from 0",
        group="optimiser",
        at_least=0,
        at_most=1,
        origin="transformers 4",
    )
    warmup_steps: float = argument(
        0,
        "steps in which the learning rate rises from 0, below 1 a share of all steps; comes before warmup_ratio",
        group="optimiser",
        at_least=0,
        steps=True,
    )
    weight_decay: float = argument(
        0.0, "AdamW's decoupled weight decay (never on biases and LayerNorm)", group="optimiser", at_least=0
    )
    adam_beta1: float = argument(0.9, "AdamW's decay of the mean of gradients", group="optimiser", at_least=0, below=1)
    adam_beta2: float = argument(
        0.999, "AdamW's decay of the mean of squared gradients", group="optimiser", at_least=0, below=1
    )
    adam_epsilon: float = argument(1e-8, "AdamW's term against division by zero", group="optimiser", at_least=0)
    max_grad_norm: float = argument(
        1.0, "scale gradients down to this norm when theirs is larger (0: never)", group="optimiser", at_least=0
    )
    ema_decay: float = argument(
        0.0,
        "evaluate and keep an exponential moving average of the weights with this decay a step, not the last ones "
        "(0: no average)",
        group="optimiser",
        at_least=0,
        below=1,
        origin="kdistill",
    )

    eval_strategy: str = argument(
        "epoch",
        "when to evaluate: never, every eval_steps or every epoch (eval_steps alone means steps)",
        group="evaluation",
        choices=INTERVALS,
        left_open=True,
        theirs="no",
    )
    eval_steps: float | None = argument(
        None,
        "steps between evaluations, below 1 a share of all steps (default: logging_steps, or else 500)",
        group="evaluation",
        above=0,
        steps=True,
    )
    eval_delay: float = argument(
        0.0, "epochs, or steps with eval_strategy steps, before the first evaluation", group="evaluation", at_least=0
    )
    eval_on_start: bool = argument(False, "evaluate before the first step as well", group="evaluation")
    per_device_eval_batch_size: int = argument(
        128, "rows computed together in evaluation", group="evaluation", at_least=1, theirs=8
    )
    load_best_model_at_end: bool | None = argument(
        None,
        "keep the weights of the best evaluation, not the last ones (default: yes, when the run both evaluates and "
        "saves)",
        group="evaluation",
        theirs=False,
    )
    metric_for_best_model: str = argument(
        "accuracy",
        "metric that names the best model; left to its default, that of a regression is loss; with several evaluation "
        "sets one is named before it, such as hard_accuracy (default: the first)",
        group="evaluation",
        left_open=True,
        theirs=None,
    )
    greater_is_better: bool | None = argument(
        None,
        "whether a greater metric is better (default: no for names that end in loss or mse)",
        group="evaluation",
    )

    save_strategy: str = argument(
        "epoch",
        "when to write a checkpoint: never, every save_steps (which alone means steps), every epoch or at a new best "
        "evaluation (which is saved at once in any case when it is to be loaded at the end)",
        group="checkpoints and logs",
        choices=SAVE_INTERVALS,
        left_open=True,
        theirs="steps",
    )
    save_steps: float | None = argument(
        None,
        "steps between checkpoints, below 1 a share of all steps (default: 500)",
        group="checkpoints and logs",
        above=0,
        steps=True,
        theirs=500,
    )
    save_total_limit: int | None = argument(
        1,
        "keep at most this many checkpoints, always the newest and the best, so that 1 keeps these two (0, or None in "
        "Python: all)",
        group="checkpoints and logs",
        at_least=0,
        theirs=None,
    )
    logging_strategy: str = argument(
        "epoch",
        "when to log the training loss: never, every logging_steps (which alone means steps) or every epoch",
        group="checkpoints and logs",
        choices=INTERVALS,
        left_open=True,
        theirs="steps",
    )
    logging_steps: float | None = argument(
        None,
        "steps between logs, below 1 a share of all steps; the last step is logged too (default: 500)",
        group="checkpoints and logs",
        above=0,
        steps=True,
        theirs=500,
    )
    logging_first_step: bool = argument(False, "log the first step as well", group="checkpoints and logs")
    logging_dir: str | None = argument(
        None,
        "directory of what report_to asks for (default: one per run under runs/ in the output directory)",
        group="checkpoints and logs",
        origin="transformers 4",
    )
    report_to: str = argument(
        "local",
        "also log into a directory per run below runs/: files means CSV and JSON lines, tensorboard these and events "
        "for TensorBoard, local the latter where it is installed; wandb and mlflow log through these packages (extras "
        "of the same names), all through whatever is installed; several as A,B",
        group="checkpoints and logs",
        choices=REPORTERS,
        several=True,
        none_is_default=True,
        theirs="none",
    )
    disable_tqdm: bool = argument(
        False, "show no progress", group="checkpoints and logs", none_is_default=True, theirs=None
    )

    _left_open = frozenset[str]()
    """The arguments whose latest value was None: their defaults hold, and may depend on other arguments."""
    _settled = False
    _kept = MappingProxyType[str, Any]({})
    """What was given for arguments of `OTHER_ARGUMENTS` that scripts may read."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = {argument.name: argument for argument in fields(self)}
        if name in OTHER_ARGUMENTS and name not in known:
            translated = translate(name, value, stacklevel=2)
            if translated is not None:
                setattr(self, *translated)
            self._keep(name, value)
            return
        if name not in known:
            raise AttributeError(f"{type(self).__name__} has no argument {name!r}{did_you_mean_argument(name, known)}")
        kind, optional = argument_types(type(self))[name]
        self._settle(name, checked(known[name], kind, optional, value))
        left_open = self._left_open | {name} if value is None else self._left_open - {name}
        object.__setattr__(self, "_left_open", left_open)
        if self._settled:
            self._follow_assignment(name, value)

    def __getattr__(self, name: str) -> Any:
        """Return what scripts of transformers read: arguments under other names, those that are not here, the process.

        An argument that is not here has the value that holds: the given one where it changes nothing or is for scripts
        alone, else the default of transformers. Python calls this only when normal lookup fails.
        """
        other = OTHER_ARGUMENTS.get(name)
        if other is None and name in PROCESS:
            return PROCESS[name]
        if other is None:
            hint = did_you_mean_argument(name, [field.name for field in fields(self)])
            raise AttributeError(f"{type(self).__name__} has no argument {name!r}{instead_of_method(name) or hint}")
        if other.becomes is not None:
            return getattr(self, other.becomes)
        if name == "do_eval" and "eval_strategy" not in self._left_open and self.eval_strategy != "no":
            return True  # as in transformers
        return copy.copy(self._kept.get(name, other.default))

    def _keep(self, name: str, value: Any) -> None:
        """Remember what was given for one of `OTHER_ARGUMENTS`, or that it does not hold."""
        rest = {other: old for other, old in self._kept.items() if other != name}
        kept = {name: value} if OTHER_ARGUMENTS[name].is_kept(value) else {}
        object.__setattr__(self, "_kept", rest | kept)

    def _settle(self, name: str, value: Any) -> None:
        """Set a value that was checked, or that follows from other arguments."""
        object.__setattr__(self, name, value)

    def _follow_assignment(self, name: str, value: Any) -> None:
        """Let the latest assignment decide where an interval's strategy and its steps do not go together."""
        what, _, which = name.rpartition("_")
        if what not in RECURRING:
            return
        if which == "steps" and value is not None:
            self._settle(f"{what}_strategy", "steps")
        self._settle_steps(what)

    def _settle_steps(self, what: str) -> None:
        """Set the steps of an interval: a number with the strategy steps, None with another."""
        steps = f"{what}_steps"
        if getattr(self, f"{what}_strategy") != "steps":
            self._settle(steps, None)
        elif getattr(self, steps) is None:
            self._settle(steps, (self.logging_steps if what == "eval" else None) or DEFAULT_STEPS)

    def _settle_intervals(self) -> None:
        """Let a given number of steps decide a strategy that is left open."""
        for what in RECURRING:
            if getattr(self, f"{what}_steps") is not None and f"{what}_strategy" in self._left_open:
                self._settle(f"{what}_strategy", "steps")
        for what in RECURRING:
            self._settle_steps(what)

    def __post_init__(self) -> None:
        self.output_dir = str(Path(self.output_dir).expanduser())
        given = [field.name for field in fields(self) if self._was_chosen(field)]
        self._settle_intervals()
        self.reporters()
        self._check_schedule()
        if self.greater_is_better is None:
            self._settle("greater_is_better", greater_is_better(self.metric_for_best_model))
        self._settle_best_model()
        warn_of_arguments_without_effect(self, given, stacklevel=4)
        object.__setattr__(self, "_settled", True)

    def _was_chosen(self, field: Field[Any]) -> bool:
        """Return whether an argument has another value than its default because someone gave it."""
        if field.name in self._left_open or not field.metadata:
            return False
        nobody_asked = [field.metadata["default"], field.metadata["theirs"]]
        if field.name == "greater_is_better":
            nobody_asked.append(greater_is_better(self.metric_for_best_model))
        return getattr(self, field.name) not in nobody_asked

    def _check_schedule(self) -> None:
        """Raise `ValueError` for settings that the schedule does not have, or evaluations that it lacks."""
        check_scheduler_kwargs(self.lr_scheduler_type, self.scheduler_kwargs())
        if SCHEDULES[self.lr_scheduler_type].follows_evaluations and self.eval_strategy == "no":
            raise ValueError(
                f"lr_scheduler_type is {self.lr_scheduler_type!r} with eval_strategy 'no'; expected 'epoch' or 'steps' "
                "for the latter"
            )

    def _settle_best_model(self) -> None:
        if self.load_best_model_at_end is None:
            self._settle("load_best_model_at_end", "no" not in (self.eval_strategy, self.save_strategy))
        elif self.load_best_model_at_end and "no" in (self.eval_strategy, self.save_strategy):
            raise ValueError(
                f"load_best_model_at_end is True with eval_strategy {self.eval_strategy!r} and save_strategy "
                f"{self.save_strategy!r}; expected 'epoch' or 'steps' for both"
            )
        if self.save_strategy == "best" and self.eval_strategy == "no":
            raise ValueError(
                "save_strategy is 'best' with eval_strategy 'no'; expected 'epoch' or 'steps' for the latter"
            )

    def is_given(self, name: str) -> bool:
        """Return whether an argument that is declared as left open has been set, to whatever value."""
        return name not in self._left_open

    def get_data_seed(self) -> int:
        """Return the seed of the order of the rows: `data_seed`, or `seed` if that is None."""
        return self.seed if self.data_seed is None else self.data_seed

    def reporters(self) -> tuple[str, ...]:
        """Return what `report_to` names, one by one. Raises `ValueError` for "none" among others."""
        named = tuple(dict.fromkeys(self.report_to.split(",")))
        if "none" in named and len(named) > 1:
            raise ValueError(f"report_to is {self.report_to!r}; expected 'none' alone, or the others without it")
        return named

    def scheduler_kwargs(self) -> dict[str, Any]:
        """Return `lr_scheduler_kwargs`, with the mode of a schedule that follows evaluations from `greater_is_better`.

        PyTorch's own default is "min" for any metric, which lets the learning rate fall while the accuracy rises.
        """
        given = self.lr_scheduler_kwargs if isinstance(self.lr_scheduler_kwargs, dict) else {}
        if SCHEDULES[self.lr_scheduler_type].follows_evaluations:
            return {"mode": "max" if self.greater_is_better else "min", **given}
        return dict(given)

    def settle_best_metric(self, metric: str) -> None:
        """Set `metric_for_best_model`, if it was not given, to the metric that the model's task names."""
        if "metric_for_best_model" in self._left_open:
            self._settle("metric_for_best_model", metric)
            if "greater_is_better" in self._left_open:
                self._settle("greater_is_better", greater_is_better(metric))

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of warm-up steps: `warmup_steps`, or `warmup_ratio` of the run, rounded up."""
        if self.warmup_steps:
            return whole_steps(self.warmup_steps, num_training_steps)
        return math.ceil(num_training_steps * self.warmup_ratio)

    def get_process_log_level(self) -> int:
        """Return the level for the loggers of a script: that of a warning, as in transformers by default."""
        return logging.WARNING

    @contextlib.contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Do the work in the `with` block, which the only process is the first to do."""
        yield

    @property
    def train_batch_size(self) -> int:
        """The rows of a batch on all devices, of which there is one."""
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        """Likewise for evaluation."""
        return self.per_device_eval_batch_size

    def to_json_string(self) -> str:
        """Return all arguments as JSON; a secret as null."""
        return json_text(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """Return all arguments with values that trackers take: numbers, bools and text."""
        return {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.to_dict().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as JSON-ready values, in the order of the fields; a secret (`hub_token`) as None."""
        return asdict(self) | dict.fromkeys(secret_arguments())

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the arguments that differ from their defaults, and all others folded."""
        values, ordered = self.to_dict(), sorted(fields(self), key=lambda field: GROUPS.index(field.metadata["group"]))
        defaults = type(self)().to_dict()
        chosen = [field for field in ordered if values[field.name] != defaults[field.name]]
        left = [field for field in ordered if field not in chosen]
        header = ("argument", "value", "what it is")
        tables = [
            html_table(
                caption,
                ((field.name, str(values[field.name]), field.metadata["help"]) for field in listed),
                header=header,
            )
            for caption, listed in ((type(self).__name__, chosen), ("", left))
        ]
        return tables[0] + folded(f"{len(left)} arguments at their defaults", tables[1])


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """Arguments of `DistillationTrainer`: those of `TrainingArguments`, and those of the distillation loss.

    The loss is the mean over the batch of `alpha * CE(labels) + (1 - alpha) * temperature**2 * KL(softmax(teacher /
    temperature) || softmax(student / temperature))` (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531).
    """

    alpha: float = argument(
        0.5,
        "weight of the labels in the loss; the teacher has weight 1 - alpha (rows without a label learn from the "
        "teacher alone)",
        group="distillation",
        origin="kdistill",
        at_least=0,
        at_most=1,
        left_open=True,
    )
    temperature: float = argument(
        4.0,
        "softens the teacher's and the student's probabilities: higher shows more of how the teacher ranks the wrong "
        "labels",
        group="distillation",
        origin="kdistill",
        at_least=LEAST_TEMPERATURE,
        at_most=MOST_TEMPERATURE,
    )
    augment: int = argument(
        0,
        "augmented copies of each training row to learn from besides it, with words replaced by their neighbours in "
        "the teacher's embedding matrix, some cut to a span; labelled by the teacher alone",
        group="distillation",
        origin="kdistill",
        at_least=0,
    )
    teacher_cache: bool = argument(
        True,
        "keep the teacher's logits on disk (KDISTILL_CACHE or the user's cache directory), so that later runs skip "
        "the teacher",
        group="distillation",
        origin="kdistill",
    )


def secret_arguments() -> tuple[str, ...]:
    """Return the names of the arguments whose values must never be shown or written."""
    return tuple(field.name for field in fields(TrainingArguments) if field.metadata["secret"])
