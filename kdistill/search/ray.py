"""Trials in the processes of Ray, which Ray Tune starts, watches and repeats. The study stays with this process.

Tune asks the study for a trial (`_searcher`), and what its process reports, or asks about pruning, comes to the study
(`_scheduler`), so that Optuna draws, scores and prunes as with threads, and its storage is opened here alone: it may be
a file that no other host has.
"""

from __future__ import annotations

import gc
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..system.cluster import MAX_ATTEMPTS, Cluster, Outcome, WorkerDiedError, needing_ray, silenced
from ..system.memory import return_freed_memory
from ..system.threads import set_num_threads
from .search import Objectives, Search, TrialStoppedError
from .study import import_optuna
from .work import TrialWork

_START, _EVENT = "start", "event"
"""The only part of a configuration of Tune's, and of a result."""
# Tune would write a table of each trial's results, print its errors, and write again and again where the search stands.
_OF_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class _Call(NamedTuple):
    """A call of Optuna's trial that the process of a trial waits for."""

    method: str
    arguments: tuple[Any, ...]


class RayTrials:
    """Trains trials in processes of a cluster, each with as many threads as it would have beside the others here.

    Args:
        address: of the cluster, see `Cluster`.

    Raises:
        ImportError: Ray, or what Tune needs, is not installed.
    """

    def __init__(self, address: str | None) -> None:
        self._cluster, self._stack = Cluster(address), ExitStack()
        with needing_ray():
            from ray import tune
        self._tune, self._work = tune, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._work = None
        gc.collect()  # Tune's objects refer to each other, and name what lies in the object store
        self._stack.close()

    def open(self) -> None:
        """Connect to the cluster. Raises as `Cluster` does."""
        self._stack.enter_context(self._cluster)

    def share(self, work: TrialWork) -> None:
        """Put what all trials need into the object store: rows, tokens and the teacher's answers, once a host."""
        self._work = self._cluster.share(work)

    def jobs(self, search: Search, n_jobs: int) -> Sequence[Callable[[], None]]:
        """Return the one call that lets Tune train the trials; -1 is a trial at a time for each core of the cluster."""
        return [partial(self._fit, search, self._cluster.cores if n_jobs == -1 else n_jobs)]

    def _fit(self, search: Search, processes: int) -> None:
        tune = self._tune

        def train(config: dict[str, Any]) -> None:
            config[_START].train()

        trials = _Trials(search, self._cluster, self._work, self._cluster.threads_each(processes))
        try:
            with tempfile.TemporaryDirectory(prefix="kdistill-") as scratch, silenced("ray.tune", **_OF_TUNE):
                tune.Tuner(
                    tune.with_resources(train, {"cpu": self._cluster.cores_each(processes)}),
                    tune_config=tune.TuneConfig(
                        search_alg=_searcher(trials),
                        scheduler=_scheduler(trials),
                        num_samples=-1,  # until the study has enough
                        max_concurrent_trials=processes,
                        reuse_actors=True,
                    ),
                    run_config=tune.RunConfig(
                        name="search",
                        storage_path=scratch,
                        stop=_stopper(trials),
                        failure_config=tune.FailureConfig(max_failures=MAX_ATTEMPTS - 1),
                        verbose=0,
                    ),
                ).fit()
        finally:
            trials.close()


class _Carried:
    """A trial that Tune carries, as the study and as Tune know it."""

    def __init__(self, trial: Any, start: _Start, attempt: int) -> None:
        self.trial, self.start, self.attempt = trial, start, attempt
        self.of_tune: Any = None
        self.end: Callable[[], Objectives] = _stopped


def _stopped() -> Objectives:
    raise TrialStoppedError


def _pruned() -> Objectives:
    raise import_optuna().TrialPruned


def _failed(error: BaseException) -> Objectives:
    raise error


