"""Defaults for a model whose layers are new, such as a student made from a shape: what `recipe="auto"` chooses.

The defaults of `transformers` are for fine-tuning pretrained layers: with them, new layers learn nothing. The rule was
measured on four data sets of 9,000 to 64,000 rows, see docs/recipe.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.spans import Spans
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.registry import task_for
from .arguments import DistillationTrainingArguments, TrainingArguments
from .schedules import SCHEDULES

ROWS_OF_A_BATCH = 32
LEARNING_RATE = 1e-3
WARMUP_RATIO = 0.1
TEMPERATURE_OF_SEVERAL_LABELS = 1.0
ROWS_OF_A_RUN = 200_000
LEAST_EPOCHS, MOST_EPOCHS = 3, 120
MANY_PAIRS = 50_000
_MOST_SCALE = 2.0
_CHOSEN = (
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "learning_rate",
    "warmup_ratio",
    "warmup_steps",
    "temperature",
)


def choose_defaults(args: TrainingArguments, model: Model, dataset: Dataset) -> str | None:
    """Let `args.recipe` choose the arguments that nobody gave; those of an earlier choice do not hold any more.

    Args:
        args: the arguments of the run.
        model: the model to train.
        dataset: the training rows, without augmented copies.

    Returns:
        Lines about what was chosen and why; None where the defaults of transformers hold.
    """
    if args.recipe != "auto" or not model.has_new_layers:
        args.choose({})
        return None
    rows = len(dataset) * (1 + getattr(args, "augment", 0))
    args.choose(defaults_for_new_layers(args, rows, task_for(model.config, dataset.labels)))
    lines = []
    if args.chosen:
        listed = ", ".join(f"{name} {value:g}" for name, value in args.chosen.items())
        given = [name for name in _CHOSEN if name not in args.chosen and hasattr(args, name) and args.is_given(name)]
        stays = f"; given: {', '.join(f'{name} {getattr(args, name):g}' for name in given)}" if given else ""
        lines = [
            f"recipe auto: for new layers, made from a shape, and {rows:,} training {dataset.rows_are} per epoch it "
            f"chooses {listed}{stays} (--recipe transformers: the defaults for pretrained models)",
        ]
    asked = isinstance(dataset.windows, Spans)
    if dataset.num_examples < MANY_PAIRS and (asked or np.any(dataset.types)):
        what, of = ("find answers", "questions") if asked else ("compare two texts", "pairs")
        lines.append(
            f"note: new layers learn to {what} only from many {of}, and {dataset.num_examples:,} may be too few; "
            "pretrained layers need less: those of a pretrained model, or of the teacher, which a shape of its width "
            "copies"
        )
    return "\n".join(lines) or None


def defaults_for_new_layers(args: TrainingArguments, rows: int, task: Task) -> dict[str, Any]:
    """Return the values of the rule, by argument; what `args` holds already may make some of them idle.

    An update of 32 rows has the learning rate 1e-3. Larger and smaller updates, which somebody asked for, have one that
    grows with the square root of their rows, as the noise of Adam's steps falls with it (Malladi et al., 2022,
    arXiv:2205.10287). The epochs are those that read about 200,000 rows, with bounds: many rows need to be read more
    than once, and few are known by heart after a while. Of several labels a row, most are improbable: a temperature
    above 1 draws all of them towards one half, and little is left of what the teacher tells apart.
    """
    values: dict[str, Any] = {}
    if args.max_steps <= 0:
        values["num_train_epochs"] = float(min(MOST_EPOCHS, max(LEAST_EPOCHS, round(ROWS_OF_A_RUN / max(1, rows)))))
    given = args.is_given("per_device_train_batch_size")
    batch = args.per_device_train_batch_size if given else ROWS_OF_A_BATCH
    values["per_device_train_batch_size"] = batch
    scale = min(_MOST_SCALE, math.sqrt(batch * args.micro_batches_per_step / ROWS_OF_A_BATCH))
    values["learning_rate"] = float(f"{LEARNING_RATE * scale:.2g}")
    if SCHEDULES[args.lr_scheduler_type].warms_up and not args.is_given("warmup_steps"):
        values["warmup_ratio"] = WARMUP_RATIO
    if isinstance(args, DistillationTrainingArguments) and task.threshold is not None and task.names_labels:
        values["temperature"] = TEMPERATURE_OF_SEVERAL_LABELS
    return values
