"""An Optuna study that any number of processes and threads work on, and that survives them.

Optuna keeps the study in a journal, to which all append under an flock. What it does not know is which trials nobody
works on any more: so each process holds a lock file of its own, which its trials name. The kernel frees the lock when
the process ends, however it ends; whoever next looks for a trial finds the dead one's and queues it again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..system.files import file_lock, is_locked
from ..system.html_tables import html_table, shown
from ..train.arguments import TrainingArguments
from ..train.checkpoint import changed_arguments
from ..train.fields import did_you_mean

JOURNAL_FILE = "study.journal"
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")
DIRECTIONS = ("minimize", "maximize")
# A trial whose process dies each time must not be begun for ever: it may be what kills it.
MAX_ATTEMPTS = 3


class BestRun(NamedTuple):
    """What a search found: number of the best trial, its objective, and the arguments that it was trained with."""

    run_id: str
    objective: float
    hyperparameters: dict[str, Any]

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        caption = f"best of the search: trial {self.run_id}, objective {shown(self.objective)}"
        return html_table(caption, self.hyperparameters.items())


class JournalLock:
    """The lock of Optuna's `JournalFileBackend`, as an flock on the journal.

    Optuna's own locks outlive a killed process, for 30 seconds. What such a process left of a line is cut off here,
    where nobody else is writing; otherwise the next line would continue it and nothing behind it could be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait until nobody else holds the lock."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.ftruncate(descriptor, self._path.read_bytes().rfind(b"\n") + 1)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one have it."""
        os.close(self._descriptor)


def open_journal(path: str | os.PathLike[str]) -> Any:
    """Optuna's storage in the journal file `path`, made if missing; processes on one machine may share it."""
    journal = import_optuna().storages.journal
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=JournalLock(path)))


def _open_url(optuna: Any, url: str) -> Any:
    from sqlalchemy.exc import SQLAlchemyError  # which Optuna opens databases with

    try:
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(
            f"storage is {url!r}, which cannot be opened ({str(error).splitlines()[0]}); expected the path of a "
            "journal, or the URL of a database, such as sqlite:///study.db"
        ) from error


