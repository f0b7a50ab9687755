"""What a run finds in its output directory: what runs left, which it may replace, and what is of others."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.resumable_run import result, trainer
from support.small_run import run_fields, small_dataset, small_model, write_model

from kdistill.data.dataset import Dataset
from kdistill.models.sentence_files import WRITTEN_FILES
from kdistill.text.classes import AutoTokenizer
from kdistill.train import directory as run_directory
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.directory import RunDirectory
from kdistill.trainers import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise InterruptedError


def interrupted(out: Path, step: int = 10) -> None:
    with pytest.raises(InterruptedError):
        trainer(out, callbacks=[StopAt(step)]).train()


def content_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def small_trainer(directory: Path, **changes: object) -> Trainer:
    args = TrainingArguments(**run_fields(directory, changes))
    return Trainer(small_model(), args, train_dataset=small_dataset(16), eval_dataset=small_dataset(8, seed=1))


@pytest.mark.parametrize("name", ["README.md", "vocab.txt", "tokenizer_config.json", "all_results.json", "command.txt"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_somebody_else_is_refused_before_the_run_and_stays(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    for resume in (None, True):
        run = small_trainer(tmp_path, overwrite_output_dir=overwrite)
        with pytest.raises(FileExistsError, match=f"contains {name}, which no run of kdistill wrote"):
            run.train(resume_from_checkpoint=resume)
    assert content_of(out) == {name: b"mine"}


@pytest.mark.parametrize("changes", [{}, {"overwrite_output_dir": True}])
def test_a_run_without_its_mark_is_told_where_a_copy_of_it_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    out = tmp_path / "out"
    small_trainer(tmp_path, num_train_epochs=1).train()
    (out / "training_args.json").unlink()
    run = small_trainer(tmp_path, **changes)
    (newest,) = (path for path in out.iterdir() if path.name.startswith("checkpoint-"))
    message = f"lacks training_args.json, which marks .* contains README.md.*; copy the file from {newest.name} if"
    with pytest.raises(FileExistsError, match=message):
        run.train(resume_from_checkpoint=None if changes else True)
    shutil.copy(newest / "training_args.json", out)
    small_trainer(tmp_path, num_train_epochs=1).train(resume_from_checkpoint=True)


def test_all_that_a_run_leaves_is_known_to_be_of_a_run(tmp_path: Path) -> None:
    """So that overwriting deletes all of it, and a file of somebody else under any of these names is refused."""
    tokenizer = AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))
    run = small_trainer(tmp_path)
    run.processing_class = tokenizer
    run.provenance = dataclasses.replace(run.provenance, command="kdistill finetune")
    run.train()
    out = tmp_path / "out"
    left = {path.name for path in out.iterdir() if not path.name.startswith("checkpoint-")} - {"runs"}
    of_others = {"vocab.json", "merges.txt", *WRITTEN_FILES}  # in the place of vocab.txt; of models that embed texts
    assert left == set(run_directory._FILES) - of_others
    (out / "notes.txt").write_text("mine")
    with RunDirectory(out).claim(resume=False, overwrite=True):
        RunDirectory(out).delete_run()
        assert {path.name for path in out.iterdir()} == {".kdistill.lock", "notes.txt", "runs"}


def without_logs(directory: Path) -> dict[str, bytes]:
    return {name: content for name, content in content_of(directory).items() if not name.startswith("runs/")}


def fail(*_: Any, **__: Any) -> Any:
    raise OSError("broken by the test")


class FailsAt(TrainerCallback):
    def __init__(self, event: str) -> None:
        setattr(self, event, fail)


def no_labels() -> Dataset:
    rows = small_dataset(16)
    return dataclasses.replace(rows, labels=np.full_like(rows.labels, -100))


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"metric_for_best_model": "f2", "eval_strategy": "epoch"}, {}),
        ({"eval_on_start": True}, {"compute_metrics": fail}),
        ({"eval_on_start": True, "eval_strategy": "no"}, {"eval_dataset": None}),
        ({}, {"train_dataset": None}),
        ({}, {"train_dataset": no_labels()}),
        ({}, {"callbacks": [FailsAt("on_train_begin")]}),
    ],
)
def test_a_run_that_fails_before_its_first_step_costs_the_earlier_one_nothing(
    tmp_path: Path, changes: dict[str, Any], given: dict[str, Any]
) -> None:
    small_trainer(tmp_path, save_strategy="epoch").train()
    before = without_logs(tmp_path / "out")
    rows: dict[str, Any] = {"train_dataset": small_dataset(16), "eval_dataset": small_dataset(8, seed=1)}
    args = TrainingArguments(**run_fields(tmp_path, {"overwrite_output_dir": True, "seed": 7, **changes}))
    with pytest.raises((ValueError, OSError)):
        Trainer(small_model(), args, **(rows | given)).train()
    assert without_logs(tmp_path / "out") == before


def test_a_resumed_run_that_cannot_go_on_deletes_no_checkpoint(tmp_path: Path) -> None:
    interrupted(tmp_path)
    before = without_logs(tmp_path)
    with pytest.raises(OSError, match="broken by the test"):
        trainer(tmp_path, save_total_limit=1, callbacks=[FailsAt("on_train_begin")]).train(resume_from_checkpoint=True)
    assert without_logs(tmp_path) == before


def test_a_readme_written_after_the_run_is_not_overwritten(tmp_path: Path) -> None:
    small_trainer(tmp_path).train()
    (tmp_path / "out" / "README.md").write_text("# My notes\n")
    before = content_of(tmp_path / "out")
    again = small_trainer(tmp_path, overwrite_output_dir=True)
    with pytest.raises(FileExistsError, match=r"contains README\.md"):
        again.train()
    again.load_finished_run()
    with pytest.raises(FileExistsError, match=r"README\.md exists, and kdistill did not write it"):
        again.create_model_card(measure_speed=False)
    assert content_of(tmp_path / "out") == before


def checkpoint_of_transformers(path: Path) -> None:
    """The files that transformers' Trainer leaves in a checkpoint."""
    small_model().save_pretrained(path)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"):
        (path / name).write_bytes(b"theirs")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [None, True])
