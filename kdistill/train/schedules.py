"""Learning-rate schedules: the multiplier of the learning rate as a function of the optimiser step, counted from 0.

The formulas are those of `transformers.optimization`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


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


def get_cosine_schedule_with_warmup(num_warmup_steps: int, num_training_steps: int) -> Schedule:
    """Return a schedule that rises linearly from 0 to 1 over the warm-up and falls to 0 along half a cosine.

    Source: Loshchilov and Hutter, arXiv:1608.03983.
    """

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        progress = (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return multiplier


def get_scheduler(name: str, num_warmup_steps: int, num_training_steps: int) -> Schedule:
    """Return the schedule for a value of `TrainingArguments.lr_scheduler_type`. Raises `ValueError` for another."""
    match name:
        case "linear":
            return get_linear_schedule_with_warmup(num_warmup_steps, num_training_steps)
        case "cosine":
            return get_cosine_schedule_with_warmup(num_warmup_steps, num_training_steps)
        case "constant":
            return get_constant_schedule_with_warmup(0)
        case "constant_with_warmup":
            return get_constant_schedule_with_warmup(num_warmup_steps)
    raise ValueError(f"lr_scheduler_type is {name!r}; expected linear, cosine, constant or constant_with_warmup")
