"""Several processes on one study: killed, side by side, taking over; and the memory of one that does many trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import TESTS
from support.small_run import small_model
from support.small_search import distillation_trainer, outcome, reports, search

from kdistill.search.study import JOURNAL_FILE, MAX_ATTEMPTS, JournalLock, open_journal
from kdistill.system.files import is_locked
from kdistill.train.callbacks import TrainerCallback

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
optuna.logging.set_verbosity(optuna.logging.WARNING)
DEADLINE_SECONDS = 60
MEBIBYTE = 1 << 20


def start(code: str) -> subprocess.Popen[str]:
    """A process that runs a line of Python with this module's names."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    program = f"from test_processes import *; {code}"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """The processes that a test starts, so that none outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def study_in(directory: Path) -> Any:
    return optuna.load_study(study_name="search", storage=open_journal(directory / "out" / JOURNAL_FILE))


class KillAtStep(TrainerCallback):
    """Kill the process in the third step of the trial `number`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if args.run_name == f"run-{self.number}" and state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class WaitForAnother(TrainerCallback):
    """Begins no training before two processes have begun a trial."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            trials = study_in(Path(args.output_dir).parents[1]).get_trials(deepcopy=False)
            if len({trial.user_attrs["worker"]["lock"] for trial in trials if "worker" in trial.user_attrs}) == 2:
                return
            time.sleep(0.05)


class SayAndWait(TrainerCallback):
    """Says that a training has begun, and goes no further."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        print("begun", flush=True)
        time.sleep(DEADLINE_SECONDS)


def work(directory: str, n_trials: int, callback: TrainerCallback) -> None:
    best = search(distillation_trainer(Path(directory), callbacks=[callback]), n_trials=n_trials)
    print(json.dumps(best))


@pytest.mark.parametrize("half_a_line", [b"", b'{"op_code":8,"worker'])
def test_killed_search_goes_on(tmp_path: Path, processes: list[subprocess.Popen[str]], half_a_line: bytes) -> None:
    """The trial that ran begins again, and the study ends as one that was never killed."""
    processes.append(start(f"work({str(tmp_path)!r}, 4, KillAtStep(2))"))
    processes[0].wait(DEADLINE_SECONDS)
    assert processes[0].returncode == -signal.SIGKILL
    assert [trial.state.name for trial in study_in(tmp_path).trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    with (tmp_path / "out" / JOURNAL_FILE).open("ab") as file:
        file.write(half_a_line)
    trainer = distillation_trainer(tmp_path)
    search(trainer, n_trials=4)
    assert trainer.study.trials[2].user_attrs["attempt"] == 2
    expected = distillation_trainer(tmp_path / "expected")
    search(expected, n_trials=4)
    assert outcome(trainer.study) == outcome(expected.study)


def test_two_processes_share_a_study(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    processes += [start(f"work({str(tmp_path)!r}, 6, WaitForAnother())") for _ in range(2)]
    found = [json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0]) for process in processes]
    study = study_in(tmp_path)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    assert len(reports(study)) == 6  # nobody drew what the other drew
    assert len({trial.user_attrs["worker"]["lock"] for trial in study.trials}) == 2
    # Both wait for the last trial, and so find the same one.
    assert found[0] == found[1] == [str(study.best_trial.number), study.best_value, study.best_trial.params]
    assert not any((tmp_path / "out" / f"{JOURNAL_FILE}.workers").iterdir())


def test_one_process_takes_over_from_another(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """While the other lives, its trial is its own; no trial is left to begin, so this process waits."""
    processes.append(start(f"work({str(tmp_path)!r}, 1, SayAndWait())"))
    assert processes[0].stdout is not None
    assert processes[0].stdout.readline() == "begun\n"
    (lock,) = (tmp_path / "out" / f"{JOURNAL_FILE}.workers").iterdir()
    assert is_locked(lock)
    states = []

    def kill() -> None:
        states.extend(trial.state.name for trial in study_in(tmp_path).trials)
        processes[0].kill()

    timer = threading.Timer(1.0, kill)
    timer.start()
    trainer = distillation_trainer(tmp_path)
    search(trainer, n_trials=1)
    timer.join()
    assert states == ["RUNNING"]
    assert [trial.state.name for trial in trainer.study.trials] == ["COMPLETE"]


def test_trial_that_kills_its_process_is_given_up(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    for _ in range(MAX_ATTEMPTS):
        processes.append(start(f"work({str(tmp_path)!r}, 2, KillAtStep(0))"))
        assert processes[-1].wait(DEADLINE_SECONDS) == -signal.SIGKILL
    trainer = distillation_trainer(tmp_path)
    with pytest.warns(UserWarning, match=f"trial 0 has ended its process {MAX_ATTEMPTS} times; it is given up"):
        search(trainer, n_trials=2)
    assert [trial.state.name for trial in trainer.study.trials] == ["FAIL", "COMPLETE"]


def test_journal_written_by_many(tmp_path: Path) -> None:
    """Optuna's storages read what all wrote, also one that has been open all the while."""
    path = tmp_path / "study.journal"
    reader = open_journal(path)
    study = optuna.create_study(storage=reader, study_name="s")

    def add(first: int) -> None:
        own = optuna.load_study(study_name="s", storage=open_journal(path))
        for value in range(first, first + 10):
            own.add_trial(optuna.trial.create_trial(value=value))

    threads = [threading.Thread(target=add, args=(10 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trial.value for trial in study.trials) == list(range(40))


def test_lock_of_a_journal_cuts_off_half_a_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for content, kept in ((b"", b""), (b"one\ntwo\n", b"one\ntwo\n"), (b"one\ntw", b"one\n"), (b"on", b"")):
        path.write_bytes(content)
        lock = JournalLock(path)
        assert lock.acquire()
        assert is_locked(path)
        lock.release()
        assert not is_locked(path)
        assert path.read_bytes() == kept


def resident() -> int:
    """Bytes of this process that are in memory now (proc(5), VmRSS)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def many_trials(directory: str, trials: int) -> None:
    """Prints the memory in use after each trial. A model with its gradients and moments takes 10 MiB."""
    vocabulary, memory = 40_000, []

    class Measure(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:
            memory.append(resident())

    trainer = distillation_trainer(
        Path(directory),
        model_init=lambda: small_model(2, vocab_size=vocabulary),
        teacher_model=small_model(7, vocab_size=vocabulary),
        callbacks=[Measure()],
    )
    search(trainer, n_trials=trials, n_jobs=2, hp_space=lambda trial: {"num_train_epochs": 2})
    print(json.dumps(memory))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_trials(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """Keeping one model, or its gradients alone, of every trial would show as 150 MiB or more."""
    processes.append(start(f"many_trials({str(tmp_path)!r}, 100)"))
    memory = json.loads(processes[0].communicate(timeout=3 * DEADLINE_SECONDS)[0])
    assert len(memory) == 100
    early, late = np.median(memory[10:30]), np.median(memory[80:])
    assert late - early < 20 * MEBIBYTE, f"{early / MEBIBYTE:.0f} MiB at first, {late / MEBIBYTE:.0f} MiB in the end"
