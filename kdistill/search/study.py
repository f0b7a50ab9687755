"""An Optuna study that any number of processes and threads work on, and that survives their deaths.

Optuna keeps the study in a journal, to which all processes append under an flock. It cannot know which trials belong to
a dead process. So each process locks a file, and its trials hold the file's path. The kernel frees the lock when the
process ends or is killed; the next process that asks for a trial finds those of the dead one and queues them again.
"""

from __future__ import annotations

import base64
import copy
import enum
import fcntl
import os
import re
import secrets
import socket
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..system.cluster import MAX_ATTEMPTS
from ..system.files import close_lockable, delete_empty, file_lock, is_locked, missing_directories, open_lockable
from ..system.names import did_you_mean
from ..system.notebook import html_table, shown
from ..train.arguments import TrainingArguments
from ..train.checkpoint import changed_arguments
from .journal import check_journal

JOURNAL_FILE = "study.journal"
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")
DIRECTIONS = ("minimize", "maximize")
# The study's attribute with the state of the sampler's random numbers, and the trial that was the last to draw.
_DRAWS = "kdistill:draws"
# The attributes of a study, of its trials and of a trial's worker that are written and read here.
_KINDS_OF_STUDY = {"about": dict, "args": dict, "workers": int}
_KINDS_OF_TRIAL = {
    "worker": dict,
    "attempt": int,
    "hyperparameters": dict,
    "error": str,
    "interrupted": bool,
}
HOST_VARIABLE = "KDISTILL_HOST"
"""The variable that names this machine where its host name is another at each start, as that of a container is."""
_KINDS_OF_WORKER = {"host": str, "lock": str}
# Optuna makes the tables of a new database in several steps, in which another process that makes them, too, fails.
_TRIES, _BETWEEN_TRIES = 5, 0.2  # the latter in seconds


class BestRun(NamedTuple):
    """The result of a search: the best trial's number, its objective and its hyperparameters.

    The objective is a list of numbers where a search has several directions.
    """

    run_id: str
    objective: float | list[float]
    hyperparameters: dict[str, Any]

    def _repr_html_(self) -> str:
        """Return the table that Jupyter shows."""
        objective = self.objective if isinstance(self.objective, list) else [self.objective]
        caption = f"best of the search: trial {self.run_id}, objective {', '.join(map(shown, objective))}"
        return html_table(caption, self.hyperparameters.items())


class JournalLock:
    """The lock for Optuna's `JournalFileBackend`, as an flock on the journal.

    Optuna's locks outlive a killed process by 30 seconds. This one also cuts off the incomplete last line of a killed
    process; otherwise the next line would be appended to it, and nothing after it could be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock, waiting for its holder."""
        descriptor = open_lockable(self._path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.ftruncate(descriptor, self._path.read_bytes().rfind(b"\n") + 1)
        except BaseException:
            close_lockable(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        close_lockable(self._descriptor)


def open_journal(path: str | os.PathLike[str]) -> Any:
    """Return Optuna's storage in the journal file `path`, which processes of one machine may share.

    Args:
        path: created, with its directory, if missing.

    Raises:
        ImportError: optuna is not installed.
        ValueError: the file is damaged or was edited; it names the line.
    """
    journal = import_optuna().storages.journal
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalLock(path)
    lock.acquire()  # it also cuts off an incomplete last line
    try:
        check_journal(path)
    finally:
        lock.release()
    return journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))


def _open_url(optuna: Any, url: str) -> Any:
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # Optuna opens databases with SQLAlchemy

    try:
        for _ in range(_TRIES - 1):
            with suppress(DBAPIError):
                return optuna.storages.get_storage(url)
            time.sleep(_BETWEEN_TRIES)
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError) as error:
        reason = _without_password(str(error).splitlines()[0])
        raise ValueError(
            f"storage is {_without_password(url)!r}, which cannot be opened ({reason}); expected the path of a "
            "journal, or the URL of a database, such as sqlite:///study.db"
        ) from None  # the cause may show the password


def _without_password(text: str) -> str:
    """Return a text with *** for the passwords of the URLs in it."""
    return re.sub(r"(://[^:/@\s]*):[^/\s]*@", r"\1:***@", text)


