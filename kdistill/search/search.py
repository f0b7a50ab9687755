"""The trials of a search: run side by side, reported and pruned, and none lost by a kill."""

from __future__ import annotations

import math
import numbers
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

from ..models.model import Model
from ..system.cluster import WorkerDiedError
from ..system.progress import Progress
from ..train.arguments import TrainingArguments
from ..train.callbacks import TrainerCallback, TrainerControl
from ..train.state import TrainerState
from .space import HyperparameterSpace
from .study import BestRun, SharedStudy, import_optuna

POLL_SECONDS = 0.5
# Errors that a trial's hyperparameters can cause. Any other is an error of the program and ends the search.
_FAILURES = (ArithmeticError, ValueError, MemoryError)
_ENDED = {"PRUNED": "pruned", "FAIL": "failed"}

Objective = Callable[[dict[str, float]], Any]
"""(metrics of an evaluation) -> the number to minimise or maximise, or one for each direction of the search."""
Objectives = tuple[float, ...]
"""The numbers of an objective: one, or one for each direction."""
_Result = TypeVar("_Result")


class TrialStoppedError(BaseException):
    """The end of a search while this trial runs: an interrupt, and no error of the trial."""


def as_objectives(objective: Any, directions: int) -> Objectives:
    """Return the numbers of an objective. Raises `ValueError` unless it has one for each direction."""
    numbers = tuple(objective) if isinstance(objective, list | tuple) else (objective,)
    if len(numbers) != directions:
        raise ValueError(
            f"compute_objective returned {objective!r} and direction names {directions}; expected a number for each"
        )
    return tuple(float(number) for number in numbers)


