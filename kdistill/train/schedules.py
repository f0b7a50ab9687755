"""Learning-rate schedules of `transformers.optimization`, by the names of its `SchedulerType`.

Most are a multiplier of the learning rate as a function of the optimiser step, counted from 0. Two follow the metric of
each evaluation instead, see `following.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..system.names import did_you_mean
from .following import Greedy, ReduceOnPlateau

Schedule = Callable[[int], float]
"""(optimiser step, from 0) -> multiplier of the learning rate."""


def get_linear_schedule_with_warmup(num_warmup_steps: int, num_training_steps: int) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1 over the warm-up and then falls linearly to 0.

    Args:
        num_warmup_steps: steps of the warm-up.
        num_training_steps: steps of the whole run, at whose end the multiplier is 0.

    Returns:
        The multiplier of the learning rate as a function of the step, counted from 0.
    """

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            return step / max(1, num_warmup_steps)
        return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

    return multiplier


def get_constant_schedule_with_warmup(num_warmup_steps: int) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1 over `num_warmup_steps` and then stays at 1."""
    return lambda step: min(1.0, step / num_warmup_steps) if num_warmup_steps else 1.0


def get_cosine_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, *, num_cycles: float = 0.5
) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1 over the warm-up and falls to 0 along half a cosine.

    Source: Loshchilov and Hutter, arXiv:1608.03983.

    Args:
        num_warmup_steps: steps of the warm-up.
        num_training_steps: steps of the whole run.
        num_cycles: waves of the cosine, of which one half falls.
    """
    return _warmed_up(
        num_warmup_steps, num_training_steps, lambda progress: max(0.0, _cosine(num_cycles, min(1.0, progress)))
    )


def get_cosine_with_hard_restarts_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, *, num_cycles: int = 1
) -> Schedule:
    """Return a schedule that falls to 0 along half a cosine `num_cycles` times, each time from 1."""

    def after(progress: float) -> float:
        return 0.0 if progress >= 1 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((num_cycles * progress) % 1.0))))

    return _warmed_up(num_warmup_steps, num_training_steps, after)


def get_polynomial_decay_schedule_with_warmup(
    num_warmup_steps: int, num_training_steps: int, *, lr: float, lr_end: float = 1e-7, power: float = 1.0
) -> Schedule:
    """Return a schedule that falls as a power of what is left of the run, from the learning rate `lr` to `lr_end`."""
    if not lr > lr_end:
        raise ValueError(f"lr_end is {lr_end} and learning_rate {lr}; expected an end below it")

    def after(progress: float) -> float:
        return lr_end / lr if progress > 1 else ((lr - lr_end) * (1 - progress) ** power + lr_end) / lr

    return _warmed_up(num_warmup_steps, num_training_steps, after)


def get_inverse_sqrt_schedule(num_warmup_steps: int, *, timescale: int | None = None) -> Schedule:
    """Return a schedule that falls as 1 / sqrt(step).

    Args:
        num_warmup_steps: steps of the warm-up.
        timescale: steps after which it has fallen to 1 / sqrt(2) (default: those of the warm-up, or 10,000).
    """
    scale = timescale if timescale is not None else num_warmup_steps or 10_000

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return 1.0 / math.sqrt((step + scale - num_warmup_steps) / scale)

    return multiplier


