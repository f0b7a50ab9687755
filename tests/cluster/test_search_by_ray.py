"""A search whose trials are trained by processes of Ray finds what one in threads finds, whoever dies meanwhile."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import TESTS
from support.small_run import small_dataset, small_model, write_model, write_rows
from support.small_search import distillation_trainer, eval_loss, outcome, search

from kdistill.search.study import JOURNAL_FILE, MAX_ATTEMPTS, open_journal
from kdistill.system.cluster import Cluster, Outcome
from kdistill.train.callbacks import TrainerCallback

optuna = pytest.importorskip("optuna")
ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore:the teacher.s accuracy"),  # of random weights
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's
]
optuna.logging.set_verbosity(optuna.logging.WARNING)
SECONDS = 60
STEPS_OF_AN_EPOCH = 5


def eight_trials(trainer: Any, **given: Any) -> Any:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    objective = {"compute_objective": eval_loss, "direction": "minimize"}
    return search(trainer, n_trials=8, sampler="tpe", pruner=pruner, **objective, **given)


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What the same search finds in a thread: eight trials, some of them pruned."""
    trainer = distillation_trainer(tmp_path_factory.mktemp("threads"))
    eight_trials(trainer)
    assert {trial.state.name for trial in trainer.study.trials} == {"COMPLETE", "PRUNED"}
    return outcome(trainer.study)


class KillAtStep(TrainerCallback):
    """Kills the process in the third step of a trial, so many times."""

    def __init__(self, number: int, directory: Path, times: int = 1) -> None:
        self.number, self.marks, self.times = number, directory / "killed", times

    def on_step_end(self, args, state, control, **kwargs) -> None:
        done = len(self.marks.read_text()) if self.marks.exists() else 0
        if args.run_name == f"run-{self.number}" and state.global_step == 7 and done < self.times:
            self.marks.write_text("x" * (done + 1))
            os.kill(os.getpid(), signal.SIGKILL)


