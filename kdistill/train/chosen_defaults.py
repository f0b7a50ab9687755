"""What a recipe chooses for arguments that nobody gave: `auto` for a model whose layers are new, and each preset.

The defaults of `transformers` are for fine-tuning pretrained layers: with them, new layers learn nothing. The rule was
measured on four data sets of 9,000 to 64,000 rows, see docs/recipe.md.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..data.spans import Spans
from ..models.config import named_shape, shape_name
from ..models.configuration import Config
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.registry import task_for
from .arguments import DistillationTrainingArguments, TrainingArguments
from .presets import NEW_LAYERS, STUDENT_PRESETS, Preset
from .schedules import SCHEDULES

WARMUP_RATIO = 0.1
TEMPERATURE_OF_SEVERAL_LABELS = 1.0
ROWS_OF_A_RUN = 200_000
MOST_EPOCHS = 120
ROWS_OF_SST2 = 67_349
"""The copies of a preset were measured on so many rows, and of more rows there are fewer: an epoch gets no longer."""
MANY_PAIRS = 50_000
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""What a preset with copies chooses for the student's configuration: little is learned by heart of what changes."""
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


class Copies(NamedTuple):
    """How many augmented copies a row gets, and as a clause why these are fewer than the recipe's; empty otherwise."""

    number: int
    why_fewer: str


def check_recipe(args: TrainingArguments, *, taught: bool) -> None:
    """Raise ValueError for a recipe that needs a teacher where there is none."""
    if args.recipe in STUDENT_PRESETS and not taught:
        raise ValueError(
            f"recipe is {args.recipe!r}, which is for a student that learns from a teacher; expected 'transformers' or "
            "'auto' here: fine-tune the teacher with one of these, then `kdistill distill` (DistillationTrainer) makes "
            "the student"
        )


