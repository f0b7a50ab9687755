"""`log_metrics`, `save_metrics`, `save_state` of a trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_run import run_fields, small_dataset, small_model

from kdistill.train.arguments import TrainingArguments
from kdistill.train.state import TrainerState
from kdistill.trainers import Trainer


def trainer_in(directory: Path) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {}))
    return Trainer(small_model(), args, train_dataset=small_dataset(16), eval_dataset=small_dataset(8))


def test_metrics_are_saved_by_split_and_together(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    trainer.save_metrics("train", {"train_loss": 0.5, "train_samples": 16})
    trainer.save_metrics("eval", {"eval_loss": 0.25, "epoch": 2.0})
    trainer.save_metrics("test", {"test_loss": 1.0}, combined=False)
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert written == {
        "train_results.json": {"train_loss": 0.5, "train_samples": 16},
        "eval_results.json": {"epoch": 2.0, "eval_loss": 0.25},
        "test_results.json": {"test_loss": 1.0},
        "all_results.json": {"train_loss": 0.5, "train_samples": 16, "eval_loss": 0.25, "epoch": 2.0},
    }
    with pytest.raises(ValueError, match=r"^split is '../other'; expected a name"):
        trainer.save_metrics("../other", {})


def test_a_script_of_transformers_leaves_a_run_that_is_still_finished(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    result = trainer.train()
    trainer.save_model()
    trainer.save_metrics("train", {**result.metrics, "train_samples": 16})
    trainer.save_state()
    trainer.save_metrics("eval", trainer.evaluate())
    again = trainer_in(tmp_path)
    assert again.train(resume_from_checkpoint=True).training_loss == result.training_loss
    assert again.results["train_samples"] == 16
    assert TrainerState.load(tmp_path / "out").global_step == trainer.state.global_step


def test_metrics_are_printed_in_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_in(tmp_path).log_metrics("eval", {"eval_loss": 0.123456, "eval_runtime": 3725.5, "eval_n": 12})
    assert capsys.readouterr().out.splitlines() == [
        "***** eval metrics *****",
        "  eval_loss    =     0.1235",
        "  eval_n       =         12",
        "  eval_runtime = 1:02:05.50",
    ]
