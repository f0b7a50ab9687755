"""Arguments that have no effect beside others or on a model: the lists of them, and the warnings about those given."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ..models.head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN
from ..system.names import listing
from .schedules import SCHEDULES
from .stages import predictions_count


class WithoutEffect(NamedTuple):
    """Arguments that have no effect in some circumstances.

    Args:
        names: the arguments.
        is_so: (training arguments) -> whether they have none.
        reason: a clause for the warning.
    """

    names: tuple[str, ...]
    is_so: Callable[[Any], bool]
    reason: str


RECURRING = ("logging", "eval", "save")
"""What a run does at intervals, by a strategy and a number of steps."""


def _interval(what: str) -> WithoutEffect:
    strategy = f"{what}_strategy"
    reason = f"{strategy} is given, and only 'steps' uses it"
    return WithoutEffect((f"{what}_steps",), lambda args: getattr(args, strategy) != "steps", reason)


def _end(of: str) -> WithoutEffect:
    schedule = f"{of}_schedule"
    return WithoutEffect((f"{of}_end",), lambda args: getattr(args, schedule) == "constant", f"{schedule} is constant")


_OF_PREDICTIONS = (
    *("alpha", "alpha_schedule", "alpha_end", "temperature", "temperature_schedule", "temperature_end"),
    *("label_smoothing_factor", "class_weights", "pos_weight", "embedding_loss"),
)
"""What only the loss of the predictions reads."""

_RULES = (
    WithoutEffect(
        _OF_PREDICTIONS,
        lambda args: not predictions_count(getattr(args, "matches", None)),
        "prediction_weight is 0 in all stages of matches",
    ),
    *map(_interval, RECURRING),
    WithoutEffect(("num_train_epochs",), lambda args: args.max_steps > 0, "max_steps takes precedence"),
    WithoutEffect(("warmup_ratio",), lambda args: args.warmup_steps > 0, "warmup_steps takes precedence"),
    WithoutEffect(
        ("warmup_ratio", "warmup_steps"),
        lambda args: not SCHEDULES[args.lr_scheduler_type].warms_up,
        "this lr_scheduler_type has no warm-up",
    ),
    WithoutEffect(
        ("eval_delay", "metric_for_best_model", "greater_is_better"),
        lambda args: args.eval_strategy == "no",
        "with eval_strategy 'no' the run evaluates only when a callback requests it",
    ),
    WithoutEffect(
        ("save_total_limit",), lambda args: args.save_strategy == "no", "save_strategy 'no' saves no checkpoints"
    ),
    WithoutEffect(("logging_dir",), lambda args: args.report_to == "none", "report_to 'none' writes no log files"),
    WithoutEffect(("hub_strategy",), lambda args: not args.push_to_hub, "nothing is uploaded without push_to_hub"),
    *map(_end, ("alpha", "temperature")),
    WithoutEffect(("match_learning_rate", "hidden_cache"), lambda args: args.matches is None, "there are no matches"),
    WithoutEffect(
        ("temperature",),
        lambda args: args.alpha == 1 and args.alpha_schedule == "constant" and not args.augment,
        "with alpha 1 the teacher has no weight in the loss of labelled rows",
    ),
    WithoutEffect(
        ("label_smoothing_factor", "class_weights", "pos_weight"),
        lambda args: getattr(args, "alpha", 1.0) == 0 and getattr(args, "alpha_schedule", "constant") == "constant",
        "with alpha 0 the labels have no weight in the loss",
    ),
)

# In Python, `Trainer.push_to_hub` uses them in any case.
_RULES_OF_COMMANDS = (
    WithoutEffect(
        ("hub_model_id", "hub_private_repo", "hub_revision", "hub_token"),
        lambda args: not args.push_to_hub,
        "nothing is uploaded without --push-to-hub",
    ),
)

OF_HEADS: Mapping[str, tuple[str, ...]] = {
    "doc_stride": (TOKEN, SPAN),
    "hidden_cache": (SEQUENCE, TOKEN, SPAN, ENCODER),  # other words are hidden in each epoch
    "label_all_tokens": (TOKEN,),
    "max_answer_length": (SPAN,),
    "mlm_probability": (MASKED,),
    "n_best": (SPAN,),
}
"""Argument -> the heads of the models that use it. Arguments that are not here are used with every head."""


def is_used_by(name: str, head: str) -> bool:
    """Return whether models with this head use an argument."""
    return head in OF_HEADS.get(name, (head,))


def warn_of_arguments_of_other_heads(args: Any, head: str, stacklevel: int) -> None:
    """Warn of each argument that was given, other than its default, and that models with this head do not use.

    Args:
        args: the training arguments.
        head: of the model.
        stacklevel: of the warnings, as in `warnings.warn`.
    """
    for field in fields(args):
        name = field.name
        given = args.is_given(name) and getattr(args, name) != field.metadata["default"]
        if given and not is_used_by(name, head):
            users = listing(OF_HEADS[name], len(OF_HEADS[name]))
            warnings.warn(
                f"{name} has no effect here: the model is one for {head}, and only models for {users} use it",
                stacklevel=stacklevel + 1,
            )


def warn_of_arguments_without_effect(
    args: Any, given: Iterable[str], stacklevel: int, *, of_a_command: bool = False
) -> None:
    """Warn once about each of the arguments `given` that has no effect beside the others in `args`.

    Args:
        args: the training arguments.
        given: names of arguments.
        stacklevel: of the warning, as in `warnings.warn`.
        of_a_command: look for those that have no effect in a command alone.
    """
    reasons = without_effect(args, given, of_a_command=of_a_command)
    for reason in dict.fromkeys(reasons.values()):
        named = [name for name, of_name in reasons.items() if of_name == reason]
        verb = "has" if len(named) == 1 else "have"
        warnings.warn(f"{', '.join(named)} {verb} no effect here: {reason}", stacklevel=stacklevel + 1)


def without_effect(args: Any, names: Iterable[str], *, of_a_command: bool = False) -> dict[str, str]:
    """Return those of the arguments `names` that have no effect beside the others in `args`, with a clause about why.

    Args:
        args: the training arguments.
        names: names of arguments.
        of_a_command: look for those that have no effect in a command alone.
    """
    known, asked = {field.name for field in fields(args)}, set(names)
    reasons: dict[str, str] = {}
    for rule in _RULES_OF_COMMANDS if of_a_command else _RULES:
        # A class of arguments may lack those that a rule is about.
        named = [name for name in rule.names if name in asked & known and name not in reasons]
        if named and rule.is_so(args):
            reasons |= dict.fromkeys(named, rule.reason)
    return reasons