def test_a_checkpoint_of_transformers_is_refused_and_stays(
    tmp_path: Path, overwrite: bool, resume: bool | None
) -> None:
    checkpoint_of_transformers(tmp_path / "out" / "checkpoint-2")
    before = content_of(tmp_path / "out")
    run = small_trainer(tmp_path, overwrite_output_dir=overwrite, save_total_limit=1)
    with pytest.raises(FileExistsError, match="contains checkpoint-2, which no run of kdistill wrote"):
        run.train(resume_from_checkpoint=resume)
    assert content_of(tmp_path / "out") == before


def test_what_comes_during_the_run_under_a_checkpoints_name_stays(tmp_path: Path) -> None:
    class Put(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                checkpoint_of_transformers(tmp_path / "out" / "checkpoint-1")
                (tmp_path / "out" / "checkpoint-4").write_text("mine")

    run = small_trainer(tmp_path, save_total_limit=1)
    run.add_callback(Put())
    with pytest.raises(FileExistsError, match="checkpoint-4 exists, and no run of kdistill wrote it"):
        run.train()
    assert (tmp_path / "out" / "checkpoint-4").read_text() == "mine"
    assert (tmp_path / "out" / "checkpoint-1" / "optimizer.pt").read_bytes() == b"theirs"
    assert (tmp_path / "out" / "checkpoint-2" / "manifest.json").is_file()


def test_a_checkpoint_that_lost_files_is_still_ours(tmp_path: Path, resumable_result: dict[str, Any]) -> None:
    interrupted(tmp_path)
    for name in ("manifest.json", "trainer_state.json", "model.safetensors"):
        (tmp_path / "checkpoint-8" / name).unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-8 is damaged and skipped: .*manifest\.json is missing"):
        trainer(tmp_path).train(resume_from_checkpoint=True)
    assert result(tmp_path) == resumable_result


@pytest.mark.parametrize("names", [["checkpoint-04"], ["checkpoint-٤"], ["checkpoint-4.bak"]])
def test_other_names_are_no_checkpoints(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / "out" / name).mkdir(parents=True)
    small_trainer(tmp_path).train()
    assert all((tmp_path / "out" / name).is_dir() for name in names)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was interrupted."""
    out = tmp_path_factory.mktemp("begun") / "out"
    interrupted(out)
    return out


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            "",
            ValueError,
            "resume_from_checkpoint is '', which names nothing; expected a checkpoint's directory, True for",
        ),
        (
            "True",
            FileNotFoundError,
            "resume_from_checkpoint is 'True'; expected a checkpoint's directory, True for the",
        ),
        ("no/where", FileNotFoundError, "resume_from_checkpoint is 'no/where'; expected a checkpoint's directory"),
        (1, TypeError, r"resume_from_checkpoint is 1 \(int\); expected a checkpoint's directory, True for the newest"),
        ([], TypeError, r"resume_from_checkpoint is \[\] \(list\); expected"),
        ("OUT", ValueError, "a run's output directory; expected a checkpoint's directory, True for the newest one"),
        (
            "EMPTY",
            ValueError,
            "which is not a checkpoint written by kdistill; a run continues only from its own checkpoints",
        ),
        (
            "THEIRS",
            ValueError,
            "which is not a checkpoint written by kdistill; a run continues only from its own checkpoints",
        ),
    ],
)
def test_what_cannot_be_resumed_is_said_in_one_sentence(
    begun: Path, tmp_path: Path, given: Any, error: type[Exception], message: str
) -> None:
    """Before anything is deleted: an empty text, which counts as false, once overwrote the run it was to resume."""
    (tmp_path / "EMPTY").mkdir()
    checkpoint_of_transformers(tmp_path / "THEIRS")
    places = {"OUT": begun, "EMPTY": tmp_path / "EMPTY", "THEIRS": tmp_path / "THEIRS"}
    before = content_of(begun)
    run = trainer(begun, overwrite_output_dir=True)
    with pytest.raises(error, match=message):
        run.train(resume_from_checkpoint=str(places.get(given, given)) if isinstance(given, str) else given)
    assert content_of(begun) == before


@pytest.mark.parametrize("given", [True, np.True_, "checkpoint-8", Path("checkpoint-8")])
def test_what_can_be_resumed(begun: Path, tmp_path: Path, given: Any, resumable_result: dict[str, Any]) -> None:
    shutil.copytree(begun, tmp_path / "out")
    place = given if isinstance(given, bool | np.bool_) else type(given)(tmp_path / "out" / given)
    trainer(tmp_path / "out").train(resume_from_checkpoint=place)
    assert result(tmp_path / "out") == resumable_result