class _Trials:
    """The trials that Tune carries, by its names of them, and what their processes say.

    Tune would print an error that is raised here and go on. So none is; `close` raises the first one.
    """

    def __init__(self, search: Search, cluster: Cluster, work: Any, threads: int) -> None:
        self._search, self._cluster, self._work, self._threads = search, cluster, work, threads
        self._carried: dict[str, _Carried] = {}
        self._error: BaseException | None = None
        self._warned: dict[Any, Any] = {}

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._search.stop.set()

    def begin(self, name: str) -> int | None:
        """Begin a trial of the study, and return its number; None when there are enough."""
        try:
            begun = self._search.begin()
            if begun is None:
                return None
            try:
                given = self._cluster.share((begun.args, begun.model))
            except TypeError as error:
                self._search.end(begun.trial, partial(_failed, error))
                raise
        except BaseException as error:  # noqa: BLE001  # see above
            self._fail(error)
            return None
        start = _Start(self._threads, str(Path.cwd()), self._work, given, list(begun.reported))
        self._carried[name] = _Carried(begun.trial, start, begun.attempt)
        return int(begun.trial.number)

    def added(self, of_tune: Any) -> None:
        """Remember Tune's trial, and let it know what its process is to get, and how often it may repeat it."""
        carried = self._carried[of_tune.trial_id]
        carried.of_tune, of_tune.max_failures = of_tune, MAX_ATTEMPTS - carried.attempt
        of_tune.set_config({_START: _Kept(carried.start)})

    def hear(self, name: str, outcome: Outcome) -> bool:
        """Give the study what a process tells; return whether its trial ends with it."""
        carried, call = self._carried[name], outcome.value
        if not isinstance(call, _Call):
            carried.end = partial(outcome.here, self._warned)
            return True
        try:
            outcome.here(self._warned)
            if not getattr(carried.trial, call.method)(*call.arguments):
                return False
            carried.end = _pruned
        except BaseException as error:  # noqa: BLE001  # see above
            carried.end = partial(_failed, error)
        return True

    def died(self, name: str, error: BaseException | None) -> None:
        """Hear that the process of a trial has ended with an error; Tune repeats the trial if it may."""
        carried = self._carried[name]
        try:
            meant = self._cluster.meaning(error or RuntimeError("a process of Ray has ended its trial"))
            if not isinstance(meant, WorkerDiedError):
                self._fail(meant)
            elif getattr(error, "preempted", False) or self._search.died(carried.trial, meant):
                carried.start.reported = self._search.reported(carried.trial)
            else:
                self._forget(self._carried.pop(name))
        except BaseException as raised:  # noqa: BLE001  # see above
            self._fail(raised)

    def end(self, name: str) -> None:
        """End the trial as its process has."""
        carried = self._carried.pop(name, None)
        if carried is None:
            return  # it was given up
        self._forget(carried)
        try:
            self._search.end(carried.trial, carried.end)
        except BaseException as error:  # noqa: BLE001  # see above
            self._fail(error)

    @staticmethod
    def _forget(carried: _Carried) -> None:
        """Let the object store forget the model of a trial that Tune keeps in its list."""
        if carried.of_tune is not None:
            carried.of_tune.set_config({})

    def stopping(self) -> bool:
        """Return whether the search ends before its trials, and end their processes if so: Tune waits for reports."""
        if not self._search.stop.is_set():
            return False
        for carried in self._carried.values():
            process = carried.of_tune and carried.of_tune.temporary_state.ray_actor
            if process is not None:
                self._cluster.stop(process)
        return True

    def close(self) -> None:
        """Let the trials that have not ended wait in the study, and raise the error that has come up, if any."""
        for name in list(self._carried):
            self._carried[name].end = _stopped
            self.end(name)
        if self._error is not None:
            raise self._error


