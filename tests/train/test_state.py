"""State files of the first version, in which one string held the hashes of rows and teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.resumable_run import ROWS, result, trainer

from kdistill.report.finished import check_comparable, load_run
from kdistill.system.files import write_manifest
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.state import TrainerState

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 10:
            raise InterruptedError


def write_as_first_version(directory: Path) -> None:
    """Let the state of a checkpoint or an output directory be as the first version wrote it."""
    file = directory / "trainer_state.json"
    state = json.loads(file.read_text())
    state["trained_on"] = " ".join(state["trained_on"].values())
    assert len(state["trained_on"].split()) == 2
    file.write_text(json.dumps(state))
    if (directory / "manifest.json").exists():
        (directory / "manifest.json").unlink()
        write_manifest(directory)


def test_a_run_that_the_first_version_began_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trainer(whole).train()
    with pytest.raises(InterruptedError):
        trainer(cut, callbacks=[Interrupt()]).train()
    for checkpoint in cut.glob("checkpoint-*"):
        write_as_first_version(checkpoint)
    with pytest.raises(ValueError, match="trained on other rows or with another teacher"):
        trainer(cut, rows=ROWS + 1).train(resume_from_checkpoint=True)
    trainer(cut).train(resume_from_checkpoint=True)
    assert result(cut) == result(whole)


def test_a_run_that_the_first_version_finished_is_one(tmp_path: Path) -> None:
    trainer(tmp_path).train()
    written = TrainerState.load(tmp_path)
    write_as_first_version(tmp_path)
    assert TrainerState.load(tmp_path) == written
    again = trainer(tmp_path)
    again.load_finished_run()
    run = load_run(tmp_path)
    check_comparable(run, again.state, again.model.config)
    other = TrainerState(trained_on={"data": "0" * 64, "teacher": run.state.trained_on["teacher"]})
    with pytest.raises(ValueError, match="was trained on other rows; expected the rows of this run"):
        check_comparable(run, other, again.model.config)


def test_a_run_without_a_teacher_has_one_hash(tmp_path: Path) -> None:
    for words, expected in (("aa bb", {"data": "aa", "teacher": "bb"}), ("aa", {"data": "aa"}), ("", {})):
        TrainerState().save(tmp_path)
        file = tmp_path / "trainer_state.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"trained_on": words}))
        assert TrainerState.load(tmp_path).trained_on == expected
