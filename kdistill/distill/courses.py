"""The alpha and the temperature of each step, where a schedule or a stage changes them over a run."""

from __future__ import annotations

import copy
import math

from ..train.arguments import DistillationTrainingArguments
from ..train.objective import RunLength
from ..train.stages import stage_ends, stages_of

_SCHEDULED = ("alpha", "temperature")


def args_of_step(args: DistillationTrainingArguments, step: int, length: RunLength) -> DistillationTrainingArguments:
    """Return the arguments as they are in a step, counted from 0: the same object where nothing changes them.

    A stage's alpha takes the place of the argument and of its schedule.
    """
    values = {name: _value(args, name, step, length) for name in _SCHEDULED if getattr(args, f"{name}_end") is not None}
    stages = stages_of(args.matches)
    if any(stage.alpha is not None for stage in stages):
        ends = stage_ends(stages, *length)
        alpha = next(stage for stage, end in zip(stages, ends, strict=True) if step < end).alpha
        values |= {} if alpha is None else {"alpha": alpha}
    if not values:
        return args
    copied = copy.copy(args)
    for name, value in values.items():
        object.__setattr__(copied, name, value)  # in the arguments' own terms they were not set
    return copied


def _value(args: DistillationTrainingArguments, name: str, step: int, length: RunLength) -> float:
    """Return what a schedule gives: `name` in the first step, `name`_end in the last."""
    begin, end, course = getattr(args, name), getattr(args, f"{name}_end"), getattr(args, f"{name}_schedule")
    done = min(1.0, step / max(1, length.max_steps - 1))
    if course == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return float(begin if course == "constant" else begin + (end - begin) * done)
