"""A run that is killed and resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.resumable_run import LAST_STEP, ROWS, result, run_python, trainer
from support.small_run import small_dataset, write_model, write_rows

from kdistill import trainers
from kdistill.cli import main as cli
from kdistill.distill import cache
from kdistill.models.classes import BertForSequenceClassification
from kdistill.train import directory as run_directory
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import DistillationTrainer


class Kill(TrainerCallback):
    """Ends this process after a step, as the kernel does when memory runs out."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def signal_while_saving(call: int, number: int) -> None:
    """Send this process a signal when a checkpoint's files are written and its manifest is not."""
    calls = iter(range(1, 100))

    def write_manifest(directory: Path) -> None:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        original(directory)

    original, run_directory.write_manifest = run_directory.write_manifest, write_manifest


def child(output_dir: str, kill: str) -> None:
    """Train in this process until it is killed; `kill` is a step, or `save` and the number of a checkpoint."""
    where, _, number = kill.rpartition(" ")
    if where == "save":
        signal_while_saving(int(number), signal.SIGKILL)
        callbacks = []
    else:
        callbacks = [Kill(int(number))]
    trainer(Path(output_dir), callbacks=callbacks).train(resume_from_checkpoint=True)


def killed(output_dir: Path, kill: str) -> None:
    process = run_python(f"import test_resume; test_resume.child({str(output_dir)!r}, {kill!r})")
    assert process.returncode == -signal.SIGKILL, process.stderr