class _Inert:
    """What Tune may copy and write into its files, where what it stands for would be too much, or cannot be."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Inert, ()


class _Kept(_Inert):
    """A `_Start` where Tune keeps it. A process is sent a copy, which is the start; into Tune's files goes nothing.

    A reference that is written to a file would pin what it refers to in the object store for ever.
    """

    def __init__(self, start: _Start) -> None:
        self._start = start

    def __deepcopy__(self, memo: Any) -> _Start:
        return self._start


class _Start:
    """What a process needs to train a trial: where it lies in the object store, so that nothing large travels twice.

    The process sends it back with each report, with nothing in it.
    """

    def __init__(
        self, threads: int, directory: str, work: Any, given: Any, reported: list[int], *, here: bool = True
    ) -> None:
        self._threads, self._directory = threads, directory
        self._work, self._given, self._here = work, given, here
        self.reported = reported

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._here:
            return _Inert, ()
        parts = (self._threads, self._directory, self._work, self._given, self.reported)
        return partial(_Start, here=False), parts

    def train(self) -> None:
        """Train the trial in this process, and report each call of Optuna's trial, and the end."""
        import ray
        from ray import tune

        gc.collect()  # the trial before this one, which had another thread
        return_freed_memory()
        set_num_threads(self._threads)
        with suppress(OSError):  # on another host
            os.chdir(self._directory)  # paths in the arguments may be relative
        work, (args, model) = ray.get(self._work), ray.get(self._given)

        def trained(so_far: Callable[[Any], Outcome]) -> Objectives:
            trial = _Elsewhere(lambda call: tune.report({_EVENT: so_far(call)}))
            objectives: Objectives = work(trial, args, model, threading.Event(), self.reported)
            return objectives

        end = Outcome.of(trained)
        if isinstance(end.error, _PrunedThere):
            raise SystemExit(0)
        tune.report({_EVENT: end})


class _PrunedThere(BaseException):
    """The process that searches has ended the trial."""


class _Elsewhere:
    """What a callback uses of Optuna's trial, which is in another process."""

    def __init__(self, tell: Callable[[_Call], None]) -> None:
        self._tell = tell

    def report(self, value: float, step: int) -> None:
        """Report an objective."""
        self._ask("report", value, step)

    def should_prune(self) -> bool:
        """Return False. Where the trial is to end, this call does not return."""
        self._ask("should_prune")
        return False

    def _ask(self, method: str, *arguments: Any) -> None:
        try:
            self._tell(_Call(method, arguments))
        except SystemExit as error:  # with which Tune ends a trial
            raise _PrunedThere from error


def _searcher(trials: _Trials) -> Any:
    """Return what Tune asks for trials."""
    from ray.tune.search import Searcher

    class StudySearcher(_Inert, Searcher):  # type: ignore[misc]  # which mypy does not see
        def suggest(self, trial_id: str) -> Any:
            number = trials.begin(trial_id)
            return Searcher.FINISHED if number is None else {_START: number}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            trials.end(trial_id)

        def save(self, checkpoint_path: str) -> None:
            """Write nothing: the study is kept in Optuna's storage."""

    return StudySearcher()


def _scheduler(trials: _Trials) -> Any:
    """Return what Tune asks how a trial goes on."""
    from ray.tune.schedulers import FIFOScheduler

    class StudyScheduler(_Inert, FIFOScheduler):  # type: ignore[misc]  # which mypy does not see
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            trials.added(trial)

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            path = trial.pickled_error_file
            trials.died(trial.trial_id, pickle.loads(Path(path).read_bytes()) if path else None)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            decision: str = self.STOP if trials.hear(trial.trial_id, result[_EVENT]) else self.CONTINUE
            return decision

    return StudyScheduler()


def _stopper(trials: _Trials) -> Any:
    """Return what Tune asks whether to end before its trials."""
    from ray.tune import Stopper

    class StudyStopper(_Inert, Stopper):  # type: ignore[misc]  # which mypy does not see
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return trials.stopping()

    return StudyStopper()
