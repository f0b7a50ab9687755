"""The trials of a search: what its study is about, and what each trains: the recipe with other arguments."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from ..models.model import Model
from ..system.names import as_file_name, did_you_mean
from ..system.progress import Progress
from ..system.threads import get_num_threads, using_num_threads
from ..train.arguments import TrainingArguments
from ..train.callbacks import CallbackHandler
from ..train.chosen_defaults import choose_defaults
from ..train.default_callbacks import ProgressCallback
from ..train.evaluation_sets import evaluation_sets
from ..train.loop import best_metric
from ..train.recipe import Recipe, require_labels
from ..train.run_logs import logs_root
from .ray import RayTrials
from .search import Objective, Search, as_objectives
from .space import SHARED, hyperparameter_space
from .study import BestRun, SharedStudy
from .work import TrainerOf, TrialWork

# What users hand us need not be written for several threads.
_ONE_MODEL_INIT = threading.Lock()


BACKENDS = ("optuna", "ray")
"""Where trials are trained: in threads of this process, or in processes of Ray. The study is Optuna's with both."""


class Engine(Protocol):
    """Trains trials somewhere, several at a time. It is a context manager, which ends what `open` has begun."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def open(self) -> None:
        """Make ready whatever trains the trials, before any work."""

    def share(self, work: TrialWork) -> None:
        """Take what all trials need, before the first one."""

    def jobs(self, search: Search, n_jobs: int) -> Sequence[Callable[[], None]]:
        """Return what trains the trials of a search, so many at a time (-1: as many as cores), see `Search`."""


class Threads:
    """Trains trials in threads of this process, which share the cores."""

    def __init__(self) -> None:
        self._work: TrialWork | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._work = None

    def open(self) -> None:
        """Do nothing: the threads are there."""

    def share(self, work: TrialWork) -> None:
        """Take what all trials need."""
        self._work = work

    def jobs(self, search: Search, n_jobs: int) -> Sequence[Callable[[], None]]:
        """Return a job for each trial at a time, which has its share of the threads; -1 is a trial for each of them."""
        threads = get_num_threads()
        trials = threads if n_jobs == -1 else n_jobs
        return [partial(self._job, search, max(1, threads // trials))] * trials

    def _job(self, search: Search, threads: int) -> None:
        """Train one trial after another until there are enough."""
        assert self._work is not None
        with using_num_threads(threads):
            while (begun := search.begin()) is not None:
                call = partial(self._work, begun.trial, begun.args, begun.model, search.stop, begun.reported)
                search.end(begun.trial, call)
                del begun, call
                # A model and its optimiser refer to each other, and the collector, which counts objects and not bytes,
                # would let many of them pile up.
                gc.collect()


def engine_of(backend: str, ray_address: str | None) -> Engine:
    """Return what trains the trials.

    Raises:
        ImportError: ray is not installed.
        ValueError: another backend, or an address without Ray.
    """
    if backend not in BACKENDS:
        expected = " or ".join(map(repr, BACKENDS))
        raise ValueError(f"backend is {backend!r}; expected {expected}{did_you_mean(str(backend), BACKENDS)}")
    if backend == "ray":
        return RayTrials(ray_address)
    if ray_address is not None:
        raise ValueError(
            f"ray_address is {ray_address!r} and backend is {backend!r}, which uses no cluster; expected backend='ray'"
        )
    return Threads()


class HyperparameterSearch:
    """A search among variations of `recipe`.

    Args:
        recipe: what all trials have in common; `model_init` makes their models.
        callbacks: each trial gets copies.
        trainer_of: makes what trains a trial.
        measure: evaluates the recipe's own model, to see before any work whether the objective can be computed.
        engine: trains the trials.
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
        engine: Engine,
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
        self._engine = engine
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
                self._made,
                n_trials=n_trials,
                n_jobs=n_jobs,
                jobs=engine.jobs,
                timeout=timeout,
                prepare=self._prepare,
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
            with self._engine:
                return self._search.run()
        finally:
            # What is trained from now on is chosen by these rows.
            self._recipe.args.search_trials = self._study.num_scored() or None
            self._study.discard_if_unused()

    def _prepare(self) -> None:
        """Do once what all trials need: the teacher answers, and whoever trains them is given the answers."""
        self._engine.open()
        self._recipe.prepare(self._dataset)
        callbacks = self._callbacks.copied()
        callbacks.pop(ProgressCallback)
        recipe = self._recipe.replace(model_init=None)
        self._engine.share(
            TrialWork(recipe, callbacks, self._trainer_of, self._dataset, self._compute_objective, self._directions)
        )

    def _made(self, trial: Any, hyperparameters: dict[str, Any]) -> tuple[TrainingArguments, Model]:
        """Return the trial's arguments and a new model."""
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
        self._recipe.replace(args=args, model=model).settle_config(self._dataset)
        return args, model


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