def get_cosine_with_min_lr_schedule_with_warmup(
    num_warmup_steps: int,
    num_training_steps: int,
    *,
    lr: float,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """Return a schedule like the cosine's that falls to `min_lr`, or to `min_lr_rate` of the learning rate `lr`."""
    least = _least_rate(lr, min_lr, min_lr_rate)
    return _warmed_up(
        num_warmup_steps, num_training_steps, lambda progress: max(0.0, _raised(_cosine(num_cycles, progress), least))
    )


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    num_warmup_steps: int,
    num_training_steps: int,
    *,
    lr: float,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Schedule:
    """Return a schedule like the one before whose warm-up begins at `warmup_lr_rate` (default: 1 / warm-up steps)."""
    least = _least_rate(lr, min_lr, min_lr_rate)

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            if warmup_lr_rate is None:
                return (step + 1) / num_warmup_steps
            return warmup_lr_rate + (1.0 - warmup_lr_rate) * step / max(1, num_warmup_steps - 1)
        progress = (step - num_warmup_steps + 1) / max(1, num_training_steps - num_warmup_steps)
        return max(0.0, _raised(_cosine(num_cycles, progress), least))

    return multiplier


_SHAPES = ("linear", "cosine", "1-sqrt")


def get_wsd_schedule(
    num_warmup_steps: int,
    num_training_steps: int,
    *,
    num_decay_steps: int,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
) -> Schedule:
    """Return a schedule of three stages: it rises from `min_lr_ratio` to 1, stays there, and falls again.

    Args:
        num_warmup_steps: steps of the warm-up.
        num_training_steps: steps of the whole run.
        num_decay_steps: steps in which it falls.
        num_stable_steps: steps in which it stays (default: those that are left).
        warmup_type, decay_type: "linear", "cosine" or "1-sqrt".
        min_lr_ratio: where it begins and ends.
        num_cycles: waves of a cosine that falls.
    """
    for name, shape in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        if shape not in _SHAPES:
            raise ValueError(f"{name} is {shape!r}; expected one of {', '.join(map(repr, _SHAPES))}")
    stable = num_training_steps - num_warmup_steps - num_decay_steps if num_stable_steps is None else num_stable_steps

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            part = step / num_warmup_steps
            rising = {
                "linear": part,
                "cosine": 0.5 * (1.0 - math.cos(math.pi * part)),
                "1-sqrt": 1.0 - math.sqrt(1.0 - part),
            }
            return max(0.0, _raised(rising[warmup_type], min_lr_ratio))
        step -= num_warmup_steps
        if step < stable:
            return 1.0
        if step >= stable + num_decay_steps:
            return float(min_lr_ratio)
        part = (step - stable) / max(1, num_decay_steps)
        falling = {"linear": 1.0 - part, "cosine": _cosine(num_cycles, part), "1-sqrt": 1.0 - math.sqrt(part)}
        return max(0.0, _raised(falling[decay_type], min_lr_ratio))

    return multiplier


def _warmed_up(num_warmup_steps: int, num_training_steps: int, after: Callable[[float], float]) -> Schedule:
    """Return a schedule that rises linearly and is then `after` of the share of the other steps that is done."""

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return after((step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps))

    return multiplier


def _cosine(num_cycles: float, progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * float(num_cycles) * 2.0 * progress))


def _raised(factor: float, least: float) -> float:
    """Return a factor from 0 to 1 as one from `least` to 1."""
    return factor * (1 - least) + least