class Steps(TrainerCallback):
    """Writes down each step, in a file for each trial."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        with (self.directory / args.run_name).open("a") as file:
            file.write("x")


def test_the_trials_are_those_of_threads(
    cluster: str, tmp_path: Path, by_threads: list[tuple[Any, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    """None goes on behind the evaluation at which it is pruned, and Tune says nothing."""
    (tmp_path / "steps").mkdir()
    trainer = distillation_trainer(tmp_path, callbacks=[Steps(tmp_path / "steps")])
    best = eight_trials(trainer, backend="ray")
    assert outcome(trainer.study) == by_threads
    steps = [len((tmp_path / "steps" / f"run-{trial.number}").read_text()) for trial in trainer.study.trials]
    assert steps == [STEPS_OF_AN_EPOCH * max(trial.intermediate_values) for trial in trainer.study.trials]
    assert capfd.readouterr().out == ""
    assert [best.objective, best.hyperparameters] == [trainer.study.best_value, trainer.study.best_params]
    assert ray.is_initialized()  # who connected disconnects


def test_the_trial_of_a_killed_process_is_repeated(
    cluster: str, tmp_path: Path, by_threads: list[tuple[Any, ...]]
) -> None:
    """It was killed behind its first evaluation, which is not reported twice."""
    trainer = distillation_trainer(tmp_path, callbacks=[KillAtStep(2, tmp_path)])
    eight_trials(trainer, backend="ray")
    assert (tmp_path / "killed").read_text() == "x"
    assert trainer.study.trials[2].user_attrs["attempt"] == 2
    assert not any("error" in trial.user_attrs for trial in trainer.study.trials)
    assert outcome(trainer.study) == by_threads


def used() -> float:
    """Bytes in the object store."""
    name = "object_store_memory"
    return float(ray.cluster_resources()[name] - ray.available_resources().get(name, 0))


def test_a_search_leaves_nothing_in_the_object_store(cluster: str, tmp_path: Path) -> None:
    """Tune keeps the configurations of its trials, writes them to files, and lets processes send them back.

    The function that Tune registers for a search, and its copy of some 7,000 bytes, come and go late. What the search
    shares is larger: the rows and the teacher's answers 60,000 bytes, each model 1.7 million.
    """
    gc.collect()
    before = used()
    trainer = distillation_trainer(tmp_path)
    trainer.model_init = lambda: small_model(1, hidden_size=128, intermediate_size=512)
    gc.disable()  # it may come late
    try:
        search(trainer, n_trials=3, backend="ray")
    finally:
        gc.enable()
    until = time.monotonic() + SECONDS
    while used() > before + 20_000:
        assert time.monotonic() < until, (before, used())
        time.sleep(0.1)


def test_a_trial_that_always_kills_its_process_is_given_up(cluster: str, tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path, callbacks=[KillAtStep(0, tmp_path, times=MAX_ATTEMPTS)])
    with pytest.warns(UserWarning, match=f"trial 0 has ended its process {MAX_ATTEMPTS} times; it is given up"):
        search(trainer, n_trials=2, backend="ray")
    assert [trial.state.name for trial in trainer.study.trials] == ["FAIL", "COMPLETE"]
    assert "WorkerDiedError" in trainer.study.trials[0].user_attrs["error"]


class Together(TrainerCallback):
    """Trains on only once two processes do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        from kdistill.system.threads import get_num_threads

        (self.directory / f"{os.getpid()}-{get_num_threads()}").touch()
        until = time.monotonic() + SECONDS
        while len(list(self.directory.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)


def test_two_trials_run_at_once_in_two_processes(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    trainer = distillation_trainer(tmp_path, callbacks=[Together(tmp_path / "seen")])
    search(trainer, n_trials=4, n_jobs=-1, backend="ray")
    seen = [path.name.split("-") for path in (tmp_path / "seen").iterdir()]
    assert len(seen) == 2
    assert {threads for _, threads in seen} == {"1"}
    assert str(os.getpid()) not in {process for process, _ in seen}
    alone = distillation_trainer(tmp_path / "alone")
    search(alone, n_trials=4)
    assert outcome(trainer.study) == outcome(alone.study)  # random draws do not depend on results


def test_errors_and_warnings_of_a_trial_arrive(cluster: str, tmp_path: Path) -> None:
    class Fails(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs) -> None:
            warnings.warn("said where the trial is trained", UserWarning, stacklevel=1)
            raise (ValueError if args.run_name == "run-0" else RuntimeError)("enough")

    trainer = distillation_trainer(tmp_path, callbacks=[Fails()])
    with pytest.warns(UserWarning, match="said where"), pytest.raises(RuntimeError, match="enough"):
        search(trainer, n_trials=3, backend="ray")
    assert [trial.state.name for trial in trainer.study.trials] == ["FAIL", "FAIL"]  # the second ends the search
    assert [trial.user_attrs["error"] for trial in trainer.study.trials] == [
        "ValueError: enough",
        "RuntimeError: enough",
    ]


class OfTwoError(ValueError):
    """pickle gives it its text alone."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} is {number}")


class Holding(UserWarning):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def test_errors_and_warnings_arrive_that_pickle_does_not_bring() -> None:
    def fails(_: Any) -> None:
        warnings.warn(Holding("said"), stacklevel=1)
        raise OfTwoError("depth", 3)

    arrived = ray.cloudpickle.loads(ray.cloudpickle.dumps(Outcome.of(fails)))
    with (
        pytest.warns(UserWarning, match="^Holding: said$"),
        pytest.raises(ValueError, match=r"^OfTwoError: depth is 3$"),
    ):
        arrived.here({})
    error = UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")  # which pickle does bring
    assert str(Outcome.of(lambda _: (_ for _ in ()).throw(error)).error) == str(error)


def test_what_cannot_be_sent_is_named(cluster: str, tmp_path: Path) -> None:
    class Holds(TrainerCallback):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    with pytest.raises(
        TypeError, match=r"cannot be sent what they need: cannot pickle '_thread.lock' object; expected call"
    ):
        search(distillation_trainer(tmp_path, callbacks=[Holds()]), backend="ray")


class Looks:
    """Says of the rows that its process was given whether they lie in memory that all share."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def look(self) -> tuple[bool, int]:
        return self.rows.ids.flags.writeable, int(self.rows.ids.sum())


def test_rows_are_read_where_they_lie_in_the_object_store(cluster: str) -> None:
    rows = small_dataset(3000)
    with Cluster() as found:
        process = ray.remote(Looks).remote(found.share(rows))
        assert ray.get(process.look.remote()) == (False, int(np.sum(rows.ids)))
        found.stop(process)


def test_an_address_beside_a_connection_is_an_error(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="connected to a cluster of Ray already"):
        search(distillation_trainer(tmp_path), backend="ray", ray_address=cluster)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens_is_named_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Cluster(address)
    monkeypatch.setattr(found, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(ConnectionError, match=f"ray_address is '{address}', and no cluster of Ray could be used there"):
        found.__enter__()


# Drivers in processes of their own


def driver(*words: str, address: str | None) -> subprocess.Popen[str]:
    """A process group of its own that runs Python with some arguments, by default in the cluster of that address."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    if address is not None:
        environment["RAY_ADDRESS"] = address
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed_driver(directory: str) -> None:
    """A search whose process is killed as soon as its third trial is reported."""

    def kill() -> None:
        trials = optuna.load_study(
            study_name="search", storage=open_journal(Path(directory, "out", JOURNAL_FILE))
        ).get_trials(deepcopy=False)
        if len(trials) == 3 and trials[2].intermediate_values:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch() -> None:
        while True:
            time.sleep(0.002)
            if Path(directory, "out", JOURNAL_FILE).exists():
                with suppress(KeyError):  # there is no study in it yet
                    kill()

    threading.Thread(target=watch, daemon=True).start()
    eight_trials(distillation_trainer(Path(directory)), backend="ray")


def test_a_search_whose_driver_was_killed_goes_on(
    cluster: str, tmp_path: Path, by_threads: list[tuple[Any, ...]]
) -> None:
    process = driver("-c", f"from test_search_by_ray import *; killed_driver({str(tmp_path)!r})", address=cluster)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGKILL, errors
    trainer = distillation_trainer(tmp_path)
    eight_trials(trainer, backend="ray")
    assert outcome(trainer.study) == by_threads


def test_a_command_that_is_interrupted_ends_soon_and_goes_on(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a terminal reaches all processes of the command. Later it goes on in a cluster of its own."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("teacher", "student")):
        write_model(Path(name), seed)
    write_rows(Path("train.tsv"), 400)
    write_rows(Path("dev.tsv"), 21, seed=1)
    Path("space.toml").write_text('learning_rate = {type = "float", low = 1e-3, high = 3e-2, log = true}\n')
    words = ["-m", "kdistill", "search", "--teacher", "teacher", "--student", "student", "--train", "train.tsv"]
    words += ["--eval", "dev.tsv", "--hp-space", "space.toml", "--per-device-train-batch-size", "8", "--json"]
    words += ["--num-train-epochs", "4", "--n-trials", "4", "--threads", "1"]
    first = [*words, "--output-dir", "out", "--backend", "ray"]
    process = driver(*first, "--ray-address", cluster, address=None)
    until = time.monotonic() + SECONDS
    while not Path("out/runs/run-1").exists():
        assert time.monotonic() < until, process.communicate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    stopped = time.monotonic()
    output, errors = process.communicate(timeout=SECONDS)
    assert time.monotonic() - stopped < 10
    assert process.returncode == 130, errors
    assert json.loads(output.splitlines()[-1])["trials"]["complete"] >= 1 if output else "again" in errors
    study = optuna.load_study(study_name="search", storage=open_journal("out/study.journal"))
    assert "RUNNING" not in {trial.state.name for trial in study.trials}
    assert len(study.trials) < 4 or "WAITING" in {trial.state.name for trial in study.trials}
    again = driver(*first, address=None)
    output, errors = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, errors
    whole = driver(*words, "--output-dir", "threads", address=None)
    expected, errors = whole.communicate(timeout=SECONDS)
    assert whole.returncode == 0, errors
    names = ("run_id", "objective", "hyperparameters", "trials")
    found = [{name: json.loads(text.splitlines()[-1])[name] for name in names} for text in (output, expected)]
    assert found[0] == found[1]
    assert Path("out/best_run.toml").read_text() == Path("threads/best_run.toml").read_text()
