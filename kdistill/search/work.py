"""`TrialWork`: what all trials of a search have in common, in the process that trains them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from ..data.dataset import Dataset
from ..models.model import Model
from ..train.arguments import TrainingArguments
from ..train.callbacks import CallbackHandler
from ..train.evaluation_sets import evaluation_sets
from ..train.recipe import Recipe
from ..train.state import TrainerState
from .search import Objective, Objectives, TrialCallback


class TrialTrainer(Protocol):
    """Trains one recipe in memory. Its callbacks are those that it was made with."""

    state: TrainerState

    def train_without_files(self, dataset: Dataset) -> None:
        """Train on these rows, from the beginning."""

    def evaluate(self) -> dict[str, float]:
        """Measure the model on the evaluation rows, set by set; the callbacks see the metrics of each."""


TrainerOf = Callable[[Recipe, CallbackHandler], TrialTrainer]


@dataclass(frozen=True)
class TrialWork:
    """Trains trials: the recipe with other arguments and a new model. It can be sent to another process.

    Attributes:
        recipe: what all trials have in common, without `model_init`.
        callbacks: each trial gets copies.
        trainer_of: makes what trains a trial.
        dataset: the rows to learn from.
        compute_objective: (metrics) -> number, or numbers.
        directions: how many numbers.
    """

    recipe: Recipe
    callbacks: CallbackHandler
    trainer_of: TrainerOf
    dataset: Dataset
    compute_objective: Objective
    directions: int

    def __call__(
        self, trial: Any, args: TrainingArguments, model: Model, stop: threading.Event, reported: Collection[int]
    ) -> Objectives:
        """Train as `train` does, without files; return the objective of the weights that `train` would keep.

        Args:
            trial: what each evaluation is reported to, see `TrialCallback`.
            args: of the trial.
            model: a new one.
            stop: ends the training.
            reported: the steps that the trial has reported before it was interrupted.
        """
        recipe = self.recipe.replace(args=args, model=model)
        callback = TrialCallback(
            trial,
            self.compute_objective,
            stop,
            sets=len(evaluation_sets(recipe.eval_dataset)),
            directions=self.directions,
            reported=reported,
        )
        callbacks = self.callbacks.copied()
        callbacks.add(callback)
        trainer = self.trainer_of(recipe, callbacks)
        trainer.train_without_files(self.dataset)
        if trainer.state.global_step not in callback.objectives:
            trainer.evaluate()
        best = trainer.state.best_global_step if args.load_best_model_at_end else None
        return callback.objectives[trainer.state.global_step if best is None else best]