def _least_rate(lr: float, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(f"min_lr is {min_lr} and min_lr_rate is {min_lr_rate}; expected one of the two")
    return float(min_lr_rate) if min_lr is None else min_lr / lr  # type: ignore[arg-type]  # one of them is given


class LearningRate(Protocol):
    """The learning rate of a run."""

    def at(self, step: int) -> float:
        """Return the learning rate of an optimiser step, counted from 0."""

    def follow(self, metric: float) -> None:
        """Take note of the metric of an evaluation."""

    def state(self) -> dict[str, Any]:
        """Return the numbers, by name, that a resumed run goes on with; empty when the step alone decides."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` returned."""


class _ByStep:
    """A learning rate that the step alone decides."""

    def __init__(self, lr: float, schedule: Schedule) -> None:
        self._lr, self._schedule = lr, schedule

    def at(self, step: int) -> float:
        return self._lr * self._schedule(step)

    def follow(self, metric: float) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


class SchedulerKind(NamedTuple):
    """A value of `TrainingArguments.lr_scheduler_type`.

    Args:
        make: makes its schedule, or its `LearningRate` where it follows evaluations. It gets those of `lr`,
            `num_warmup_steps` and `num_training_steps` that it has parameters for, and `lr_scheduler_kwargs`.
        warms_up: whether it has a warm-up.
        follows_evaluations: whether evaluations decide, not the step.
    """

    make: Callable[..., Any]
    warms_up: bool = True
    follows_evaluations: bool = False


SCHEDULES = {
    "linear": SchedulerKind(get_linear_schedule_with_warmup),
    "cosine": SchedulerKind(get_cosine_schedule_with_warmup),
    "cosine_with_restarts": SchedulerKind(get_cosine_with_hard_restarts_schedule_with_warmup),
    "polynomial": SchedulerKind(get_polynomial_decay_schedule_with_warmup),
    "constant": SchedulerKind(lambda: get_constant_schedule_with_warmup(0), warms_up=False),
    "constant_with_warmup": SchedulerKind(get_constant_schedule_with_warmup),
    "inverse_sqrt": SchedulerKind(get_inverse_sqrt_schedule),
    "reduce_lr_on_plateau": SchedulerKind(ReduceOnPlateau, warms_up=False, follows_evaluations=True),
    "cosine_with_min_lr": SchedulerKind(get_cosine_with_min_lr_schedule_with_warmup),
    "cosine_warmup_with_min_lr": SchedulerKind(get_cosine_with_min_lr_schedule_with_warmup_lr_rate),
    "warmup_stable_decay": SchedulerKind(get_wsd_schedule),
    "greedy": SchedulerKind(Greedy, warms_up=False, follows_evaluations=True),
}
"""All kinds of schedule, by the value of `lr_scheduler_type`."""
_OF_THE_RUN = ("lr", "num_warmup_steps", "num_training_steps")


def check_scheduler_kwargs(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise `ValueError` for settings that a kind of schedule does not have, or for one that it needs and lacks."""
    parameters = inspect.signature(SCHEDULES[name].make).parameters
    known = [parameter for parameter in parameters if parameter not in _OF_THE_RUN]
    for key in kwargs:
        if key not in known:
            hint, has = did_you_mean(key, known), ", ".join(known) or "none"
            raise ValueError(
                f"lr_scheduler_kwargs has {key!r}, which the schedule {name!r} does not have{hint}; it has {has}"
            )
    needed = [key for key in known if parameters[key].default is inspect.Parameter.empty and key not in kwargs]
    if needed:
        raise ValueError(f"lr_scheduler_kwargs lacks {', '.join(needed)}, which the schedule {name!r} needs")


def get_scheduler(
    name: str,
    num_warmup_steps: int,
    num_training_steps: int,
    *,
    lr: float = 1.0,
    scheduler_specific_kwargs: Mapping[str, Any] | None = None,
) -> LearningRate:
    """Return the learning rate of a run.

    Args:
        name: a value of `TrainingArguments.lr_scheduler_type`.
        num_warmup_steps: steps of the warm-up.
        num_training_steps: steps of the whole run.
        lr: the highest learning rate (the first one, for those that follow evaluations).
        scheduler_specific_kwargs: `TrainingArguments.lr_scheduler_kwargs`.

    Raises:
        ValueError: there is no such schedule, or it does not have a setting or a setting's value.
    """
    if name not in SCHEDULES:
        raise ValueError(
            f"lr_scheduler_type is {name!r}; expected one of {', '.join(SCHEDULES)}{did_you_mean(name, SCHEDULES)}"
        )
    kind, kwargs = SCHEDULES[name], dict(scheduler_specific_kwargs or {})
    check_scheduler_kwargs(name, kwargs)
    of_the_run = {"lr": lr, "num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    parameters = inspect.signature(kind.make).parameters
    try:
        made = kind.make(**{key: value for key, value in of_the_run.items() if key in parameters}, **kwargs)
        if not kind.follows_evaluations:
            made(0)  # a setting of a wrong type shows here
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"lr_scheduler_kwargs is {kwargs}: {error}") from error
    return made if kind.follows_evaluations else _ByStep(lr, made)