class TrialCallback(TrainerCallback):
    """A callback that reports each evaluation's objective to the trial, and ends its training when it is pruned.

    It must be the last callback, so that all others have seen the evaluation.

    Args:
        trial: Optuna's trial.
        compute_objective: from the metrics of an evaluation.
        stop: an event that ends the training when the search ends.
        sets: of how many sets of rows an evaluation consists.
        directions: how many numbers the objective has. With several none is reported: Optuna cannot prune then.
        reported: the steps that the trial has reported before it was interrupted.

    Attributes:
        objectives: the objective of each evaluation, by optimiser step.
    """

    def __init__(
        self,
        trial: Any,
        compute_objective: Objective,
        stop: threading.Event,
        *,
        sets: int = 1,
        directions: int = 1,
        reported: Iterable[int] = (),
    ) -> None:
        self.trial, self.compute_objective, self._stop, self._sets = trial, compute_objective, stop, sets
        self._measured: list[dict[str, float]] = []  # the sets of the present evaluation
        self._directions, self._reported = directions, set(reported)
        self.objectives: dict[int, Objectives] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Raise `TrialStoppedError` when the search ends."""
        if self._stop.is_set():
            raise TrialStoppedError

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise `TrialStoppedError` when the search ends."""
        if self._stop.is_set():
            raise TrialStoppedError

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the objective and prune the trial if Optuna decides so, but not after the last evaluation.

        The report's step is the epoch, rounded up, or with eval_strategy "steps" the optimiser step.
        """
        self._measured.append(kwargs["metrics"])
        if len(self._measured) < self._sets:
            return
        metrics = {name: value for of_set in self._measured for name, value in of_set.items()}
        self._measured = []
        objective = as_objectives(self.compute_objective(metrics), self._directions)
        self.objectives[state.global_step] = objective
        if self._directions > 1:
            return
        step = state.global_step if args.eval_strategy == "steps" else math.ceil(state.epoch)
        if step not in self._reported:
            self.trial.report(objective[0], step)
        elif step < max(self._reported):
            return  # it has gone on from here before
        if state.steps_passed < state.max_steps and self.trial.should_prune():
            raise import_optuna().TrialPruned


class Begun(NamedTuple):
    """A trial that has begun, and what it is trained with.

    Attributes:
        trial: Optuna's.
        args: of the trial.
        model: a new one.
        reported: the steps that the trial has reported before it was interrupted.
        attempt: how many processes have begun it, with this one.
    """

    trial: Any
    args: TrainingArguments
    model: Model
    reported: Collection[int]
    attempt: int


Make = Callable[[Any, dict[str, Any]], tuple[TrainingArguments, Model]]
"""(Optuna's trial, hyperparameters) -> what is trained."""


class Search:
    """A search by this process: trials of a study until there are enough, several at a time.

    Args:
        study: the study, which other processes may work on too.
        space: hyperparameters of a trial.
        make: makes of a trial and its hyperparameters what is trained.
        n_trials: trials of the study in total, over all processes.
        n_jobs: trials at a time (-1: as many as cores).
        jobs: (this search, n_jobs) -> calls that run side by side and train what `begin` gives them, until it has no
            more, each trial with one `end`; called once the search is prepared.
        timeout: seconds after which no trial begins (None: no limit).
        prepare: called once, before the first trial, by one process at a time.
        catch: errors that fail their trial alone, beside those that hyperparameters can cause.
        progress: shows the trials.

    Attributes:
        stop: an event that is set when the search ends before its trials.

    Raises:
        ValueError: `n_trials`, `n_jobs` or `timeout` is out of its range.
    """

    def __init__(
        self,
        study: SharedStudy,
        space: HyperparameterSpace,
        make: Make,
        *,
        n_trials: int,
        n_jobs: int,
        jobs: Callable[[Search, int], Sequence[Callable[[], None]]],
        timeout: float | None,
        prepare: Callable[[], None],
        catch: type[Exception] | Iterable[type[Exception]],
        progress: Progress,
    ) -> None:
        self._study, self._space, self._make, self._prepare = study, space, make, prepare
        self._n_trials = _at_least_one("n_trials", n_trials)
        self._n_jobs, self._jobs = n_jobs if n_jobs == -1 else _at_least_one("n_jobs", n_jobs), jobs
        self._failures: tuple[type[Exception], ...] = (*_FAILURES, *_exceptions(catch))
        if timeout is not None and not (isinstance(timeout, numbers.Real) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}; expected seconds above 0, or None for no end")
        self._end = math.inf if timeout is None else time.monotonic() + timeout
        self._progress, self._shown = progress, threading.Lock()
        self.stop = threading.Event()

    def run(self) -> BestRun | list[BestRun]:
        """Run trials until the study is complete, wait for those of other processes, and return the best run.

        Ctrl-C, or an error that hyperparameters do not cause, queues the running trials again and ends the search.

        Raises:
            RuntimeError: no trial has finished.
        """
        study, prepared = self._study, False
        with study.as_worker(), self._progress:
            while not self._out_of_time():
                study.queue_trials_of_the_dead()
                if study.num_begun() < self._n_trials:
                    if not prepared:
                        with study.exclusively("prepare"):
                            self._prepare()
                        prepared = True
                    self._run_jobs()
                elif study.others_are_running():
                    time.sleep(POLL_SECONDS)
                else:
                    break
        return study.best_run()

    def _out_of_time(self) -> bool:
        return time.monotonic() >= self._end

    def _run_jobs(self) -> None:
        self._progress(self._study.num_ended(), self._n_trials)
        jobs = self._jobs(self, self._n_jobs)
        with ThreadPoolExecutor(len(jobs), thread_name_prefix="trial") as executor:
            running = {executor.submit(job) for job in jobs}
            try:
                while running:
                    # The timeout lets this thread notice a signal that another thread has received.
                    ended, running = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                    for job in ended:
                        job.result()
            except BaseException:
                self.stop.set()
                raise

    def begin(self) -> Begun | None:
        """Begin the next trial that can be trained. Return None when there are enough, or the search ends."""
        while not (self.stop.is_set() or self._out_of_time()):
            trial = self._study.claim(self._n_trials)
            if trial is None:
                return None
            begun = self._begun(trial)
            if begun is not None:
                return begun
        return None

    def _begun(self, trial: Any) -> Begun | None:
        """Return a trial with what it is trained with; None where that has ended it."""
        hyperparameters = self._judged(trial, (), lambda: self._drawn(trial))
        if hyperparameters is None:
            return None
        made = self._judged(trial, self._failures, lambda: self._make(trial, hyperparameters))
        return None if made is None else Begun(trial, *made, self.reported(trial), self._study.attempt(trial))

    def _drawn(self, trial: Any) -> dict[str, Any]:
        with self._study.drawing(trial):
            hyperparameters = self._space(trial)
        trial.set_user_attr("hyperparameters", hyperparameters)
        return hyperparameters

    def reported(self, trial: Any) -> list[int]:
        """Return the steps whose objectives a trial has reported."""
        return list(self._study.trials()[trial.number].intermediate_values)

    def end(self, trial: Any, objectives: Callable[[], Objectives]) -> None:
        """End a trial as a call ends: complete, pruned or failed; or let it wait again, where the search ends.

        Raises whatever the call raises that hyperparameters do not cause.

        Args:
            trial: that has begun.
            objectives: returns the trial's; it may train it.
        """

        def finite() -> Objectives:
            found = objectives()
            if not all(map(math.isfinite, found)):
                raise FloatingPointError(f"the objective is {', '.join(map(str, found))}; expected finite numbers")
            return found

        found = self._judged(trial, self._failures, finite)
        if found is not None:
            self._study.end_trial(trial.number, "COMPLETE", found)
            self._show(trial.number)

    def _judged(self, trial: Any, failures: tuple[type[Exception], ...], call: Callable[[], _Result]) -> _Result | None:
        """Return what a call for a trial returns, or None where it has ended the trial.

        Args:
            trial: the trial.
            failures: errors that fail it alone.
            call: the call.
        """
        try:
            return call()
        except import_optuna().TrialPruned:
            self._study.end_trial(trial.number, "PRUNED")
        except TrialStoppedError:
            self._study.queue_again(trial)
            self._progress.write(f"trial {trial.number}: interrupted, and queued again")
            return None
        except BaseException as error:
            _note_error(trial, error)
            self._study.end_trial(trial.number, "FAIL")
            if not isinstance(error, failures):
                raise
        self._show(trial.number)
        return None

    def died(self, trial: Any, error: WorkerDiedError) -> bool:
        """Count that the process of a trial has died. Return whether another one is to train it; else it has failed."""
        again = self._study.count_death(trial, why=f"{type(error).__name__}: {error}")
        ending = "begun again" if again else "given up"
        self._progress.write(f"trial {trial.number}: its process died, and it is {ending} ({error})")
        return again

    def _show(self, number: int) -> None:
        with self._shown:
            trial = self._study.trials()[number]
            complete = trial.state.name == "COMPLETE"
            ended = ", ".join(f"{value:.4g}" for value in trial.values) if complete else _ENDED[trial.state.name]
            given = [f"{name} {value:.4g}" for name, value in trial.params.items() if isinstance(value, int | float)]
            why = trial.user_attrs.get("error")
            self._progress.write(f"trial {number}: {ended} ({', '.join(given)}){f': {why}' if why else ''}")
            self._progress(self._study.num_ended(), self._n_trials)


def _note_error(trial: Any, error: BaseException) -> None:
    trial.set_user_attr("error", f"{type(error).__name__}: {error}")


def _exceptions(catch: Any) -> tuple[type[Exception], ...]:
    """Return `catch` as Optuna takes it: a class of exceptions, or several. Raises `TypeError` for anything else."""
    kinds = (catch,) if isinstance(catch, type) else tuple(catch) if isinstance(catch, Iterable) else (catch,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise TypeError(f"catch is {catch!r}; expected a class of exceptions, such as RuntimeError, or a tuple of some")
    return kinds


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number above 0")
    return value
