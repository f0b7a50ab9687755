"""A sentence at the end of a run: the model answers hardly better than one that always gives the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.ragged import units
from ..data.spans import Spans, SpanTargets
from ..metrics.classification import majority_share
from ..metrics.prediction import labelled_answers
from ..tasks.base import Task
from ..tasks.registry import task_for
from .evaluation_sets import metric_prefix
from .recipe import Recipe
from .stages import predictions_count

LEAST_SHARE = 0.1
"""Of the way from the best constant answer to the teacher, or without one to a model that is always right."""


def little_learned_by(recipe: Recipe, results: Mapping[str, Any], *, new_layers: bool) -> str | None:
    """Return `little_learned` of a finished run, from its figures; None where it was not evaluated.

    Nor is there one where the run had no loss of the predictions: a fine-tuning is to follow.
    """
    rows, prefix = recipe.main_eval_dataset, metric_prefix("eval", recipe.main_eval_set)
    if rows is None or f"{prefix}_loss" not in results or not predictions_count(getattr(recipe.args, "matches", None)):
        return None
    return little_learned(
        task_for(recipe.model.config, rows.labels),
        rows,
        {name.removeprefix(f"{prefix}_"): value for name, value in results.items()},
        teacher={name.removeprefix("teacher_"): of for name, of in results.items() if name.startswith("teacher_")},
        new_layers=new_layers,
        recipe=recipe.args.recipe,
    )


def little_learned(
    task: Task,
    rows: Dataset,
    metrics: Mapping[str, float],
    *,
    teacher: Mapping[str, float],
    new_layers: bool,
    recipe: str,
) -> str | None:
    """Return a sentence for a model that has learned little, with a remedy; None for others.

    Several labels at once get none: the set that most rows have is often the empty one, which is easy to beat.

    Args:
        task: the model's.
        rows: what it was measured on.
        metrics: its metrics there, by their names without a prefix.
        teacher: those of its teacher there, as far as they are known.
        new_layers: whether its layers were new before the run.
        recipe: where the arguments came from that nobody gave.
    """
    targets = rows.targets
    labels = None if isinstance(targets, SpanTargets) else units(labelled_answers(targets, targets)[1])
    if labels is None:
        never = 100 * targets.spans.questions.answerless / rows.labelled
        if _is_more(metrics["f1"], never, teacher.get("f1", 100.0)):
            return None
        what = f"its F1 is {metrics['f1']:.2f} of 100" + (f", and {never:.2f} if it never answered" if never else "")
    elif task.labels_per_token and task.best_metric == "f1":
        if _is_more(metrics["f1"], 0.0, teacher.get("f1", 1.0)):
            return None
        what = f"its F1 of entities is {metrics['f1']:.4f}"
    elif task.one_label:
        found, constant = metrics["accuracy"], majority_share(labels)
        if _is_more(found, constant, teacher.get("accuracy", 1.0)):
            return None
        what = f"its accuracy is {found:.4f}, and that of always answering the most frequent label {constant:.4f}"
    elif not task.names_labels and task.constant is not None:
        found, constant = metrics["mse"], float(((labels - labels.mean(axis=0)) ** 2).mean())
        if found < (1 - LEAST_SHARE) * constant:
            return None
        what = f"its mean squared error is {found:.4f}, and that of always answering the mean {constant:.4f}"
    else:
        return None
    return f"the model has learned little: {what}; {_remedy(rows, new_layers=new_layers, recipe=recipe)}"


def _is_more(found: float, constant: float, best: float) -> bool:
    """Return whether a figure is further than `LEAST_SHARE` of the way from that of a constant answer to the best."""
    return found > constant + LEAST_SHARE * max(0.0, best - constant)


def _remedy(rows: Dataset, *, new_layers: bool, recipe: str) -> str:
    if not new_layers:
        return "look at the labels, or train longer or with a higher learning rate"
    if isinstance(rows.windows, Spans):
        return "new layers learn to find answers only from many questions; begin with a pretrained model, or give more"
    if np.any(rows.types):
        return (
            "new layers learn to compare two texts only from many rows; begin with a pretrained model, with a shape of "
            "the teacher's width, which copies its layers, or give more"
        )
    if recipe == "transformers":
        return "its layers were new, and recipe auto chooses learning rate and epochs for such"
    return "give more rows or epochs, or begin with a pretrained model"
