"""`TrainingArguments` and `DistillationTrainingArguments`: every choice of a training run, checked on assignment.

Names and defaults are those of `transformers.TrainingArguments`, except: batch size 128, evaluation, saving and
logging once per epoch, and the best model by accuracy at the end. This is the only list of the arguments: the options
of the command line and their help texts are made from these dataclass fields.
"""

from __future__ import annotations

import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Hashable, Iterable
from dataclasses import Field, asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar, cast

GROUPS = ("output", "distillation", "training", "optimiser", "evaluation", "checkpoints and logs")
"""What an argument may be about, in the order of the command line's help."""
INTERVALS = ("no", "steps", "epoch")
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "all")

_T = TypeVar("_T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give "; did you mean 'x'?" for the known name nearest to `name`, or an empty string when none is near."""
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def argument(
    default: _T,
    help: str,
    *,
    group: str,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> _T:
    """Declare one argument: a dataclass field with its help text, its group on the command line and its limits."""
    limits = {">=": at_least, ">": above, "<=": at_most, "<": below}
    metadata = {
        "help": help,
        "group": group,
        "choices": choices,
        "limits": {sign: limit for sign, limit in limits.items() if limit is not None},
    }
    return field(default=default, metadata=metadata)


def argument_types(cls: type) -> dict[str, tuple[type, bool]]:
    """Map every argument's name to (type, may it be None)."""
    return _argument_types(cast(Hashable, cls))  # mypy takes a dataclass for unhashable, as its instances are


@functools.cache
def _argument_types(cls: Any) -> dict[str, tuple[type, bool]]:
    result = {}
    for name, hint in typing.get_type_hints(cls).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        (kind,) = (option for option in options if option is not type(None))
        result[name] = (kind, type(None) in options)
    return result


# NumPy scalars pass: Optuna and NumPy hand them out.
_ACCEPTED: dict[type, type | tuple[type, ...]] = {
    bool: bool,
    int: numbers.Integral,
    float: numbers.Real,
    str: (str, os.PathLike),
}


def _checked(argument: Field[Any], kind: type, optional: bool, value: Any) -> Any:
    """Return `value` as a plain `kind`, or raise naming the argument, what was found and what is expected."""
    if value is None and optional:
        return None
    if not isinstance(value, _ACCEPTED[kind]) or (isinstance(value, bool) and kind is not bool):
        expected = kind.__name__ + (" or None" if optional else "")
        raise TypeError(f"{argument.name} is {value!r} ({type(value).__name__}); expected {expected}")
    value = str(value) if kind is str else kind(value)
    choices, limits = argument.metadata["choices"], argument.metadata["limits"]
    if choices is not None and value not in choices:
        hint = did_you_mean(value, choices)
        raise ValueError(f"{argument.name} is {value!r}; expected one of {', '.join(map(repr, choices))}{hint}")
    if kind in (int, float):
        kept = {
            ">=": lambda limit: value >= limit,
            ">": lambda limit: value > limit,
            "<=": lambda limit: value <= limit,
            "<": lambda limit: value < limit,
        }
        if not (math.isfinite(value) and all(kept[sign](limit) for sign, limit in limits.items())):
            number = "a whole number" if kind is int else "a finite number"
            bounds = " and ".join(f"{sign} {limit}" for sign, limit in limits.items())
            raise ValueError(f"{argument.name} is {value!r}; expected {number} {bounds}".rstrip())
    return value


@dataclass
class TrainingArguments:
    """Arguments of `Trainer`.

    Each field's help text says what it does. Values are checked when they are set: a wrong type raises `TypeError`, a
    value out of range `ValueError`, and a name that does not exist suggests the nearest one that does (`TypeError` in
    the constructor, `AttributeError` on assignment).
    """

    output_dir: str = argument(
        "trainer_output",
        "directory that receives the model, its model card, the results and the checkpoints",
        group="output",
    )
    overwrite_output_dir: bool = argument(
        False, "delete the run that the output directory holds and start anew", group="output"
    )
    run_name: str | None = argument(
        None,
        "name of the run in the model card and in TensorBoard (default: the output directory's name)",
        group="output",
    )
    push_to_hub: bool = argument(
        False, "upload the finished model to the Hugging Face hub (needs the extra kdistill[hub])", group="output"
    )
    hub_model_id: str | None = argument(
        None, "repository on the hub, such as user/name (default: the output directory's name)", group="output"
    )
    hub_private_repo: bool | None = argument(
        None, "whether a repository made on the hub is private (default: the account's setting)", group="output"
    )

    num_train_epochs: float = argument(3.0, "how often to go over the training rows", group="training", above=0)
    max_steps: int = argument(
        -1,
        "stop after this many optimiser steps instead of num_train_epochs (-1: no limit)",
        group="training",
        at_least=-1,
    )
    per_device_train_batch_size: int = argument(
        128, "training rows computed together; less needs less memory", group="training", at_least=1
    )
    gradient_accumulation_steps: int = argument(
        1,
        "batches whose gradients are added up before each optimiser step: the same update as a batch that many times "
        "larger, in the memory of one",
        group="training",
        at_least=1,
    )
    max_length: int | None = argument(
        None,
        "cut sentences to this many tokens (default: as many as the model has positions)",
        group="training",
        at_least=3,
    )
    seed: int = argument(
        42,
        "seed of all randomness: order of the rows, dropout, new weights",
        group="training",
        at_least=0,
        at_most=2**32 - 1,
    )
    data_seed: int | None = argument(
        None, "seed of the order of the rows alone (default: seed)", group="training", at_least=0, at_most=2**32 - 1
    )

    learning_rate: float = argument(5e-5, "AdamW's highest learning rate", group="optimiser", at_least=0)
    lr_scheduler_type: str = argument(
        "linear", "how the learning rate falls after the warm-up", group="optimiser", choices=SCHEDULERS
    )
    warmup_ratio: float = argument(
        0.0, "share of all steps in which the learning rate rises from 0", group="optimiser", at_least=0, at_most=1
    )
    warmup_steps: int = argument(
        0, "steps in which the learning rate rises from 0; overrides warmup_ratio", group="optimiser", at_least=0
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

    eval_strategy: str = argument(
        "epoch", "when to evaluate: never, every eval_steps or every epoch", group="evaluation", choices=INTERVALS
    )
    eval_steps: int | None = argument(
        None,
        "steps between evaluations with eval_strategy steps (default: logging_steps)",
        group="evaluation",
        at_least=1,
    )
    per_device_eval_batch_size: int = argument(
        128, "rows computed together in evaluation", group="evaluation", at_least=1
    )
    load_best_model_at_end: bool | None = argument(
        None,
        "keep the weights of the best evaluation, not the last ones (default: yes, when the run both evaluates and "
        "saves)",
        group="evaluation",
    )
    metric_for_best_model: str = argument("accuracy", "metric that names the best model", group="evaluation")
    greater_is_better: bool | None = argument(
        None, "whether a greater metric is better (default: yes, unless its name ends in loss)", group="evaluation"
    )

    save_strategy: str = argument(
        "epoch",
        "when to write a checkpoint: never, every save_steps or every epoch (a new best model is saved at once)",
        group="checkpoints and logs",
        choices=INTERVALS,
    )
    save_steps: int = argument(
        500, "steps between checkpoints with save_strategy steps", group="checkpoints and logs", at_least=1
    )
    save_total_limit: int | None = argument(
        None,
        "keep at most this many checkpoints, always the best and the newest (default: all)",
        group="checkpoints and logs",
        at_least=1,
    )
    logging_strategy: str = argument(
        "epoch",
        "when to log the training loss: never, every logging_steps or every epoch",
        group="checkpoints and logs",
        choices=INTERVALS,
    )
    logging_steps: int = argument(
        500, "steps between logs with logging_strategy steps", group="checkpoints and logs", at_least=1
    )
    report_to: str = argument(
        "none",
        "also log for TensorBoard, under runs/ in the output directory (needs the extra kdistill[tensorboard]); all "
        "means whatever is installed",
        group="checkpoints and logs",
        choices=REPORTERS,
    )
    disable_tqdm: bool = argument(False, "show no progress", group="checkpoints and logs")

    def __new__(cls, *args: object, **kwargs: object) -> typing.Self:
        known = [argument.name for argument in fields(cls)]
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no argument {name!r}{did_you_mean(name, known)}")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        known = {argument.name: argument for argument in fields(self)}
        if name not in known:
            raise AttributeError(f"{type(self).__name__} has no argument {name!r}{did_you_mean(name, known)}")
        if name == "report_to" and isinstance(value, list | tuple) and len(value) <= 1:
            value = value[0] if value else "none"  # transformers also takes a list
        kind, optional = argument_types(type(self))[name]
        object.__setattr__(self, name, _checked(known[name], kind, optional, value))

    def __post_init__(self) -> None:
        if self.eval_steps is None:
            self.eval_steps = self.logging_steps
        if self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = "no" not in (self.eval_strategy, self.save_strategy)
        elif self.load_best_model_at_end and "no" in (self.eval_strategy, self.save_strategy):
            raise ValueError(
                f"load_best_model_at_end is True with eval_strategy {self.eval_strategy!r} and save_strategy "
                f"{self.save_strategy!r}; expected 'epoch' or 'steps' for both"
            )

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Number of warm-up steps: `warmup_steps`, or else `warmup_ratio` of the run, rounded up."""
        return self.warmup_steps if self.warmup_steps > 0 else math.ceil(num_training_steps * self.warmup_ratio)

    def to_dict(self) -> dict[str, Any]:
        """All arguments as JSON-ready values, in the order of the fields."""
        return asdict(self)


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """Arguments of `DistillationTrainer`: those of `TrainingArguments` and of the distillation loss

    `alpha * CE(labels) + (1 - alpha) * temperature**2 * KL(softmax(teacher / temperature) || softmax(student /
    temperature))`, the mean over the batch (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531).
    """

    alpha: float = argument(
        0.5,
        "weight of the labels in the loss; the teacher has weight 1 - alpha (rows without a label learn from the "
        "teacher alone)",
        group="distillation",
        at_least=0,
        at_most=1,
    )
    temperature: float = argument(
        4.0,
        "softens the teacher's and the student's probabilities: higher shows more of how the teacher ranks the wrong "
        "labels",
        group="distillation",
        above=0,
    )
    teacher_cache: bool = argument(
        True,
        "keep the teacher's logits on disk (KDISTILL_CACHE or the user's cache directory), so that later runs skip "
        "the teacher",
        group="distillation",
    )
