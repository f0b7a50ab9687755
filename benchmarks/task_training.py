"""Fine-tuning and distillation for the tasks of `task_rows`: recipes, models, and a run of kdistill."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import kdistill as kd
from examples.pretrained import MINILM, fetch_pretrained
from kdistill.metrics.entities import seqeval_is_there

from . import common
from .task_rows import NAMES, TaskRows, rows_of


class Recipe(NamedTuple):
    """How a model is trained; all else is kdistill's default. The weights are those of the last step."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0


SEEDS = (33, 34, 35)
"""Fixed beforehand; the teacher has the first."""
PRETRAINED: Mapping[str, Recipe] = {
    "wnut17": Recipe(5, 16, 2e-4),
    "bc5cdr": Recipe(4, 16, 1e-4),
    "snips": Recipe(3, 16, 1e-4),
    "squadshifts": Recipe(3, 16, 1e-4),
}
"""Recipes for pretrained models by data set, see docs/accuracy.md for how they were chosen."""
ALPHA, TEMPERATURE = 0.5, 2.0
"""Those of the second step of distillation in the example of the DistilBERT paper (arXiv:1910.01108); not tuned."""


def add_options(options: argparse.ArgumentParser) -> None:
    """Add the options of measurements on these tasks."""
    options.add_argument("--data", nargs="+", choices=NAMES, default=list(NAMES), help="data sets")
    options.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="a run for each")
    options.add_argument("--rows", type=int, default=0, help="use only so many rows of each part (0: all)")
    options.add_argument("--data-dir", type=Path, default=common.SHARED / "data", help="where the data sets are")
    options.add_argument("--model", type=Path, help=f"the pretrained model of the teachers (default: {MINILM} of PyPI)")
    options.add_argument("--held-out", action="store_true", help="evaluate on a part of the training rows")
    options.add_argument("--epochs", type=int, help="other epochs than the recipe's; with --held-out")
    options.add_argument("--learning-rate", type=float, help="likewise")
    options.add_argument("--results", type=Path, default=Path("build", "tasks"), help="where figures are kept")


def check_options(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse to try a recipe on the rows that are reported; settle threads, cache and the pretrained model."""
    if not options.held_out and (options.epochs is not None or options.learning_rate is not None):
        parser.error(
            "--epochs and --learning-rate try another recipe, which is chosen on training rows: add --held-out"
        )
    if not seqeval_is_there():  # an evaluation would measure the accuracy alone, and that shows after the training
        parser.error("entities are measured by the package seqeval: pip install 'kdistill[seqeval]'")
    kd.set_num_threads(options.threads)
    os.environ.setdefault("KDISTILL_CACHE", str(options.results / "cache"))
    if options.model is None:
        options.model = fetch_pretrained(Path("build", "pretrained", MINILM))


def directory_of(options: argparse.Namespace) -> Path:
    """Return where figures and teachers of these rows are kept."""
    return options.results / (
        ("held-out" if options.held_out else "dev") + (f"-{options.rows}" if options.rows else "")
    )


def rows_for(options: argparse.Namespace, name: str) -> TaskRows:
    """Return the rows of a data set by the options."""
    return rows_of(name, options.data_dir, held_out=options.held_out, count=options.rows)


def with_options(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Return the recipe with what the options change."""
    changes = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    return recipe._replace(**{name: value for name, value in changes.items() if value is not None})


def shown(recipe: Recipe) -> str:
    """Return the changes of a recipe for the name of a run."""
    return f"{recipe.epochs}x{recipe.learning_rate:g}"


def new_model(directory: Path, rows: TaskRows, seed: int) -> Any:
    """Return a pretrained model with a new head for the task."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the head is new, which is the point
        if rows.id2label is None:
            return kd.AutoModelForQuestionAnswering.from_pretrained(directory, seed=seed)
        return kd.AutoModelForTokenClassification.from_pretrained(directory, id2label=rows.id2label, seed=seed)


def trainer_for(
    model: Any, tokenizer: Any, rows: TaskRows, recipe: Recipe, seed: int, directory: Path, teacher: Any = None
) -> kd.Trainer:
    """Return a trainer of the model, with the teacher's loss if there is one."""
    values = {
        "output_dir": str(directory),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "warmup_ratio": recipe.warmup_ratio,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": seed,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    given = {"train_dataset": rows.train, "processing_class": tokenizer}
    if teacher is None:
        return kd.Trainer(model, kd.TrainingArguments(**values), **given)
    args = kd.DistillationTrainingArguments(**values, alpha=ALPHA, temperature=TEMPERATURE)
    return kd.DistillationTrainer(model, args, teacher_model=teacher, **given)


def trained(
    model: Any,
    tokenizer: Any,
    rows: TaskRows,
    recipe: Recipe,
    seed: int,
    *,
    teacher: Any = None,
    keep: Path | None = None,
) -> dict[str, float]:
    """Train a model and return its metrics on the rows to evaluate on, and the seconds of training.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        rows: of the task.
        recipe: how to train.
        seed: of the order of the rows and of dropout.
        teacher: a model to learn from, beside the labels.
        keep: where to leave the trained model.
    """
    with tempfile.TemporaryDirectory() as directory:
        trainer = trainer_for(model, tokenizer, rows, recipe, seed, Path(directory, "run"), teacher)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        measured = trainer.evaluate(rows.eval)
        if keep is not None:
            trainer.save_model(keep)
    return {name: measured[f"eval_{name}"] for name in rows.metrics} | {"seconds": seconds}
