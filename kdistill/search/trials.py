"""The trials of a search: what its study is about, and what each trains: the recipe with other arguments."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..data.dataset import Dataset
from ..system.names import as_file_name
from ..system.progress import Progress
from ..train.arguments import TrainingArguments
from ..train.callbacks import CallbackHandler
from ..train.chosen_defaults import choose_defaults
from ..train.default_callbacks import ProgressCallback
from ..train.evaluation_sets import evaluation_sets
from ..train.loop import best_metric
from ..train.recipe import Recipe, require_labels
from ..train.run_logs import logs_root
from ..train.state import TrainerState
from .search import Objective, Objectives, Search, TrialCallback, as_objectives
from .space import SHARED, hyperparameter_space
from .study import BestRun, SharedStudy

# What users hand us need not be written for several threads.
_ONE_MODEL_INIT = threading.Lock()


class TrialTrainer(Protocol):
    """Trains one recipe in memory. Its callbacks are those that it was made with."""

    state: TrainerState

    def train_without_files(self, dataset: Dataset) -> None:
        """Train on these rows, from the beginning."""

    def evaluate(self) -> dict[str, float]:
        """Measure the model on the evaluation rows, set by set; the callbacks see the metrics of each."""


TrainerOf = Callable[[Recipe, CallbackHandler], TrialTrainer]


class HyperparameterSearch:
    """A search among variations of `recipe`.

    Args:
        recipe: what all trials have in common; `model_init` makes their models.
        callbacks: each trial gets copies.
        trainer_of: makes what trains a trial.
        measure: evaluates the recipe's own model, to see before any work whether the objective can be computed.
        compute_objective: (metrics) -> number; None is the metric that chooses the best model.
        others: as `Trainer.hyperparameter_search` documents them.

    Attributes:
        study: Optuna's.

    Raises:
        ValueError: recipe, space or study do not fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        callbacks: CallbackHandler,
        trainer_of: TrainerOf,
        measure: Callable[[], dict[str, float]],
        *,
        hp_space: Any,
        compute_objective: Objective | None,
        n_trials: int,
        direction: str | Sequence[str] | None,
        hp_name: Callable[[Any], str] | None,
        storage: Any,
        study_name: str,
        n_jobs: int,
        pruner: Any,
        sampler: Any,
        timeout: float | None,
        seed: int | None,
        catch: type[Exception] | Iterable[type[Exception]],
        load_if_exists: bool,
    ) -> None:
        args = recipe.args
        if recipe.eval_dataset is None:
            raise ValueError("eval_dataset is None; expected rows on which the trials are compared")
        for name, rows in evaluation_sets(recipe.eval_dataset).items():
            require_labels(rows, name)
        self._recipe, self._callbacks, self._trainer_of, self._hp_name = recipe, callbacks, trainer_of, hp_name
        self._dataset = recipe.rows_to_learn_from()
        recipe.settle_config(self._dataset)
        space = hyperparameter_space(hp_space, args)
        about = {
            "training rows, or another teacher": " ".join(recipe.fingerprint(self._dataset).values()),
            "evaluation rows": recipe.evaluated_on(),
            "models": repr(recipe.model),
            "objectives": args.metric_for_best_model if compute_objective is None else "compute_objective",
        }
        greater_is_better = compute_objective is None and args.greater_is_better
        directions = _directions(direction, "maximize" if greater_is_better else "minimize")
        if len(directions) > 1 and compute_objective is None:
            raise ValueError(
                f"direction is {direction!r} and compute_objective is None; expected a function that returns a number "
                "for each direction"
            )
        self._compute_objective = compute_objective or partial(best_metric, args=args)
        self._directions = len(directions)
        as_objectives(self._compute_objective(measure()), self._directions)  # if it cannot, it shows here
        self._study = SharedStudy(
            study_name,
            storage,
            directions=directions,
            sampler=sampler,
            pruner=pruner,
            seed=args.seed if seed is None else seed,
            load_if_exists=load_if_exists,
            about=about,
            args=args,
        )
        self.study = self._study.study
        try:
            self._search = Search(
                self._study,
                space,
                self._run_trial,
                n_trials=n_trials,
                n_jobs=n_jobs,
                timeout=timeout,
                prepare=lambda: recipe.prepare(self._dataset),
                catch=catch,
                progress=Progress("search", unit="trials", quiet=args.disable_tqdm),
            )
        except BaseException:
            self._study.discard_if_unused()
            raise

    def run(self) -> BestRun | list[BestRun]:
        """Work until the study is complete; return the best trial, or trials.

        `search_trials` becomes how many were scored.
        """
        try:
            return self._search.run()
        finally:
            # What is trained from now on is chosen by these rows.
            self._recipe.args.search_trials = self._study.num_scored() or None
            self._study.discard_if_unused()

    def _run_trial(self, trial: Any, hyperparameters: dict[str, Any], stop: threading.Event) -> Objectives:
        """Train as `train` does, without files; return the objective of the weights that `train` would keep."""
        recipe = self._recipe_of(trial, hyperparameters)
        sets = len(evaluation_sets(recipe.eval_dataset))
        reported = self._study.trials()[trial.number].intermediate_values
        callback = TrialCallback(
            trial, self._compute_objective, stop, sets=sets, directions=self._directions, reported=reported
        )
        callbacks = self._callbacks.copied()
        callbacks.pop(ProgressCallback)
        callbacks.add(callback)
        trainer = self._trainer_of(recipe, callbacks)
        trainer.train_without_files(self._dataset)
        if trainer.state.global_step not in callback.objectives:
            trainer.evaluate()
        best = trainer.state.best_global_step if self._recipe.args.load_best_model_at_end else None
        return callback.objectives[trainer.state.global_step if best is None else best]

    def _recipe_of(self, trial: Any, hyperparameters: dict[str, Any]) -> Recipe:
        """Return the recipe with the trial's arguments and a new model."""
        name = self._hp_name(trial) if self._hp_name else f"run-{trial.number}"
        args = _arguments_of_trial(self._recipe.args, name, hyperparameters)
        with _ONE_MODEL_INIT, self._study.drawing(trial):  # it may ask the trial for hyperparameters, too
            model = self._recipe.new_model(trial)
        if model is self._recipe.model:
            raise RuntimeError("model_init returned a model that it made before; expected a new one for each trial")
        assert self._recipe.train_dataset is not None
        rows = self._recipe.train_dataset
        no_copies = self._recipe.objective.why_no_copies(rows, self._recipe.processing_class)
        choose_defaults(args, model, rows, no_copies)  # as a run with the trial's values does
        recipe = self._recipe.replace(args=args, model=model)
        recipe.settle_config(self._dataset)
        return recipe


def _directions(given: Any, default: str) -> list[Any]:
    """Return the directions of a search, one for each number of its objective. Raises `ValueError` for none at all."""
    if not isinstance(given, list | tuple):
        return [given or default]
    if not given:
        raise ValueError(f"direction is {given!r}; expected 'minimize', 'maximize', or a list of them")
    return list(given)


def _arguments_of_trial(common: TrainingArguments, name: str, values: dict[str, Any]) -> TrainingArguments:
    args = copy.copy(common)
    own = {
        "output_dir": str(Path(args.output_dir, as_file_name(name))),
        "logging_dir": str(logs_root(args) / as_file_name(name)),  # side by side, for one tensorboard --logdir
        "run_name": name,
        "disable_tqdm": True,
    }
    shared = {argument: value for argument, value in args.chosen.items() if argument in SHARED}
    for argument, value in {**own, **shared, **values}.items():
        setattr(args, argument, value)
    return args