def import_optuna() -> Any:
    """The package optuna. Raises `ImportError`, which names the extra."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError('a hyperparameter search needs optuna: pip install "kdistill[search]"') from error
    return optuna


class SharedStudy:
    """The study `name` in `storage`, made if missing, and this process's part in it.

    storage: None for `study.journal` in `args.output_dir`, the path of another journal, a URL that Optuna knows, or a
    storage of Optuna's. `sampler` and `pruner` are Optuna's, or names of `SAMPLERS` and `PRUNERS`; None is the first of
    these, as in Optuna. `seed` is the sampler's: the k-th process that works on a study, counted from 0, draws with
    `seed + k`, so that none repeats another's draws. `about` says what must not change in a study, `args` what all its
    trials have in common.

    Raises `ValueError` for a study that is about something else, and for names that do not exist.
    """

    def __init__(
        self,
        name: str,
        storage: Any,
        *,
        direction: str,
        sampler: Any,
        pruner: Any,
        seed: int,
        about: dict[str, str],
        args: TrainingArguments,
    ) -> None:
        optuna = import_optuna()
        sampler, pruner = SAMPLERS[0] if sampler is None else sampler, PRUNERS[0] if pruner is None else pruner
        _check_choice("direction", direction, DIRECTIONS)
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            _check_choice("sampler", sampler, SAMPLERS)
        if not isinstance(pruner, optuna.pruners.BasePruner):
            _check_choice("pruner", pruner, PRUNERS)
        journal = Path(args.output_dir, JOURNAL_FILE)
        if storage is None or isinstance(storage, os.PathLike) or (isinstance(storage, str) and "://" not in storage):
            journal = journal if storage is None else Path(storage)
            storage = open_journal(journal)
        elif isinstance(storage, str):
            storage = _open_url(optuna, storage)
        self._directory = journal.with_name(f"{journal.name}.workers")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._worker: dict[str, str] = {}
        with self._claiming():
            self.study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=direction,
                pruner=_pruner(optuna, pruner),
                load_if_exists=True,
            )
            self._check_same(direction, about, args)
            workers = self.study.user_attrs.get("workers", 0)
            self.study.set_user_attr("workers", workers + 1)
        self.study.sampler = _sampler(optuna, sampler, seed + workers)

    def _check_same(self, direction: str, about: dict[str, str], args: TrainingArguments) -> None:
        study = self.study
        if "about" not in study.user_attrs:
            study.set_user_attr("args", args.to_dict())
            study.set_user_attr("about", about)
        found = study.user_attrs
        for what, value in about.items():
            if found["about"][what] != value:
                raise ValueError(f"the study {study.study_name!r} is about other {what}; choose another study_name")
        if study.direction.name.lower() != direction:
            raise ValueError(
                f"the study {study.study_name!r} is to {study.direction.name.lower()} and direction is {direction!r}; "
                "choose another study_name"
            )
        differences = changed_arguments(found["args"], args)
        changed = [f"{key} was {old!r} and is now {new!r}" for key, (old, new) in differences.items()]
        if changed:
            warnings.warn(
                f"the study {study.study_name!r} goes on with other arguments than it began with: {'; '.join(changed)}",
                stacklevel=4,
            )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be alive, for all who work on the study, inside the block."""
        path = self._directory / f"{os.getpid()}-{secrets.token_hex(4)}.lock"
        with file_lock(path, wait=False):
            self._worker = {"host": socket.gethostname(), "lock": str(path.resolve())}
            yield

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Do in the block what no two processes should do at once."""
        with file_lock(self._directory / f"{what}.lock", wait=True):
            yield

    def _claiming(self) -> AbstractContextManager[None]:
        return self.alone("claim")

    def claim(self, n_trials: int) -> Any:
        """Begin a trial: one that waits, or a new one; None when all `n_trials` of the study are begun."""
        with self._claiming():
            self._queue_trials_of_the_dead()
            if self.trials_begun() >= n_trials:
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", self._worker)
            return trial

    def trials(self) -> list[Any]:
        """All trials, by number, as they are now."""
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def trials_begun(self) -> int:
        """Trials that have been begun; one that was queued again counts when it is begun again."""
        trials = self.trials()
        again = _queued_again(trials)
        return sum(1 for trial in trials if trial.state.name != "WAITING" and trial.number not in again)

    def others_run(self) -> bool:
        """Whether another process on this machine works on a trial."""
        running = [trial for trial in self.trials() if trial.state.name == "RUNNING"]
        return any(worker != self._worker and self._may_be_seen(worker) for worker in map(_worker_of, running))

    def _may_be_seen(self, worker: dict[str, str]) -> bool:
        return worker.get("host") == self._worker["host"]

    def finished(self) -> int:
        """Trials that are begun and run no more."""
        return self.trials_begun() - sum(1 for trial in self.trials() if trial.state.name == "RUNNING")

    def scored(self) -> int:
        """Trials that the evaluation rows have judged: those that are complete and those that were pruned."""
        return sum(1 for trial in self.trials() if trial.state.name in ("COMPLETE", "PRUNED"))

    def end(self, number: int, state: str, objective: float | None = None) -> None:
        """End a running trial in one of Optuna's states, COMPLETE with its objective."""
        self.study.tell(number, objective, state=import_optuna().trial.TrialState[state])

    def queue_again(self, trial: Any, *, attempt: int | None = None) -> None:
        """End a running trial, and let its hyperparameters wait for whoever comes next.

        `attempt` counts the processes that began it (default: as before). In this order a kill in between leaves a
        trial that is known to wait and only has to be ended.
        """
        if trial.number not in _queued_again(self.trials()):
            attempt = trial.user_attrs.get("attempt", 1) if attempt is None else attempt
            self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, "attempt": attempt})
        self.end(trial.number, "FAIL")

    def queue_trials_of_the_dead(self) -> None:
        """Let the trials wait again whose process ended without ending them."""
        with self._claiming():
            self._queue_trials_of_the_dead()

    def _queue_trials_of_the_dead(self) -> None:
        for trial in self.trials():
            worker = _worker_of(trial)
            # A trial is begun and given its worker under the lock that we hold: one without is a dead one's.
            alive = worker and (not self._may_be_seen(worker) or is_locked(Path(worker["lock"])))
            if trial.state.name != "RUNNING" or alive:
                continue
            attempt = trial.user_attrs.get("attempt", 1)
            if attempt < MAX_ATTEMPTS:
                self.queue_again(trial, attempt=attempt + 1)
            else:
                self.end(trial.number, "FAIL")
                warnings.warn(
                    f"trial {trial.number} has ended its process {attempt} times; it is given up", stacklevel=2
                )

    def best_run(self) -> BestRun:
        """The best of the trials that finished. Raises `RuntimeError` when none did."""
        trials = self.trials()
        if not any(trial.state.name == "COMPLETE" for trial in trials):
            errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
            why = "all were pruned or interrupted" if trials else "none was begun before the timeout"
            why = f"the last error was: {errors[-1]}" if errors else why
            raise RuntimeError(f"none of {len(trials)} trials of the study {self.study.study_name!r} finished; {why}")
        best = self.study.best_trial
        return BestRun(str(best.number), float(best.value), best.user_attrs.get("hyperparameters", best.params))


def _queued_again(trials: list[Any]) -> set[int]:
    """Numbers of the trials that others were made from."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}


def _worker_of(trial: Any) -> dict[str, str]:
    worker: dict[str, str] = trial.user_attrs.get("worker", {})
    return worker


def _check_choice(what: str, chosen: object, choices: tuple[str, ...]) -> None:
    if chosen not in choices:
        hint = did_you_mean(str(chosen), choices)
        raise ValueError(f"{what} is {chosen!r}; expected one of {', '.join(map(repr, choices))}{hint}")


def _sampler(optuna: Any, sampler: Any, seed: int) -> Any:
    if not isinstance(sampler, str):
        return sampler
    return {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler](seed=seed)


def _pruner(optuna: Any, pruner: Any) -> Any:
    if not isinstance(pruner, str):
        return pruner
    pruners = optuna.pruners
    return {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, "none": pruners.NopPruner}[pruner]()