def import_optuna() -> Any:
    """Return the package optuna. Raises `ImportError`, which names the extra to install."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError('a hyperparameter search needs optuna: pip install "kdistill[search]"') from error
    return optuna


class SharedStudy:
    """A study in a storage that processes share, as one of these processes sees it.

    Args:
        name: of the study, created if missing.
        storage: None for `study.journal` in `args.output_dir`, the path of another journal, a URL for Optuna, or a
            storage object of Optuna's.
        directions: each one of `DIRECTIONS`, one for each number of a trial's objective.
        sampler: a sampler of Optuna's or one of `SAMPLERS` (None: "tpe").
        pruner: a pruner of Optuna's or one of `PRUNERS` (None: "median").
        seed: of the sampler, for the first draw of the study, see `drawing`.
        load_if_exists: whether to go on with a study of that name.
        about: what must stay the same in a study, such as the hash of its rows, by name.
        args: the arguments that all trials have in common.

    Raises:
        ImportError: optuna is not installed.
        ValueError: the study is about something else, has another direction, or a name or storage does not exist.
    """

    def __init__(
        self,
        name: str,
        storage: Any,
        *,
        directions: Sequence[Any],
        sampler: Any,
        pruner: Any,
        seed: int,
        load_if_exists: bool,
        about: dict[str, str],
        args: TrainingArguments,
    ) -> None:
        optuna = import_optuna()
        directions = [_choice("direction", direction, DIRECTIONS) for direction in directions]
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            sampler = _choice("sampler", SAMPLERS[0] if sampler is None else sampler, SAMPLERS)
        if not isinstance(pruner, optuna.pruners.BasePruner):
            default = PRUNERS[0] if len(directions) == 1 else "none"
            pruner = _choice("pruner", default if pruner is None else pruner, PRUNERS)
        if len(directions) > 1 and pruner != "none" and not isinstance(pruner, optuna.pruners.NopPruner):
            raise ValueError(
                f"pruner is {pruner!r} and direction {directions}; expected 'none': Optuna prunes trials of one "
                "direction alone"
            )
        journal, self._where = Path(args.output_dir, JOURNAL_FILE), ""
        self._made: list[Path] = []  # the journal and its directories, where this process makes them
        if storage is None or isinstance(storage, os.PathLike) or (isinstance(storage, str) and "://" not in storage):
            journal = journal if storage is None else Path(storage)
            if not journal.exists():
                self._made = [journal, *missing_directories(journal.parent)]
            storage, self._where = open_journal(journal), f" in {journal}"
        elif isinstance(storage, str):
            storage = _open_url(optuna, storage)
        self._directory = journal.with_name(f"{journal.name}.workers")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._worker: dict[str, str] = {}
        with self._claiming():
            try:
                self.study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    directions=directions,
                    pruner=_pruner(optuna, pruner),
                    load_if_exists=load_if_exists,
                )
            except optuna.exceptions.DuplicatedStudyError as error:
                raise ValueError(
                    f"load_if_exists is False and there is a study {name!r} already; choose another study_name"
                ) from error
            self._check_same(directions, about, args)
            workers = self.study.user_attrs.get("workers", 0)
            self.study.set_user_attr("workers", workers + 1)
        if self._drawn_without_a_trace():
            seed += workers  # as that version did, so that none of its draws is repeated
        self.study.sampler = _sampler(optuna, sampler, seed)

    def _drawn_without_a_trace(self) -> bool:
        """Return whether an earlier version, which did not keep the state of the draws, has drawn hyperparameters."""
        kept = self.study._storage.get_study_system_attrs(self.study._study_id).get(_DRAWS)
        return not kept and any("hyperparameters" in trial.user_attrs for trial in self.trials())

    def _check_same(self, directions: list[str], about: dict[str, str], args: TrainingArguments) -> None:
        study = self.study
        if "about" not in study.user_attrs:
            study.set_user_attr("args", args.to_dict())
            study.set_user_attr("about", about)
        found = study.user_attrs
        self._check_kinds(f"the study {study.study_name!r}", found, _KINDS_OF_STUDY)
        for trial in self.trials():
            self._check_kinds(f"trial {trial.number}", trial.user_attrs, _KINDS_OF_TRIAL)
            self._check_kinds(f"the worker of trial {trial.number}", _worker_of(trial), _KINDS_OF_WORKER)
        for what, value in about.items():
            if found["about"].get(what) != value:
                raise ValueError(f"the study {study.study_name!r} is about other {what}; choose another study_name")
        theirs = [direction.name.lower() for direction in study.directions]
        if theirs != directions:
            raise ValueError(
                f"the study {study.study_name!r} is to {' and '.join(theirs)} and direction is "
                f"{' and '.join(map(repr, directions))}; choose another study_name"
            )
        differences = changed_arguments(found.get("args", {}), args)
        changed = [f"{key} was {old!r} and is now {new!r}" for key, (old, new) in differences.items()]
        if changed:
            warnings.warn(
                f"the study {study.study_name!r} continues with changed arguments: {'; '.join(changed)}",
                stacklevel=4,
            )

    def _check_kinds(self, whose: str, attributes: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
        """Raise `ValueError` for an attribute that was edited to another kind than this program writes."""
        for name, kind in kinds.items():
            if name in attributes and not isinstance(attributes[name], kind):
                raise ValueError(
                    f"{whose}{self._where} has {name} {attributes[name]!r}; expected a {kind.__name__}: the study was "
                    "edited; choose another study_name"
                )

    def discard_if_unused(self) -> None:
        """Delete the journal if this process made it and no trial has begun: a start that fails leaves nothing."""
        if self._made and not self.trials() and self.study.user_attrs["workers"] == 1:
            journal, *directories = self._made
            journal.unlink(missing_ok=True)
            delete_empty([self._directory, *directories])

    @contextmanager
    def as_worker(self) -> Iterator[None]:
        """Count this process as alive, for all processes of the study, inside the block."""
        path = self._directory / f"{os.getpid()}-{secrets.token_hex(4)}.lock"
        with file_lock(path, wait=False):
            self._worker = {"host": os.environ.get(HOST_VARIABLE) or socket.gethostname(), "lock": str(path.resolve())}
            yield

    @contextmanager
    def exclusively(self, purpose: str) -> Iterator[None]:
        """Keep other processes from entering a block of the same purpose."""
        with file_lock(self._directory / f"{purpose}.lock", wait=True):
            yield

    def _claiming(self) -> AbstractContextManager[None]:
        return self.exclusively("claim")

    def claim(self, n_trials: int) -> Any:
        """Begin a waiting or a new trial and return it, or None when `n_trials` of the study have begun."""
        with self._claiming():
            self._queue_trials_of_the_dead()
            if self.num_begun() >= n_trials:
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", self._worker)
            return trial

    @contextmanager
    def drawing(self, trial: Any) -> Iterator[None]:
        """Let the sampler draw a trial's hyperparameters inside the block, from where the study's draws have got to.

        The study keeps the state of the sampler's random numbers, and the trial that was the last to draw. So its
        processes draw from one sequence, and a study that was interrupted goes on with the draws of one that was not:
        a trial whose process was killed among its draws begins them again.
        """
        storage, study_id = self.study._storage, self.study._study_id
        with self._claiming():
            generators = _generators(self.study.sampler)
            kept = storage.get_study_system_attrs(study_id).get(_DRAWS) or {}
            states = kept.get("states", [])
            if len(states) == len(generators):
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(("MT19937", np.frombuffer(base64.b64decode(state[0]), "<u4"), *state[1:]))
            if "hyperparameters" not in trial.user_attrs and kept.get("trial") != trial.number:
                _forget_draws(trial)
            try:
                yield
            finally:  # what was drawn before an error must not be drawn again by the next trial
                drawn = [generator.get_state() for generator in generators]
                now = [[base64.b64encode(keys.astype("<u4")).decode(), *rest] for _, keys, *rest in drawn]
                if now != states:
                    storage.set_study_system_attr(study_id, _DRAWS, {"trial": trial.number, "states": now})

    def trials(self) -> list[Any]:
        """Return the present state of all trials, by number."""
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def num_begun(self) -> int:
        """Return the number of trials that have begun. One that was queued again counts when it begins again."""
        return sum(1 for trial in self.trials() if trial.state.name != "WAITING" and not _has_successor(trial))

    def others_are_running(self) -> bool:
        """Return whether another process on this machine works on a trial."""
        running = [trial for trial in self.trials() if trial.state.name == "RUNNING"]
        return any(worker != self._worker and self._is_on_this_host(worker) for worker in map(_worker_of, running))

    def _is_on_this_host(self, worker: dict[str, str]) -> bool:
        return worker.get("host") == self._worker["host"]

    def num_ended(self) -> int:
        """Return the number of trials that have begun and no longer run."""
        return self.num_begun() - sum(1 for trial in self.trials() if trial.state.name == "RUNNING")

    def num_scored(self) -> int:
        """Return the number of trials that were scored on the evaluation rows: the complete and the pruned ones."""
        return sum(1 for trial in self.trials() if trial.state.name in ("COMPLETE", "PRUNED"))

    def end_trial(self, number: int, state: str, objective: Sequence[float] | None = None) -> None:
        """End a running trial in one of Optuna's states; COMPLETE needs the numbers of its objective."""
        self.study.tell(number, objective, state=import_optuna().trial.TrialState[state])

    def queue_again(self, trial: Any) -> None:
        """Let a running trial wait, with its number and hyperparameters, for the next process that asks for a trial."""
        self.study._storage.set_trial_state_values(trial._trial_id, import_optuna().trial.TrialState.WAITING)

    def queue_trials_of_the_dead(self) -> None:
        """Queue again the trials of processes that died without ending them."""
        with self._claiming():
            self._queue_trials_of_the_dead()

    def _queue_trials_of_the_dead(self) -> None:
        for trial in self.trials():
            worker = _worker_of(trial)
            # A trial begins and gets its worker under the lock held here: one without a worker is of a dead process.
            alive = worker and (not self._is_on_this_host(worker) or is_locked(Path(worker.get("lock", ""))))
            if trial.state.name == "RUNNING" and not alive and self.count_death(trial):
                self.queue_again(trial)

    def attempt(self, trial: Any) -> int:
        """Return how many processes have begun a trial."""
        number: int = self.trials()[trial.number].user_attrs.get("attempt", 1)
        return number

    def count_death(self, trial: Any, *, why: str | None = None) -> bool:
        """Count that the process of a running trial has died. Return whether another one may train it.

        One that has died with too many fails, with a warning.

        Args:
            trial: Optuna's trial.
            why: what is known of the death; the error of a trial that fails.
        """
        storage, attempt = self.study._storage, self.attempt(trial)
        if attempt < MAX_ATTEMPTS:
            storage.set_trial_user_attr(trial._trial_id, "attempt", attempt + 1)
            return True
        if why is not None:
            storage.set_trial_user_attr(trial._trial_id, "error", why)
        self.end_trial(trial.number, "FAIL")
        warnings.warn(f"trial {trial.number} has ended its process {attempt} times; it is given up", stacklevel=2)
        return False

    def best_run(self) -> BestRun | list[BestRun]:
        """Return the best of the complete trials; with several directions all those that no other beats in all of them.

        Raises:
            RuntimeError: there is none.
        """
        trials = self.trials()
        if not any(trial.state.name == "COMPLETE" for trial in trials):
            errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
            why = "all were pruned or interrupted" if trials else "none was begun before the timeout"
            why = f"the last error was: {errors[-1]}" if errors else why
            raise RuntimeError(f"none of {len(trials)} trials of the study {self.study.study_name!r} finished; {why}")
        return best_run_of(self.study)


