"""With `enable_jit_checkpoint` an interrupted run leaves its latest step and ends as one that was never interrupted."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import threading
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.interrupts import Calls, counted
from support.resumable_run import trainer, untimed

from kdistill.system.files import verify_manifest
from kdistill.train import directory as run_directory
from kdistill.train import run as runs
from kdistill.train.callbacks import EVENTS, EarlyStoppingCallback, TrainerCallback
from kdistill.train.directory import CARD_FILE, CLASSES_FILE, CONFUSIONS_FILE
from kdistill.train.optim import AdamW
from kdistill.train.state import STATE_FILE
from kdistill.trainers import DistillationTrainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
# A resumed run calls these again; the checkpoint of a step is written before on_save.
REPEATED = ("on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_save")
WITHOUT_CHECKPOINTS = {
    "save_strategy": "no",
    "save_steps": None,
    "save_total_limit": None,
    "load_best_model_at_end": False,
}
PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0}, "warmup_steps": 0}
BEST_OF_AVERAGES = {"save_strategy": "best", "save_steps": None, "ema_decay": 0.5}


class Wishes(TrainerCallback):
    """A callback that counts its events and asks, inside of steps, for logs, evaluations and checkpoints."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"counts": dict(self.counts)}}

    def count(self, event: str) -> None:
        self.counts[event] = self.counts.get(event, 0) + 1

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.count("on_step_begin")
        control.should_log |= state.global_step % 5 == 3

    def on_substep_end(self, args, state, control, **kwargs) -> None:
        self.count("on_substep_end")
        control.should_evaluate |= state.global_step % 7 == 2

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        self.count("on_optimizer_step")
        control.should_save |= state.global_step % 6 == 1


def _counting(event: str) -> Any:
    return lambda self, *_, **__: self.count(event)


for _event in EVENTS:
    if _event not in (*REPEATED, *vars(Wishes)):
        setattr(Wishes, _event, _counting(_event))


class InterruptAt(TrainerCallback):
    """Interrupts the run at the nth call of an event."""

    def __init__(self, event: str, call: int) -> None:
        left = iter(range(call, 0, -1))

        def interrupt(*_: Any, **__: Any) -> None:
            if next(left, None) == 1:
                raise KeyboardInterrupt

        setattr(self, event, interrupt)


def patient(output_dir: Path, *callbacks: Any, **changes: Any) -> DistillationTrainer:
    """The small run with everything that has a state, also callbacks with wishes; its logs lie in runs/r."""
    fields = {"enable_jit_checkpoint": True, "run_name": "r", "report_to": "none"} | changes
    stops = [EarlyStoppingCallback(6, 0.01)] if fields.get("load_best_model_at_end", True) else []
    return trainer(output_dir, callbacks=[Wishes, *stops, *callbacks], **fields)


def interrupted(output_dir: Path, *callbacks: Any, **changes: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        patient(output_dir, *callbacks, **changes).train(resume_from_checkpoint=True)


def finished(output_dir: Path, **changes: Any) -> dict[str, Any]:
    """Finish the run; return all that must not depend on interrupts."""
    run = patient(output_dir, **changes)
    run.train(resume_from_checkpoint=True)
    return everything(output_dir)


def everything(out: Path) -> dict[str, Any]:
    read = lambda path: untimed(json.loads(path.read_text()))  # noqa: E731
    found: dict[str, Any] = {
        "files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*")),
        "model": (out / "model.safetensors").read_bytes(),
        "results": read(out / "all_results.json"),
        "state": read(out / STATE_FILE),
    }
    for path in out.glob("checkpoint-*"):
        weights = [(path / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]
        found[path.name] = [*weights, read(path / STATE_FILE)]
    for path in out.glob("runs/*/metrics.csv"):
        rows = csv.DictReader(path.read_text().splitlines())
        found[path.parent.name] = [untimed(row) for row in rows]
    return found


def state_of(checkpoint: Path) -> dict[str, Any]:
    assert verify_manifest(checkpoint) is None
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text())
    return state


