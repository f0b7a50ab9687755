"""After its last step a run is finished: model card and upload may fail, each alone, and nothing is trained again."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from support.small_run import run_fields, small_dataset, small_model, write_model, write_rows

from kdistill.cli.main import main
from kdistill.models.classes import BertForSequenceClassification
from kdistill.report import card
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import Trainer


def run_of(directory: Path, callbacks: Any = (), **changes: object) -> Trainer:
    args = TrainingArguments(**run_fields(directory, changes))
    rows = {"train_dataset": small_dataset(16), "eval_dataset": small_dataset(8, seed=1)}
    return Trainer(small_model(), args, callbacks=callbacks, **rows)


class NoStep(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pytest.fail("a finished run was trained again")


def assert_finished(directory: Path) -> None:
    """The model is there, and resuming finds nothing to do."""
    BertForSequenceClassification.from_pretrained(directory / "out")
    again = run_of(directory, callbacks=[NoStep()])
    again.train(resume_from_checkpoint=True)
    assert again.results["eval_n"] == 8
    assert {"train_loss", "train_runtime", "epoch"} <= set(again.results)


def test_missing_metadata_of_a_package_is_an_unknown_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(card, "version", version)
    run = run_of(tmp_path)
    run.train()
    assert run.failed == {}
    assert "| tokenizers | unknown |" in (tmp_path / "out" / "README.md").read_text()


class MakeReadme(TrainerCallback):
    """Puts something in the way of the model card while the run goes on."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Path(args.output_dir, "README.md").mkdir(exist_ok=True)


def test_a_card_that_cannot_be_written_is_a_warning_that_says_how_to_repeat_it(tmp_path: Path) -> None:
    run = run_of(tmp_path, callbacks=[MakeReadme()])
    out = tmp_path / "out"
    sentence = (
        rf"model card: .*README\.md exists, and kdistill did not write it; .*the finished model is in {out}; "
        r"write it with `kdistill report --model .*` or trainer\.create_model_card\(\)"
    )
    with pytest.warns(UserWarning, match=sentence):
        run.train()
    assert list(run.failed) == ["model_card"]
    (out / "README.md").rmdir()
    assert_finished(tmp_path)
    again = run_of(tmp_path)
    again.load_finished_run()
    again.create_model_card(measure_speed=False)
    assert (out / "README.md").is_file()