def best_run_of(study: Any) -> BestRun | list[BestRun]:
    """Return the best of a study's complete trials, as `SharedStudy.best_run`; there is one at least."""
    if len(study.directions) > 1:
        return [_best_run(trial, list(trial.values)) for trial in study.best_trials]
    best = study.best_trial
    return _best_run(best, float(best.value))


def _best_run(trial: Any, objective: float | list[float]) -> BestRun:
    return BestRun(str(trial.number), objective, trial.user_attrs.get("hyperparameters", trial.params))


def outcomes(trials: Iterable[Any]) -> dict[str, int]:
    """Return how many trials ended in each of Optuna's states."""
    return dict(Counter("interrupted" if _has_successor(trial) else trial.state.name.lower() for trial in trials))


def _has_successor(trial: Any) -> bool:
    """Return whether an earlier version, which gave the trial up when it was interrupted, has queued it as another."""
    return bool(trial.user_attrs.get("interrupted"))


def _worker_of(trial: Any) -> dict[str, str]:
    worker: dict[str, str] = trial.user_attrs.get("worker", {})
    return worker


def _choice(name: str, chosen: Any, choices: tuple[str, ...]) -> str:
    """Return one of the choices. Raises `ValueError` for another one.

    An enum stands for its value; one of numbers, as Optuna's StudyDirection, for its name.
    """
    if isinstance(chosen, enum.Enum):
        chosen = chosen.value if isinstance(chosen.value, str) else chosen.name.lower()
    if chosen not in choices:
        hint = did_you_mean(str(chosen), choices)
        raise ValueError(f"{name} is {chosen!r}; expected one of {', '.join(map(repr, choices))}{hint}")
    return str(chosen)


def _sampler(optuna: Any, sampler: Any, seed: int) -> Any:
    if not isinstance(sampler, str):
        return sampler
    return {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler](seed=seed)


def _forget_draws(trial: Any) -> None:
    """Let Optuna draw the hyperparameters of a trial anew; those that it has stored are replaced then."""
    trial._cached_frozen_trial = copy.copy(trial._cached_frozen_trial)  # the storage may hold the same object
    trial._cached_frozen_trial.params, trial._cached_frozen_trial.distributions = {}, {}


def _generators(sampler: Any) -> list[Any]:
    """Return the generators of a sampler's random numbers, NumPy's `RandomState`s."""
    optuna, found = import_optuna(), []
    for value in vars(sampler).values():
        if isinstance(value, optuna.samplers._lazy_random_state.LazyRandomState):
            found.append(value.rng)
        elif isinstance(value, optuna.samplers.BaseSampler):
            found += _generators(value)
    return found


def _pruner(optuna: Any, pruner: Any) -> Any:
    if not isinstance(pruner, str):
        return pruner
    pruners = optuna.pruners
    return {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, "none": pruners.NopPruner}[pruner]()