def steps(out: Path) -> list[int]:
    return sorted(int(path.name[11:]) for path in out.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return finished(tmp_path_factory.mktemp("run") / "out")


# Of an interrupt before the `with` that closes it.
@pytest.mark.filterwarnings("ignore:unclosed scandir iterator:ResourceWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        WITHOUT_CHECKPOINTS,
        BEST_OF_AVERAGES,
        {"report_to": "files", **PLATEAU},
    ],
    ids=["steps", "no-checkpoints", "best-of-averages", "logs-and-plateau"],
)
@pytest.mark.filterwarnings(
    "ignore:unclosed scandir iterator:ResourceWarning"
)  # an interrupt may come while it is open
def test_runs_interrupted_at_random_moments_end_bit_equal(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Before random calls of functions, some of them several times, until they are done."""
    with counted(Calls()) as calls:
        expected = finished(tmp_path / "expected", **changes)
    chance = random.Random(str(changes))
    for number in range(4):
        out = tmp_path / str(number)
        for _ in range(chance.choice([1, 2, 3])):
            try:
                with counted(Calls(chance.randrange(1, calls.count))):
                    patient(out, **changes).train(resume_from_checkpoint=True)
            except KeyboardInterrupt:
                continue
            break
        assert finished(out, **changes) == expected


@pytest.mark.parametrize(
    ("event", "call", "step"),
    [
        ("on_step_begin", 8, 7),
        ("on_substep_end", 8, 7),
        ("on_pre_optimizer_step", 8, 7),
        ("on_optimizer_step", 7, 7),
        ("on_step_end", 7, 7),
        ("on_log", 4, 4),
        ("on_prediction_step", 3, 4),
        ("on_evaluate", 3, 4),
        ("on_epoch_end", 1, 5),
        ("on_epoch_begin", 2, 5),
    ],
)
def test_an_interrupt_leaves_the_latest_step(
    tmp_path: Path, uninterrupted: dict[str, Any], event: str, call: int, step: int
) -> None:
    interrupted(tmp_path, InterruptAt(event, call))
    assert max(steps(tmp_path)) == step
    assert not list(tmp_path.glob(".*"))
    assert finished(tmp_path) == uninterrupted


def test_a_step_that_is_done_counts_though_the_interrupt_came_during_it(
    tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = AdamW.step

    def step(self: AdamW) -> None:
        done(self)
        if self.steps_done == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(AdamW, "step", step)
        interrupted(tmp_path)
    state = state_of(tmp_path / "checkpoint-7")
    assert (state["global_step"], state["unfinished"]["event"]) == (7, "on_optimizer_step")
    assert finished(tmp_path) == uninterrupted


def test_the_checkpoint_of_a_strategy_stands(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    """An interrupt that comes once it is written writes none."""
    interrupted(tmp_path, InterruptAt("on_save", 2))
    newest = tmp_path / f"checkpoint-{max(steps(tmp_path))}"
    assert not state_of(newest)["interrupted"]
    assert finished(tmp_path) == uninterrupted


def test_the_next_checkpoint_takes_the_place_of_an_interrupts(tmp_path: Path) -> None:
    """And of the checkpoints that are kept none is deleted for it."""
    changes = {"save_total_limit": 2, "load_best_model_at_end": False}
    for event, call in (("on_step_begin", 10), ("on_step_begin", 2)):
        before = steps(tmp_path)
        interrupted(tmp_path, InterruptAt(event, call), **changes)
        kept = [step for step in before if step != 9]
        assert [step for step in steps(tmp_path) if step in kept] == kept
    left = [path.name for path in tmp_path.glob("checkpoint-*") if state_of(path)["interrupted"]]
    assert left == ["checkpoint-10"]
    assert finished(tmp_path, **changes) == finished(tmp_path / "expected", **changes)


@pytest.mark.parametrize("name", [CLASSES_FILE, CONFUSIONS_FILE, CARD_FILE])
def test_a_card_that_an_interrupt_has_prevented_is_written_by_the_resumed_run(
    tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replace = os.replace

    def interrupt_at_file(source: Any, target: Any, **more: Any) -> None:
        if Path(target).name == name:
            raise KeyboardInterrupt
        replace(source, target, **more)

    with monkeypatch.context() as during:
        during.setattr(os, "replace", interrupt_at_file)
        interrupted(tmp_path)
    assert (tmp_path / STATE_FILE).exists()
    assert not (tmp_path / CARD_FILE).exists()
    assert finished(tmp_path) == uninterrupted


def test_a_finished_run_keeps_no_checkpoint_of_an_interrupt(tmp_path: Path) -> None:
    interrupted(tmp_path, InterruptAt("on_train_begin", 1), **WITHOUT_CHECKPOINTS)
    assert not list(tmp_path.glob("runs/*"))
    interrupted(tmp_path, InterruptAt("on_step_begin", 15), **WITHOUT_CHECKPOINTS)
    assert 14 in steps(tmp_path)
    files = finished(tmp_path, **WITHOUT_CHECKPOINTS)["files"]
    assert files == finished(tmp_path / "expected", **WITHOUT_CHECKPOINTS)["files"]


def test_the_last_step_is_left_when_the_model_has_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**BEST_OF_AVERAGES, "save_total_limit": None}
    loaded = runs.load_weights

    def load_weights(*given: Any) -> None:
        loaded(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(runs, "load_weights", load_weights)
        interrupted(tmp_path, **changes)
    last = max(steps(tmp_path))
    every_step = tmp_path / "expected"
    finished(every_step, **(changes | {"save_strategy": "steps", "save_steps": 1}))
    for name in ("model.safetensors", "optimizer.safetensors"):
        found, expected = (load_file(out / f"checkpoint-{last}" / name) for out in (tmp_path, every_step))
        assert all(np.array_equal(found[tensor], expected[tensor]) for tensor in expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cost_the_checkpoint(
    tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    written, came = run_directory.write_manifest, []

    def write_manifest(directory: Path) -> None:
        if directory.name.endswith("-7"):
            os.kill(os.getpid(), number)
        written(directory)

    def handler(*_: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_directory, "write_manifest", write_manifest)
    former = signal.signal(number, handler)
    try:
        interrupted(tmp_path, InterruptAt("on_step_end", 7))
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, former)
    assert came == [number]
    assert state_of(tmp_path / "checkpoint-7")["interrupted"]
    assert finished(tmp_path) == uninterrupted


def test_a_full_disk_neither_hides_the_interrupt_nor_costs_a_checkpoint(
    tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = run_directory.write_manifest

    def write_manifest(directory: Path) -> None:
        if directory.name.endswith("-7"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(directory)

    monkeypatch.setattr(run_directory, "write_manifest", write_manifest)
    with pytest.raises(KeyboardInterrupt) as caught:
        patient(tmp_path, InterruptAt("on_step_end", 7)).train()
    (note,) = caught.value.__notes__
    assert note == "the checkpoint of the latest step could not be written: [Errno 28] No space left on device"
    assert not list(tmp_path.glob(".*"))
    assert max(steps(tmp_path)) < 7
    assert all(verify_manifest(path) is None for path in tmp_path.glob("checkpoint-*"))
    assert finished(tmp_path) == uninterrupted


def test_without_the_argument_an_interrupt_leaves_no_checkpoint(tmp_path: Path) -> None:
    interrupted(tmp_path, InterruptAt("on_step_end", 7), enable_jit_checkpoint=False)
    assert 7 not in steps(tmp_path)


def test_a_run_that_begins_again_leaves_the_logs_of_another_run(tmp_path: Path) -> None:
    class OtherRun(TrainerCallback):
        """Begins to log after this run, below the same directory, and an interrupt comes before the first step."""

        def on_step_begin(self, args, state, control, **kwargs) -> None:
            assert (logs / "metrics.jsonl").is_file()
            (logs / "run-2").mkdir()
            (logs / "run-2" / "metrics.csv").write_text("step\n")
            raise KeyboardInterrupt

    logs = tmp_path / "logs"
    with pytest.raises(KeyboardInterrupt):
        trainer(
            tmp_path / "out",
            callbacks=[OtherRun()],
            enable_jit_checkpoint=True,
            logging_dir=str(logs),
            report_to="local",
            eval_on_start=True,
        ).train()
    assert sorted(path.name for path in logs.rglob("*")) == ["metrics.csv", "run-2"]


def test_the_argument_changes_no_bit(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    with_it, without = deepcopy(uninterrupted), finished(tmp_path, enable_jit_checkpoint=False)
    for found in (with_it, without):
        assert found["state"]["args"].pop("enable_jit_checkpoint") is (found is with_it)
        for name in [name for name in found if name.startswith("checkpoint-")]:
            found[name][-1]["args"].pop("enable_jit_checkpoint")
    assert with_it == without


def test_sigterm_ends_a_program_that_does_not_answer_it(tmp_path: Path) -> None:
    class Terminate(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        patient(tmp_path, Terminate()).train()
    assert caught.value.code == 143
    assert steps(tmp_path)[-1] == 7
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_in_another_thread_answers_no_signal_and_leaves_its_step(tmp_path: Path) -> None:
    thread = threading.Thread(target=interrupted, args=(tmp_path, InterruptAt("on_step_end", 7)))
    thread.start()
    thread.join()
    assert steps(tmp_path)[-1] == 7


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    interrupted(tmp_path, InterruptAt("on_save", 2))
    for path in tmp_path.glob(f"checkpoint-*/{STATE_FILE}"):
        state = json.loads(path.read_text())
        path.write_text(json.dumps({name: state[name] for name in state if name not in ("interrupted", "unfinished")}))
        run_directory.write_manifest(path.parent)
    found = finished(tmp_path)
    assert (found["model"], found["state"]) == (uninterrupted["model"], uninterrupted["state"])