def signalled(options: list[str], number: int, where: str) -> None:
    """Run a command that gets a signal after step 20, or while it writes its third checkpoint."""

    class Signal(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == 20:
                os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    if where == "save":
        signal_while_saving(3, number)
    else:
        trainers.default_callbacks = lambda args: [Signal()]
    sys.exit(cli.main(options))


def signalled_while_teaching(options: list[str], number: int) -> None:
    """Run a command that gets a signal in the teacher's third pass."""
    calls = iter(range(1, 100))
    forward = BertForSequenceClassification.forward

    def forward_and_signal(model: BertForSequenceClassification, batch: Any, train: bool = False) -> Any:
        if model.frozen and next(calls) == 3:
            os.kill(os.getpid(), number)
        return forward(model, batch, train)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    BertForSequenceClassification.forward = forward_and_signal
    sys.exit(cli.main(options))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output_dir = tmp_path_factory.mktemp("uninterrupted")
    with pytest.warns(UserWarning, match="no better than"):
        assert trainer(output_dir).train().global_step == LAST_STEP
    return result(output_dir)


def finish(output_dir: Path) -> DistillationTrainer:
    resumed = trainer(output_dir)
    with pytest.warns(UserWarning, match="no better than"):
        resumed.train(resume_from_checkpoint=True)
    return resumed


@pytest.mark.parametrize("kills", [["step 2"], ["step 6"], ["save 2"], ["step 7", "save 1", "step 14"]])
def test_killed_run_ends_bit_equal(tmp_path: Path, uninterrupted: dict[str, Any], kills: list[str]) -> None:
    for kill in kills:
        killed(tmp_path, kill)
    finish(tmp_path)
    assert result(tmp_path) == uninterrupted
    assert not list(tmp_path.glob(".*"))


def test_damaged_checkpoint_is_passed_over(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    killed(tmp_path, "step 10")
    damaged = tmp_path / "checkpoint-8" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match="checkpoint-8 is damaged and skipped"):
        finish(tmp_path)
    assert result(tmp_path) == uninterrupted


def test_resuming_from_a_named_checkpoint(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    killed(tmp_path, "step 13")
    oldest = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[0]
    with pytest.warns(UserWarning, match="no better than"):
        trainer(tmp_path).train(resume_from_checkpoint=oldest)
    assert result(tmp_path)["model"] == uninterrupted["model"]
    with pytest.raises(FileNotFoundError, match="expected a checkpoint's directory"):
        trainer(tmp_path).train(resume_from_checkpoint=tmp_path / "checkpoint-99")
    (oldest / "config.json").unlink()
    with pytest.raises(ValueError, match=r"which is damaged: .*config\.json is missing"):
        trainer(tmp_path).train(resume_from_checkpoint=oldest)


def test_finished_run_is_left_as_it_is(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="no better than"):
        first = trainer(tmp_path).train()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    again = trainer(tmp_path)
    assert again.train(resume_from_checkpoint=True) == first
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    saved = tmp_path / "again"
    again.model.save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == uninterrupted["model"]


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_finished_run_goes_on_when_there_are_more_epochs(tmp_path: Path) -> None:
    trainer(tmp_path).train()
    longer = trainer(tmp_path, num_train_epochs=4)
    with pytest.warns(UserWarning, match=r"num_train_epochs was 3\.0 and is now 4\.0"):
        assert longer.train(resume_from_checkpoint=True).global_step == 20


def test_resuming_on_other_rows(tmp_path: Path) -> None:
    killed(tmp_path, "step 6")
    before = {path: path.read_bytes() for path in tmp_path.glob("checkpoint-*/*")}
    with pytest.raises(ValueError, match="trained on other rows"):
        trainer(tmp_path, rows=ROWS + 1).train(resume_from_checkpoint=True)
    assert {path: path.read_bytes() for path in tmp_path.glob("checkpoint-*/*")} == before


@pytest.mark.filterwarnings("ignore:the teacher's accuracy")
def test_resuming_with_other_evaluation_rows(tmp_path: Path) -> None:
    """The best weights are those of the best of comparable evaluations."""
    killed(tmp_path, "step 6")
    other = trainer(tmp_path)
    other.eval_dataset = small_dataset(21, seed=1)
    with pytest.raises(ValueError, match="evaluated on other rows"):
        other.train(resume_from_checkpoint=True)
    without = trainer(tmp_path, eval_strategy="no", eval_steps=None, load_best_model_at_end=False)
    without.eval_dataset = None
    with pytest.warns(UserWarning, match="eval_strategy was 'steps' and is now 'no'"):
        without.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="evaluated on other rows"):
        other.train(resume_from_checkpoint=True)


def test_two_runs_in_one_directory(tmp_path: Path) -> None:
    class Second(TrainerCallback):
        error: BlockingIOError | None = None

        def on_step_end(self, args, state, control, **kwargs) -> None:
            with pytest.raises(BlockingIOError, match="in use by another run") as caught:
                trainer(tmp_path).train(resume_from_checkpoint=True)
            self.error = caught.value

    second = Second()
    with pytest.warns(UserWarning, match="no better than"):
        trainer(tmp_path, max_steps=1, callbacks=[second]).train()
    assert second.error is not None


@pytest.mark.parametrize("where", ["step", "save"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_the_last_checkpoint(
    tmp_path: Path, number: signal.Signals, status: int, where: str
) -> None:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 60)
    out, expected = tmp_path / "out", tmp_path / "expected"
    options = f"""finetune --model {model} --train {rows} --eval {rows} --num-train-epochs 4
        --save-total-limit 2 --per-device-train-batch-size 8 --learning-rate 0.01 --json --output-dir""".split()
    assert cli.main([*options, str(expected)]) == 0
    code = f"import test_resume; test_resume.signalled({[*options, str(out)]!r}, {int(number)}, {where!r})"
    process = run_python(code)
    assert process.returncode == status, process.stderr
    assert sorted(path.name for path in out.glob("*checkpoint*")) == ["checkpoint-16", "checkpoint-8"]
    assert process.stderr == (
        f"kdistill: interrupted; {out}/checkpoint-16 is kept. Repeat the command with --resume to continue\n"
    )
    assert cli.main([*options, str(out), "--resume"]) == 0
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_what_the_teacher_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    teacher, student = write_model(tmp_path / "teacher", seed=3), write_model(tmp_path / "student", seed=2)
    rows = write_rows(tmp_path / "rows.tsv", 2000)
    out, expected = tmp_path / "out", tmp_path / "expected"
    options = f"""distill --teacher {teacher} --student {student} --train {rows} --eval {rows} --num-train-epochs 1
        --per-device-train-batch-size 100 --teacher-dtype float32 --json --output-dir""".split()
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache of another run"))
    assert cli.main([*options, str(expected)]) == 0
    (whole,) = cache.info()
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    code = f"import test_resume; test_resume.signalled_while_teaching({[*options, str(out)]!r}, {int(number)})"
    process = run_python(code)
    assert process.returncode == status, process.stderr
    said = process.stderr.splitlines()[-1]
    assert said == "kdistill: interrupted before the first step. Repeat the command to start again"
    (kept,) = cache.info()
    assert 0 < kept.rows < whole.rows
    assert cli.main([*options, str(out), "--resume"]) == 0
    assert cache.info()[0].rows == whole.rows, "only what was missing has been computed"
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
