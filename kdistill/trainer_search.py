"""The part of `Trainer` that searches hyperparameters: what a study is about, and what one trial does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .data.dataset import Dataset
from .search.search import Objective, Search, TrialCallback
from .search.space import hyperparameter_space
from .search.study import BestRun, SharedStudy
from .system.progress import Progress
from .train.arguments import TrainingArguments
from .train.default_callbacks import ProgressCallback
from .trainer_base import TrainerBase, made_by, require_labels

# What users hand us need not be written for several threads.
_ONE_MODEL_INIT = threading.Lock()


class SearchingTrainer(TrainerBase):
    """A trainer that can be copied for a trial; `Trainer` says how it trains."""

    def _train_without_files(self, dataset: Dataset) -> None:
        """Train the model as `train` does from the beginning, but neither read nor write the output directory."""
        raise NotImplementedError

    def hyperparameter_search(
        self,
        hp_space: Any = None,
        compute_objective: Objective | None = None,
        n_trials: int = 20,
        direction: str | None = None,
        backend: str = "optuna",
        hp_name: Callable[[Any], str] | None = None,
        *,
        storage: Any = None,
        study_name: str = "search",
        n_jobs: int = 1,
        pruner: Any = "median",
        sampler: Any = "tpe",
        timeout: float | None = None,
        seed: int | None = None,
    ) -> BestRun:
        """Look for the hyperparameters that train the best model (extra `[search]`); docs/how-to/search.md tells more.

        hp_space: as in `search_space.hyperparameter_space`: a function (Optuna trial) -> dict, ranges, or their file.
        compute_objective: (metrics of an evaluation) -> number; default `args.metric_for_best_model`.
        n_trials: how many the study is to have in all, over every process and every call.
        direction: "minimize" or "maximize"; default what the metric asks for, and "minimize" for a `compute_objective`.
        hp_name: (trial) -> name of the run.
        storage, study_name: see `study.SharedStudy`; the study goes on where it is.
        n_jobs: trials at once, in threads that share the cores (-1: one a core).
        pruner, sampler: Optuna's, or names: median, hyperband, none; tpe, random.
        timeout: seconds after which no trial is begun. seed: of the sampler; default `args.seed`.

        A trial trains what `model_init` makes, on a copy of this trainer and its callbacks, and writes no model. Its
        objective is that of the weights that `train` would keep. One that fails (`ValueError`, `ArithmeticError`,
        `MemoryError`) is recorded and the search goes on. `study` is Optuna's; `args.search_trials`, which the model
        card tells, becomes how many trials were scored. Raises `ValueError` without `model_init` or `eval_dataset` and
        for a space or study that does not fit, `RuntimeError` when no trial finished.
        """
        dataset, eval_dataset = self._checked_search(backend)
        space = hyperparameter_space(hp_space, self.args)
        about = {
            "training rows, or another teacher": self._fingerprint(dataset),
            "evaluation rows": eval_dataset.fingerprint(),
            "models": repr(self.model),
            "objectives": self.args.metric_for_best_model if compute_objective is None else "compute_objective",
        }
        if compute_objective is None:
            direction = direction or ("maximize" if self.args.greater_is_better else "minimize")
            compute_objective = self._best_metric
        float(compute_objective(self._predict(eval_dataset, "eval", "evaluate").metrics))  # if it cannot, it shows here
        study = SharedStudy(
            study_name,
            storage,
            direction=direction or "minimize",
            sampler=sampler,
            pruner=pruner,
            seed=self.args.seed if seed is None else seed,
            about=about,
            args=self.args,
        )
        self.study = study.study
        search = Search(
            study,
            space,
            partial(self._run_trial, dataset=dataset, compute_objective=compute_objective, hp_name=hp_name),
            n_trials=n_trials,
            n_jobs=n_jobs,
            timeout=timeout,
            prepare=lambda: self._prepare(dataset),
            progress=Progress("search", unit="trials", quiet=self.args.disable_tqdm),
        )
        try:
            return search.run()
        finally:
            self.args.search_trials = study.num_scored() or None  # what is trained from now on is chosen by these rows

    def _checked_search(self, backend: str) -> tuple[Dataset, Dataset]:
        """The rows to train and to evaluate on, once it is certain that every trial can."""
        if backend != "optuna":
            raise ValueError(f"backend is {backend!r}; expected 'optuna'")
        if self.model_init is None:
            raise ValueError(
                "model_init is None; hyperparameter_search needs a function that makes a new model for each trial: "
                f"{type(self).__name__}(model_init=..., args=...) instead of a model"
            )
        if self.eval_dataset is None:
            raise ValueError("eval_dataset is None; expected rows on which the trials are compared")
        require_labels(self.eval_dataset)
        dataset = self._rows_to_learn_from()
        self._state_problem_type(dataset)
        return dataset, self.eval_dataset

    def _run_trial(
        self,
        trial: Any,
        hyperparameters: dict[str, Any],
        stop: threading.Event,
        *,
        dataset: Dataset,
        compute_objective: Objective,
        hp_name: Callable[[Any], str] | None,
    ) -> float:
        """Train as `train` does, on a copy of the trainer and without files; return the objective."""
        assert self.model_init is not None
        run = copy.copy(self)
        run._parts = {}
        run.args = self._arguments_of_trial(trial.number, hyperparameters, hp_name(trial) if hp_name else None)
        with _ONE_MODEL_INIT:
            run.model = self._taken(made_by(self.model_init, trial))
        if run.model is self.model:
            raise RuntimeError("model_init returned a model that it made before; expected a new one for each trial")
        run._state_problem_type(dataset)
        callback = TrialCallback(trial, compute_objective, stop)
        run.callback_handler = self.callback_handler.copied()
        run.pop_callback(ProgressCallback)
        run.add_callback(callback)
        run._train_without_files(dataset)
        if run.state.global_step not in callback.objectives:
            run.evaluate()
        best = run.state.best_global_step if self.args.load_best_model_at_end else None
        return callback.objectives[run.state.global_step if best is None else best]

    def _arguments_of_trial(self, number: int, values: dict[str, Any], name: str | None) -> TrainingArguments:
        args = copy.copy(self.args)
        name = name or f"run-{number}"
        logs = Path(args.output_dir, "runs") if args.logging_dir is None else Path(args.logging_dir)
        own = {
            "output_dir": str(Path(args.output_dir, name)),
            "logging_dir": str(logs / name),  # side by side, for one tensorboard --logdir
            "run_name": name,
            "disable_tqdm": True,
        }
        for argument, value in {**own, **values}.items():
            setattr(args, argument, value)
        return args
