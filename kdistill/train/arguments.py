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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from ..losses.embeddings import EMBEDDING_LOSSES
from ..losses.kinds import LEAST_TEMPERATURE, MOST_TEMPERATURE
from ..models.trained_with import check_threshold
from ..system.compute import COMPUTE_TYPES
from ..system.files import json_text
from ..system.notebook import folded, html_table
from ..system.output import given_path
from .byte_sizes import read_size
from .fields import GROUPS, argument, argument_types, checked, did_you_mean_argument
from .label_weights import MOST_BALANCED_POS_WEIGHT, read_weights
from .matches import Match, Stage
from .presets import RECIPES, STUDENT_PRESETS
from .schedules import SCHEDULES, check_scheduler_kwargs
from .stages import PRESETS, matches_hash, read_matches, rows_of
from .transformers_names import OTHER_ARGUMENTS, PROCESS, instead_of_method, translate
from .without_effect import RECURRING, warn_of_arguments_without_effect
from .world import current_world

INTERVALS = ("no", "steps", "epoch")
SAVE_INTERVALS = (*INTERVALS, "best")
SCHEDULERS = tuple(SCHEDULES)
REPORTERS = ("none", "local", "files", "tensorboard", "wandb", "mlflow", "all")
HUB_STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
TEACHER_DTYPES = ("auto", *COMPUTE_TYPES)
COURSES = ("constant", "linear", "cosine")
DEFAULT_STEPS = 500