def copies_of(args: TrainingArguments, dataset: Dataset, no_copies: str = "") -> Copies:
    """Return how many augmented copies each row gets, by what is given and by the recipe.

    Args:
        args: the arguments of the run.
        dataset: the training rows, without copies.
        no_copies: why none can be made of them, see `Objective.why_no_copies`.
    """
    preset = STUDENT_PRESETS.get(args.recipe)
    most = 0 if preset is None else preset.copies
    if args.is_given("augment") or not most:
        given: int = getattr(args, "augment", 0) if args.is_given("augment") else 0
        return Copies(given, "augment is given as 0" if most and not given else "")
    if no_copies:
        return Copies(0, no_copies)
    if isinstance(args, DistillationTrainingArguments) and args.alpha == 1 and args.alpha_schedule == "constant":
        return Copies(0, "alpha is 1, and copies have no labels")
    longest = (1 + most) * ROWS_OF_SST2
    number = min(most, max(0, longest // max(1, len(dataset)) - 1))
    return Copies(number, "" if number == most else f"an epoch is to have at most {longest:,} rows")


def dropout_of_recipe(args: TrainingArguments, dataset: Dataset, no_copies: str = "") -> dict[str, float]:
    """Return the dropout that the recipe chooses for a student that is to be made; empty where it chooses none."""
    preset = STUDENT_PRESETS.get(args.recipe)
    if preset is None or not preset.copies or not copies_of(args, dataset, no_copies).number:
        return {}
    return dict(NO_DROPOUT)


def choose_defaults(args: TrainingArguments, model: Model, dataset: Dataset, no_copies: str = "") -> str | None:
    """Let `args.recipe` choose the arguments that nobody gave; those of an earlier choice do not hold any more.

    Args:
        args: the arguments of the run.
        model: the model to train.
        dataset: the training rows, without augmented copies.
        no_copies: why no copies can be made of them, see `Objective.why_no_copies`.

    Returns:
        Lines about what was chosen and why; None where the defaults of transformers hold.

    Raises:
        ValueError: the recipe is for a student with other layers than the model's, and is to choose its learning rate.
    """
    preset = STUDENT_PRESETS.get(args.recipe)
    if preset is None and (args.recipe != "auto" or not model.has_new_layers):
        args.choose({})
        return None
    copies = copies_of(args, dataset, no_copies)
    values = NEW_LAYERS if preset is None or (preset.copies and not copies.number) else preset
    if preset is not None:
        own = "" if _has_shape(model, preset) else f"its own student, {preset.student} (leave --student out), or "
        check_layers(args, new=model.has_new_layers, own_student=own)
    rows = len(dataset) * (1 + copies.number)
    chosen = _values_of(values, args, rows, task_for(model.config, dataset.labels))
    args.choose(({"augment": copies.number} if preset is not None and preset.copies else {}) | chosen)
    lines = []
    if args.chosen:
        lines = [_of_auto(args, rows, dataset) if preset is None else _of_preset(args, preset, copies, model, dataset)]
    asked = isinstance(dataset.windows, Spans)
    if model.has_new_layers and dataset.num_examples < MANY_PAIRS and (asked or np.any(dataset.types)):
        what, of = ("find answers", "questions") if asked else ("compare two texts", "pairs")
        lines.append(
            f"note: new layers learn to {what} only from many {of}, and {dataset.num_examples:,} may be too few; "
            "pretrained layers need less: those of a pretrained model, or of the teacher, which a shape of its width "
            "copies (--recipe small)"
        )
    return "\n".join(lines) or None


def check_layers(args: TrainingArguments, *, new: bool, own_student: str = "") -> None:
    """Raise ValueError where the recipe is to choose a learning rate, and it has one for other layers.

    Args:
        args: the arguments of the run.
        new: whether the layers of the model are new, see `Model.has_new_layers`.
        own_student: what the recipe names in place of the model, as the beginning of what is expected; empty where
            another model is out of the question.
    """
    preset = STUDENT_PRESETS.get(args.recipe)
    if preset is None or args.is_given("learning_rate") or new == preset.new_layers:
        return
    kinds = "pretrained, or copied from the teacher", "new"
    suited = ["auto", *(other for other, of in STUDENT_PRESETS.items() if of.new_layers == new)]
    raise ValueError(
        f"recipe is {args.recipe!r}, whose learning rate of {preset.learning_rate:g} is for layers that are "
        f"{kinds[preset.new_layers]}, and the student's are {kinds[new]}; expected {own_student}another "
        f"recipe: {' or '.join(map(repr, suited))}"
    )


def _of_auto(args: TrainingArguments, rows: int, dataset: Dataset) -> str:
    return (
        f"recipe auto: for new layers, made from a shape, and {rows:,} training {dataset.rows_are} per epoch it "
        f"chooses {_listed(args)}{_given(args, _CHOSEN)} (--recipe transformers: the defaults for pretrained models)"
    )


def _of_preset(args: TrainingArguments, preset: Preset, copies: Copies, model: Model, dataset: Dataset) -> str:
    parts = [f"it chooses {_listed(args)}{_dropout(model.config) if copies.number and preset.copies else ''}"]
    if copies.why_fewer:
        fewer = f"{copies.number} copies" if copies.number else "no copies"
        rest = "" if copies.number else ", so the other values are those of recipe auto"
        parts.append(f"{fewer} and not {preset.copies}: {copies.why_fewer}{rest}")
    shape = shape_name(model.config)
    student = [] if named_shape(preset.student) is None or _has_shape(model, preset) else [f"student {shape}"]
    given = _given(args, ("augment", *_CHOSEN), student)
    return (
        f"recipe {args.recipe}: for a student of {shape} and {len(dataset):,} training {dataset.rows_are} "
        f"{'; '.join(parts)}{given}"
    )


def _has_shape(model: Model, preset: Preset) -> bool:
    """Return whether a model has the shape that the preset names; of one that depends on the teacher nobody knows."""
    own = named_shape(preset.student)
    return own is not None and all(getattr(model.config, size) == of for size, of in own.items())


def _listed(args: TrainingArguments) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in args.chosen.items())


def _given(args: TrainingArguments, names: tuple[str, ...], others: list[str] | None = None) -> str:
    """Return a clause about what the recipe could have chosen, and somebody has given."""
    names = tuple(name for name in names if name not in args.chosen and hasattr(args, name) and args.is_given(name))
    given = [*(others or []), *(f"{name} {getattr(args, name):g}" for name in names)]
    return f"; given: {', '.join(given)}" if given else ""


def _dropout(config: Config) -> str:
    """Return what there is to say of the dropout of a student that learns from copies."""
    there = {name: rate for name in NO_DROPOUT if (rate := getattr(config, name))}
    if not there:
        return ", without dropout"
    listed = ", ".join(f"{name} {rate:g}" for name, rate in there.items())
    return f"; the student has {listed}, and copies were measured with 0"


def _values_of(preset: Preset, args: TrainingArguments, rows: int, task: Task) -> dict[str, Any]:
    """Return the values of the rule, by argument; what `args` holds already may make some of them idle.

    An update of one batch of the preset has its learning rate. Larger and smaller updates, which somebody asked for,
    have one that grows with the square root of their rows, as the noise of Adam's steps falls with it (Malladi et al.,
    2022, arXiv:2205.10287). The epochs of new layers are at least those that read about 200,000 rows, with bounds: many
    rows need to be read more than once, and few are known by heart after a while. Of several labels a row, most are
    improbable: a temperature above 1 draws all of them towards one half, and little is left of what the teacher tells
    apart.

    Args:
        preset: the values before the rule.
        args: the arguments of the run.
        rows: of an epoch, with the copies.
        task: what is learned.
    """
    values: dict[str, Any] = {}
    if args.max_steps <= 0:
        needed = min(MOST_EPOCHS, round(ROWS_OF_A_RUN / max(1, rows))) if preset.new_layers else 0
        values["num_train_epochs"] = float(max(preset.epochs, needed))
    given = args.is_given("per_device_train_batch_size")
    batch = args.per_device_train_batch_size if given else preset.batch
    values["per_device_train_batch_size"] = batch
    scale = min(_MOST_SCALE, math.sqrt(batch * args.micro_batches_per_step / preset.batch))
    values["learning_rate"] = float(f"{preset.learning_rate * scale:.2g}")
    if SCHEDULES[args.lr_scheduler_type].warms_up and not args.is_given("warmup_steps"):
        values["warmup_ratio"] = WARMUP_RATIO
    if isinstance(args, DistillationTrainingArguments) and task.threshold is not None and task.names_labels:
        values["temperature"] = TEMPERATURE_OF_SEVERAL_LABELS
    return values
