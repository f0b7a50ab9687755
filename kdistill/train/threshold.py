"""The threshold that a trained model keeps, above which one of several labels is predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..models.configuration import Config
from ..models.trained_with import EVALUATION_ROWS, TRAINING_ROWS
from ..tasks.registry import task_for
from .recipe import Recipe

_MOST_ROWS = 10_000


def keep_threshold(recipe: Recipe, dataset: Dataset, found: float | None, choose: Callable[[Dataset], float]) -> None:
    """Let the model keep the threshold of its weights: that of their evaluation, else one of the training rows.

    One that was given is kept as it is.

    Args:
        recipe: of the run.
        dataset: the rows that it has learned from.
        found: the threshold of the evaluation of these weights; None: they were not evaluated.
        choose: finds the threshold that suits rows best.
    """
    if recipe.args.threshold is not None or task_for(recipe.model.config, dataset.labels).threshold is None:
        return
    chosen_on = EVALUATION_ROWS
    if found is None:
        rows = recipe.main_eval_dataset
        if rows is None or not rows.labelled:
            rows, chosen_on = rows_for_threshold(dataset), TRAINING_ROWS
        if rows is None:
            return
        found = choose(rows)
    recipe.set_threshold(found, chosen_on)


def rows_for_threshold(dataset: Dataset) -> Dataset | None:
    """Return rows that a threshold can be chosen on: those with a label, or evenly spread ones of many; None: none."""
    places = np.flatnonzero(dataset.have_labels())
    if not places.size:
        return None
    spread = np.linspace(0, len(places) - 1, min(_MOST_ROWS, len(places))).astype(np.int64)
    return dataset.take(places[spread])


def threshold_figures(config: Config) -> dict[str, Any]:
    """Return the threshold of a model and the rows it was chosen on, as far as its config holds them."""
    trained_with = config.trained_with
    kept = {"threshold": trained_with.threshold, "threshold_rows": trained_with.threshold_rows}
    return {name: value for name, value in kept.items() if value is not None}