def greater_is_better(metric: str) -> bool:
    """Return whether the largest value of a metric is the best: of all but losses, perplexity and squared errors."""
    return not metric.endswith(("loss", "perplexity", "mse"))


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
        made._leave_open(set(known[len(args) :]) - set(values))
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
        "directory for the model, the model card, the results and the checkpoints",
        group="output",
        none_is_default=True,
        theirs=None,
    )
    overwrite_output_dir: bool = argument(
        False,
        "delete an earlier run in the output directory and start again",
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
        "number of hyperparameter search trials scored on the evaluation rows before this run; reported in the model "
        "card, and set by best_run.toml or by a search with the same trainer",
        group="output",
        at_least=0,
        origin="kdistill",
    )
    plots: bool = argument(
        False,
        "also write pictures into plots/ in the output directory, which the model card shows: the course of the "
        "training, reliability, confusions, accuracy against speed (needs the extra kdistill[plots])",
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
        None, "make a newly created hub repository private (default: the account's setting)", group="hub"
    )
    hub_strategy: str = argument(
        "end",
        "what to upload: only the finished model (end), also the model at every save (every_save), and with it the "
        "newest checkpoint as last-checkpoint (checkpoint) or all checkpoints (all_checkpoints)",
        group="hub",
        choices=HUB_STRATEGIES,
        theirs="every_save",
    )
    hub_revision: str | None = argument(
        None, "branch to upload to, created if it does not exist (default: the main branch)", group="hub"
    )
    hub_token: str | None = argument(
        None,
        "access token for the hub, never written to a file (default: the token stored by hf auth login)",
        group="hub",
        secret=True,
    )

    recipe: str = argument(
        "transformers",
        "source of the arguments that are not given: transformers for its defaults; auto for a learning rate, batch "
        "size, warm-up and number of epochs that suit a model with new layers (a student made from a shape) and the "
        f"number of rows; {', '.join(STUDENT_PRESETS)} for a student with a teacher: these name its shape, and choose "
        "augmented copies and dropout too",
        group="training",
        choices=RECIPES,
        origin="kdistill",
    )
    num_train_epochs: float = argument(3.0, "number of passes over the training rows", group="training", above=0)
    max_steps: int = argument(
        -1,
        "stop after this many optimiser steps instead of num_train_epochs (-1: no limit)",
        group="training",
        at_least=-1,
    )
    per_device_train_batch_size: int = argument(
        128, "training rows per batch; a smaller batch needs less memory", group="training", at_least=1, theirs=8
    )
    gradient_accumulation_steps: int = argument(
        1,
        "number of batches whose gradients are summed before each optimiser step: the same update as one batch that "
        "many times larger, with the memory of a single batch",
        group="training",
        at_least=1,
    )
    dataloader_drop_last: bool = argument(
        False, "drop the last batch of an epoch if it is incomplete", group="training"
    )
    label_smoothing_factor: float = argument(
        0.0,
        "share of each label's probability that is spread evenly over all labels during training; with several "
        "labels a row, over yes and no of each",
        group="training",
        at_least=0,
        at_most=1,
    )
    class_weights: list[float] | str | dict[str, float] | None = argument(  # noqa: RUF009  # as the one below
        None,
        "weights of the classes in the loss of the labels, as torch's CrossEntropyLoss(weight=...): a number for each "
        "label (0.3,2.0), a JSON object by name, or 'balanced', which is rows / (classes * rows of the class)",
        group="training",
        origin="kdistill",
        reads=read_weights,
    )
    pos_weight: list[float] | str | dict[str, float] | None = argument(  # noqa: RUF009
        None,
        "with several labels a row, weights of those that are true, as torch's BCEWithLogitsLoss(pos_weight=...): a "
        "number for each label, a JSON object by name, or 'balanced', which is rows without the label / rows with it, "
        f"at most {MOST_BALANCED_POS_WEIGHT:g}",
        group="training",
        origin="kdistill",
        reads=read_weights,
    )
    bf16: bool = argument(
        False,
        "multiply in bfloat16 while training, with float32 sums, weights and gradients: faster on a CPU with "
        "instructions for it (AMX, AMD's AVX512-BF16), no faster on any other; evaluations are in float32",
        group="training",
    )
    max_length: int | None = argument(
        None,
        "truncate texts to this many tokens (default: the number of positions of the model)",
        group="training",
        at_least=3,
        origin="kdistill",
    )
    doc_stride: int | None = argument(
        None,
        "tokens that two windows share, of a context that is longer than max_length (default: 128, or a third of "
        "max_length, which is 384 by default) or of a row of token classification (default: a quarter of max_length)",
        group="training",
        at_least=0,
        origin="kdistill",
    )
    mlm_probability: float = argument(
        0.15,
        "masked-lm: share of the words that are hidden, others in each epoch; those of evaluation rows stay the same",
        group="training",
        above=0,
        below=1,
        origin="kdistill",
    )
    label_all_tokens: bool = argument(
        False,
        "of token classification: let all tokens of a word learn its label, not the first alone",
        group="training",
        origin="kdistill",
    )
    seed: int = argument(
        42,
        "random seed for the order of the rows, dropout and new weights",
        group="training",
        at_least=0,
        at_most=2**32 - 1,
    )
    data_seed: int | None = argument(
        None,
        "random seed for the order of the rows and their augmented copies only (default: seed)",
        group="training",
        at_least=0,
        at_most=2**32 - 1,
    )

    learning_rate: float = argument(5e-5, "peak learning rate of AdamW", group="optimiser", at_least=0)
    lr_scheduler_type: str = argument(
        "linear",
        "schedule of the learning rate after the warm-up; reduce_lr_on_plateau and greedy have no warm-up and follow "
        "metric_for_best_model at each evaluation",
        group="optimiser",
        choices=SCHEDULERS,
    )
    lr_scheduler_kwargs: dict[str, Any] | str | None = argument(  # noqa: RUF009  # a dataclass field, as all of them
        None,
        "settings of the schedule as in transformers, such as num_cycles, power, min_lr or num_decay_steps; JSON on "
        "the command line",
        group="optimiser",
    )
    warmup_ratio: float = argument(
        0.0,
        "share of all steps during which the learning rate rises from 0",
        group="optimiser",
        at_least=0,
        at_most=1,
        origin="transformers 4",
    )
    warmup_steps: float = argument(
        0,
        "number of steps during which the learning rate rises from 0; a value below 1 is a share of all steps; "
        "overrides warmup_ratio",
        group="optimiser",
        at_least=0,
        steps=True,
    )
    weight_decay: float = argument(
        0.0,
        "decoupled weight decay of AdamW, not applied to biases and LayerNorm",
        group="optimiser",
        at_least=0,
    )
    adam_beta1: float = argument(
        0.9, "decay rate of AdamW's running mean of the gradients", group="optimiser", at_least=0, below=1
    )
    adam_beta2: float = argument(
        0.999, "decay rate of AdamW's running mean of the squared gradients", group="optimiser", at_least=0, below=1
    )
    adam_epsilon: float = argument(
        1e-8, "term added to AdamW's denominator to avoid division by zero", group="optimiser", at_least=0
    )
    max_grad_norm: float = argument(
        1.0, "clip the gradients to this norm (0: no clipping)", group="optimiser", at_least=0
    )
    ema_decay: float = argument(
        0.0,
        "decay per step of an exponential moving average of the weights, which is evaluated and saved instead of the "
        "current weights (0: no average)",
        group="optimiser",
        at_least=0,
        below=1,
        origin="kdistill",
    )

    eval_strategy: str = argument(
        "epoch",
        "when to evaluate: never (no), every eval_steps (steps) or after every epoch (epoch); giving eval_steps alone "
        "selects steps",
        group="evaluation",
        choices=INTERVALS,
        left_open=True,
        theirs="no",
    )
    eval_steps: float | None = argument(
        None,
        "steps between evaluations; a value below 1 is a share of all steps (default: logging_steps if given, else "
        "500)",
        group="evaluation",
        above=0,
        steps=True,
    )
    eval_delay: float = argument(
        0.0,
        "epochs to wait before the first evaluation (steps, if eval_strategy is steps)",
        group="evaluation",
        at_least=0,
    )
    eval_on_start: bool = argument(False, "also evaluate before the first step", group="evaluation")
    per_device_eval_batch_size: int = argument(
        128, "rows per batch in evaluation", group="evaluation", at_least=1, theirs=8
    )
    load_best_model_at_end: bool | None = argument(
        None,
        "keep the weights of the best evaluation instead of the last weights (default: yes, if the run evaluates and "
        "saves checkpoints)",
        group="evaluation",
        theirs=False,
    )
    metric_for_best_model: str = argument(
        "accuracy",
        "metric that selects the best model (default for several labels a row: average_precision; for regression: "
        "loss; for entities and for answers to questions: f1); with several evaluation sets, prefixed by the name of "
        "one, as in hard_accuracy (default: the first set)",
        group="evaluation",
        left_open=True,
        theirs=None,
    )
    threshold: float | None = argument(
        None,
        "with several labels a row, the probability above which a label is predicted, and of questions that may have "
        "no answer that above which none is given, kept with the model (default: training chooses the one with the "
        "best F1 on the evaluation rows, or without any on the training rows; else that of the model, or 0.5)",
        group="evaluation",
        origin="kdistill",
        reads=check_threshold,
    )
    max_answer_length: int | None = argument(
        None,
        "question answering: tokens of the longest answer, kept with the model (default: 30)",
        group="evaluation",
        at_least=1,
        origin="kdistill",
    )
    n_best: int | None = argument(
        None,
        "question answering: how many first and last tokens of answers are combined, and how many answers are kept "
        "(default: 20)",
        group="evaluation",
        at_least=1,
        origin="kdistill",
    )
    greater_is_better: bool | None = argument(
        None,
        "whether a larger value of the metric is better (default: no for names ending in loss or mse, else yes)",
        group="evaluation",
    )

    save_strategy: str = argument(
        "epoch",
        "when to write a checkpoint: never (no), every save_steps (steps), after every epoch (epoch) or at each new "
        "best evaluation (best); giving save_steps alone selects steps; with load_best_model_at_end, a new best is "
        "always saved at once",
        group="checkpoints and logs",
        choices=SAVE_INTERVALS,
        left_open=True,
        theirs="steps",
    )
    save_steps: float | None = argument(
        None,
        "steps between checkpoints; a value below 1 is a share of all steps (default: 500)",
        group="checkpoints and logs",
        above=0,
        steps=True,
        theirs=500,
    )
    save_total_limit: int | None = argument(
        1,
        "maximum number of checkpoints to keep; the best and the newest are never deleted, so 1 keeps these two (0, or "
        "None in Python: keep all)",
        group="checkpoints and logs",
        at_least=0,
        theirs=None,
    )
    enable_jit_checkpoint: bool = argument(
        False,
        "leave a checkpoint of the latest step when the run is interrupted (Ctrl-C, SIGTERM), for machines that may be "
        "taken away; the resumed run ends with the same bits",
        group="checkpoints and logs",
    )
    logging_strategy: str = argument(
        "epoch",
        "when to log the training loss: never (no), every logging_steps (steps) or after every epoch (epoch); giving "
        "logging_steps alone selects steps",
        group="checkpoints and logs",
        choices=INTERVALS,
        left_open=True,
        theirs="steps",
    )
    logging_steps: float | None = argument(
        None,
        "steps between logs; a value below 1 is a share of all steps; the last step is always logged (default: 500)",
        group="checkpoints and logs",
        above=0,
        steps=True,
        theirs=500,
    )
    logging_first_step: bool = argument(False, "also log the first step", group="checkpoints and logs")
    logging_dir: str | None = argument(
        None,
        "directory for the logs that report_to selects (default: a new one per run under runs/ in the output "
        "directory)",
        group="checkpoints and logs",
        origin="transformers 4",
    )
    report_to: str = argument(
        "local",
        "where to log, in addition to the console: files (CSV and JSON lines), tensorboard (files and TensorBoard "
        "events), local (tensorboard if installed, else files), wandb or mlflow (each needs the extra of its name), "
        "all (everything installed) or none; several as A,B",
        group="checkpoints and logs",
        choices=REPORTERS,
        several=True,
        none_is_default=True,
        theirs="none",
    )
    disable_tqdm: bool = argument(
        False, "do not show progress", group="checkpoints and logs", none_is_default=True, theirs=None
    )

    _left_open = frozenset[str]()
    """The arguments that nobody gave, or gave None for: their defaults hold, and may depend on other arguments."""
    _chosen = MappingProxyType[str, Any]({})
    """The values that `choose` has set in place of defaults."""
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
        object.__setattr__(self, "_left_open", self._left_open - {name})
        if value is None:
            self._leave_open([name])
        if self._settled:
            self._follow_assignment(name, value)

    def __getattr__(self, name: str) -> Any:
        """Return what scripts of transformers read: arguments under other names, those that are not here, the process.

        An argument that is not here has the value that holds: the given one where it changes nothing or is for scripts
        alone, else the default of transformers. Python calls this only when normal lookup fails.
        """
        other = OTHER_ARGUMENTS.get(name)
        if other is None and name in PROCESS:
            return PROCESS[name](current_world())
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

    def _leave_open(self, names: Iterable[str]) -> None:
        """Remember that nobody gave these arguments."""
        object.__setattr__(self, "_left_open", self._left_open.union(names))

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
        self.output_dir = str(given_path("output_dir", self.output_dir).expanduser())
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
        """Return whether an argument has been set by someone, to whatever value but None.

        `dataclasses.replace` gives them all; a copy with assignments keeps the difference.
        """
        return name not in self._left_open

    def choose(self, values: Mapping[str, Any]) -> None:
        """Set arguments that nobody has given; those of an earlier choice that are not in `values` get their defaults.

        They count as not given: the next call may choose anew.
        """
        defaults = {field.name: field.metadata["default"] for field in fields(self) if field.name in self._chosen}
        for name, value in {**defaults, **values}.items():
            if not self.is_given(name):
                self._settle(name, value)
        object.__setattr__(self, "_chosen", dict(values))

    @property
    def chosen(self) -> dict[str, Any]:
        """The values that were chosen in place of defaults, by name, without those that have been set since."""
        return {name: value for name, value in self._chosen.items() if not self.is_given(name)}

    def get_data_seed(self) -> int:
        """Return the seed of the order of the rows: `data_seed`, or `seed` if that is None."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def training_dtype(self) -> str:
        """The compute type of training: bfloat16 with `bf16`, else float32."""
        return "bfloat16" if self.bf16 else "float32"

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

    @property
    def micro_batches_per_step(self) -> int:
        """How many micro-batches an optimiser step has, over all processes that train together."""
        return self.gradient_accumulation_steps * current_world().size

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
        """Do the work in the `with` block, which rank 0 of the processes that train together is the first to do."""
        world = current_world()
        if not world.leads:
            world.gather(None)
        yield
        if world.leads:
            world.gather(None)

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

    def record(self) -> dict[str, Any]:
        """Return `to_dict` as the files of a run hold it: with what one process would need to have the same bits."""
        return self.to_dict() | {"gradient_accumulation_steps": self.micro_batches_per_step}

    def fingerprint(self) -> dict[str, str]:
        """Return hashes, by name, of what the arguments let a model learn from beside its rows: nothing here."""
        return {}

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
        "weight of the label loss; the teacher's loss has weight 1 - alpha, and full weight on rows without a label",
        group="distillation",
        origin="kdistill",
        at_least=0,
        at_most=1,
        left_open=True,
    )
    temperature: float = argument(
        4.0,
        "divides the logits of teacher and student before the softmax; a higher temperature gives more weight to how "
        "the teacher ranks the wrong labels",
        group="distillation",
        origin="kdistill",
        at_least=LEAST_TEMPERATURE,
        at_most=MOST_TEMPERATURE,
    )
    alpha_schedule: str = argument(
        "constant",
        "course of alpha over the run: constant, or from alpha in the first step to alpha_end in the last, straight "
        "(linear) or along half a cosine",
        group="distillation",
        origin="kdistill",
        choices=COURSES,
    )
    alpha_end: float | None = argument(
        None,
        "alpha in the last step, with an alpha_schedule",
        group="distillation",
        origin="kdistill",
        at_least=0,
        at_most=1,
    )
    temperature_schedule: str = argument(
        "constant",
        "course of the temperature over the run, as alpha_schedule",
        group="distillation",
        origin="kdistill",
        choices=COURSES,
    )
    temperature_end: float | None = argument(
        None,
        "temperature in the last step, with a temperature_schedule",
        group="distillation",
        origin="kdistill",
        at_least=LEAST_TEMPERATURE,
        at_most=MOST_TEMPERATURE,
    )
    matches: list[Match] | str | list[Stage] | None = argument(  # noqa: RUF009  # as those above: text comes second
        None,
        "losses on what lies inside teacher and student, beside those of the predictions: a preset "
        f"({', '.join(PRESETS)}), the path of a .toml file with matches or stages of them, or in Python a list of "
        "Match or Stage; the teacher then runs in every step",
        group="distillation",
        origin="kdistill",
        reads=read_matches,
    )
    match_learning_rate: float | None = argument(
        None,
        "peak learning rate of the projections that matches train between widths; it follows the schedule of "
        "learning_rate (default: learning_rate)",
        group="distillation",
        origin="kdistill",
        above=0,
    )
    hidden_cache: str | None = argument(
        None,
        "keep what matches read inside the teacher on disk, in bfloat16 and beside the teacher cache, in files of at "
        "most so many bytes together (20GB): later epochs and runs need not run the teacher (default: nothing is kept)",
        group="distillation",
        origin="kdistill",
        reads=read_size,
    )
    embedding_loss: str = argument(
        "mse",
        "loss of a student that embeds texts, beside the teacher's embeddings: mse, the mean squared error, or cosine, "
        "1 minus the cosine",
        group="distillation",
        origin="kdistill",
        choices=EMBEDDING_LOSSES,
    )
    augment: int = argument(
        0,
        "number of augmented copies per training row, labelled by the teacher only: words are replaced by neighbours "
        "in the teacher's embedding matrix, and some copies are cut to a span",
        group="distillation",
        origin="kdistill",
        at_least=0,
    )
    teacher_weighting: str = argument(
        "fixed",
        "what each of several teachers counts in a row: its weight (fixed), or that times the probability which it "
        "gives the row's label, or its likeliest one where there is none (confidence)",
        group="distillation",
        origin="kdistill",
        choices=("fixed", "confidence"),
    )
    teacher_dtype: str = argument(
        "auto",
        "type that the teacher multiplies in: float32, bfloat16 or int8; auto takes the fastest one of this CPU whose "
        "answers on the first rows pass a check against float32, and float32 for fewer than 512 rows; a resumed run "
        "keeps the choice",
        group="distillation",
        origin="kdistill",
        choices=TEACHER_DTYPES,
        none_is_default=True,
    )
    teacher_cache: bool = argument(
        True,
        "store the teacher's logits on disk ($KDISTILL_CACHE or the user's cache directory), so that later runs need "
        "not run the teacher",
        group="distillation",
        origin="kdistill",
    )

    def _check_schedule(self) -> None:
        """Raise `ValueError` also for a course of alpha or temperature without its end."""
        super()._check_schedule()
        for name in ("alpha", "temperature"):
            course, end = getattr(self, f"{name}_schedule"), getattr(self, f"{name}_end")
            if course != "constant" and end is None:
                raise ValueError(
                    f"{name}_schedule is {course!r}, and the {name} of the last step is not given; expected it as "
                    f"--{name}-end, in Python {name}_end="
                )

    def fingerprint(self) -> dict[str, str]:
        """Return a hash of the matches, where there are some."""
        return {} if self.matches is None else {"matches": matches_hash(self.matches)}

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as JSON-ready values, see `TrainingArguments.to_dict`."""
        return super().to_dict() | {"matches": rows_of(self.matches)}


def secret_arguments() -> tuple[str, ...]:
    """Return the names of the arguments whose values must never be shown or written."""
    return tuple(field.name for field in fields(TrainingArguments) if field.metadata["secret"])
