"""Trials in the processes of Ray. The study stays with this process, which asks, tells and prunes as with threads.

A process of Ray trains one trial after another. What its trial reports, and whether it is to be pruned, travels to this
process and back, so that Optuna's storage is opened here alone: it may be a file that no other host has.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..models.model import Model
from ..system.cluster import Cluster, Outcome, WorkStoppedError
from ..system.threads import set_num_threads
from ..train.arguments import TrainingArguments
from .search import Objectives, Shares, TrialStoppedError
from .work import TrialWork


class _Call(NamedTuple):
    """A call of Optuna's trial that the process of a trial waits for."""

    method: str
    arguments: tuple[Any, ...]


class RayTrials:
    """Trains trials in processes of a cluster, each with as many threads as it would have beside the others here.

    Args:
        address: of the cluster, see `Cluster`.
    """

    def __init__(self, address: str | None) -> None:
        self._cluster, self._stack = Cluster(address), ExitStack()
        self._work: Any = None
        self._processes, self._all, self._free = 1, list[Any](), queue.SimpleQueue[Any]()
        self._warned: dict[Any, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            self._cluster.stop(process)
        self._all, self._free, self._work = [], queue.SimpleQueue(), None
        self._stack.close()

    def open(self) -> None:
        """Connect to the cluster. Raises as `Cluster` does."""
        self._stack.enter_context(self._cluster)

    def share(self, work: TrialWork) -> None:
        """Put what all trials need into the object store: rows, tokens and the teacher's answers, once a host."""
        self._work = self._cluster.share(work)

    def shares(self, n_jobs: int) -> Shares:
        """Return how many trials run at a time, and the threads of each; -1 is a trial for each core of the cluster."""
        self._processes = self._cluster.cores if n_jobs == -1 else n_jobs
        return Shares(self._processes, self._cluster.threads_each(self._processes))

    def __call__(
        self, trial: Any, args: TrainingArguments, model: Model, stop: threading.Event, reported: Collection[int]
    ) -> Objectives:
        """Train a trial in a process that has nothing else to do, and return its objective.

        Raises:
            WorkerDiedError: the process has died.
            TrialStoppedError: `stop` is set. The process is ended.
        """
        process, cluster = self._process(), self._cluster
        try:
            event = cluster.result(process.begin.remote(args, model, reported), stop.is_set)
            while isinstance(event, _Call):
                answer = getattr(trial, event.method)(*event.arguments)
                event = cluster.result(process.go_on.remote(answer), stop.is_set)
        except WorkStoppedError:
            cluster.stop(process)
            raise TrialStoppedError from None
        except BaseException:
            cluster.stop(process)
            raise
        self._free.put(process)
        objectives: Objectives = event.here(self._warned)
        return objectives

    def _process(self) -> Any:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            process = self._cluster.start(
                _Trainer,
                self._work,
                self._cluster.threads_each(self._processes),
                str(Path.cwd()),
                processes=self._processes,
            )
            self._all.append(process)
            return process


class _Trainer:
    """Trains trials in a process of Ray, in a thread that waits whenever this process asks Optuna's trial."""

    def __init__(self, work: TrialWork, threads: int, directory: str) -> None:
        set_num_threads(threads)
        if Path(directory).is_dir():
            os.chdir(directory)  # paths in the arguments may be relative
        self._work = work
        self._events, self._answers = queue.SimpleQueue[_Call | Outcome](), queue.SimpleQueue[Any]()

    def begin(self, args: TrainingArguments, model: Model, reported: Collection[int]) -> _Call | Outcome:
        """Begin a trial; return what comes first: a call of Optuna's trial, or the end."""
        threading.Thread(target=self._train, args=(args, model, reported), daemon=True).start()
        return self._events.get()

    def go_on(self, answer: Any) -> _Call | Outcome:
        """Give the trial what its call has returned; return what comes next."""
        self._answers.put(answer)
        return self._events.get()

    def _train(self, args: TrainingArguments, model: Model, reported: Collection[int]) -> None:
        trial = _Elsewhere(self._ask)
        end = Outcome.of(lambda: self._work(trial, args, model, threading.Event(), reported))
        gc.collect()  # as behind a trial in a thread
        self._events.put(end)

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._events.put(_Call(method, arguments))
        return self._answers.get()


class _Elsewhere:
    """What a callback uses of Optuna's trial, which is in another process."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask

    def report(self, value: float, step: int) -> None:
        """Report an objective."""
        self._ask("report", value, step)

    def should_prune(self) -> bool:
        """Return whether the trial is to end."""
        return bool(self._ask("should_prune"))