def test_a_failure_of_the_card_does_not_keep_the_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the failure is: here one that no code of ours raises."""
    uploaded = []
    monkeypatch.setattr("kdistill.trainers.check_publishing", lambda args: None)
    monkeypatch.setattr("kdistill.trainers.upload_run", lambda args, *others: uploaded.append(args) or "address")

    class WithoutCard(Trainer):
        def create_model_card(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("by zero")

    args = TrainingArguments(**run_fields(tmp_path, {"push_to_hub": True}))
    run = WithoutCard(small_model(), args, train_dataset=small_dataset(16), eval_dataset=small_dataset(8, seed=1))
    with pytest.warns(UserWarning, match="model card: ZeroDivisionError: by zero. Nothing is lost"):
        run.train()
    assert len(uploaded) == 1
    assert run.commit_url == "address"
    assert list(run.failed) == ["model_card"]
    assert_finished(tmp_path)


@pytest.mark.parametrize("event", ["on_log", "on_train_end"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_callback_that_fails_at_the_end_leaves_a_finished_run(
    tmp_path: Path, event: str, error: type[BaseException]
) -> None:
    def fail(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps and "train_loss" in state.log_history[-1]:
            raise error("of the user's")

    run = run_of(tmp_path, callbacks=[type("Failing", (TrainerCallback,), {event: fail})()])
    with pytest.raises(error, match="of the user's"):
        run.train()
    assert_finished(tmp_path)


def test_what_raised_first_is_what_is_raised(tmp_path: Path) -> None:
    """Also when on_train_end fails after it; and every callback gets that event."""
    ended = []

    class Failing(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ValueError("the first")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise RuntimeError("the second")

    class Last(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ended.append(state.global_step)

    with pytest.raises(ValueError, match="the first") as raised:
        run_of(tmp_path, callbacks=[Failing(), Last()]).train()
    assert raised.value.__notes__ == ["on_train_end failed after it: the second"]
    assert ended == [1]


def test_every_error_of_the_last_event_is_told(tmp_path: Path) -> None:
    class Failing(TrainerCallback):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise self.error

    callbacks = [Failing(KeyError("first")), Failing(OSError("second"))]
    with pytest.raises(KeyError, match="first") as raised:
        run_of(tmp_path, callbacks=callbacks).train()
    assert raised.value.__notes__ == ["on_train_end of another callback failed too: OSError: second"]


EVENTS = ("on_step_begin", "on_pre_optimizer_step", "on_step_end", "on_evaluate", "on_log", "on_save", "on_epoch_end")


@pytest.mark.parametrize("event", [*EVENTS, "compute_metrics"])
@pytest.mark.parametrize("how", ["error", "Ctrl-C"])
def test_a_failure_in_a_users_code_keeps_the_checkpoint_and_resumes_bit_equal(
    tmp_path: Path, event: str, how: str
) -> None:
    """A real SIGINT in the one case, an exception of no kind that we know in the other."""
    armed = [True]

    def fail() -> None:
        if armed:
            armed.clear()
            if how == "error":
                raise LookupError("of the user's")
            signal.raise_signal(signal.SIGINT)

    def in_a_callback(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= 3:
            fail()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        if interrupted.state.global_step >= 3:
            fail()
        return {"own": 1.0}

    whole = run_of(tmp_path / "whole")
    whole.compute_metrics = lambda prediction: {"own": 1.0}
    whole.train()
    interrupted = run_of(tmp_path)
    if event == "compute_metrics":
        interrupted.compute_metrics = compute_metrics
    else:
        interrupted.add_callback(type("Failing", (TrainerCallback,), {event: in_a_callback})())
    with pytest.raises(LookupError if how == "error" else KeyboardInterrupt):
        interrupted.train()
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} >= {"checkpoint-2"}
    assert not list((tmp_path / "out").glob(".*"))
    resumed = run_of(tmp_path)
    resumed.compute_metrics = whole.compute_metrics
    resumed.train(resume_from_checkpoint=True)
    one, other = ((path / "out" / "model.safetensors").read_bytes() for path in (tmp_path / "whole", tmp_path))
    assert one == other


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    model, rows = write_model(tmp_path / "model"), write_rows(tmp_path / "rows.tsv", 16)
    words = ["finetune", "--model", str(model), "--train", str(rows), "--eval", str(rows), "--num-train-epochs", "1"]
    return [*words, "--output-dir", str(tmp_path / "out"), "--json"]


def test_the_command_says_what_failed_in_json_and_exit_status(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kdistill.trainers.write_model_card", full)
        assert main(command) == 1
    output = capsys.readouterr()
    figures = json.loads(output.out)
    assert figures["eval_n"] == 16
    assert list(figures["failed"]) == ["model_card"]
    assert "No space left on device. Nothing is lost" in figures["failed"]["model_card"]
    assert f"kdistill report --model {tmp_path / 'out'}" in output.err
    assert main(["report", "--model", str(tmp_path / "out"), "--json"]) == 0
    assert (tmp_path / "out" / "README.md").is_file()
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "failed" not in json.loads(capsys.readouterr().out)


def test_odd_names_stay_in_their_place_in_the_card(tmp_path: Path) -> None:
    odd = tmp_path / "a|b`c\n# d.tsv"
    shutil.copy(write_rows(tmp_path / "rows.tsv", 16), odd)
    write_model(tmp_path / "model")
    out = tmp_path / "out"
    words = ["finetune", "--model", str(tmp_path / "model"), "--train", str(odd), "--eval", str(odd)]
    assert main([*words, "--num-train-epochs", "1", "--output-dir", str(out), "--json"]) == 0
    lines = (out / "README.md").read_text().splitlines()
    assert not [line for line in lines if line.startswith("# d")]
    assert [line.count(" | ") for line in lines if "a\\|b`c # d.tsv" in line] == [4, 4]
