"""Which checkpoints a run keeps: the newest and the best, unless it is told otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model, weights

from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import Trainer

EPOCHS = 5  # of 5 steps each
SCORES = {5: 0.3, 10: 0.9, 15: 0.5, 20: 0.4, 25: 0.6}  # the second epoch is the best


class StopsAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer(directory: Path, callbacks: list[TrainerCallback] | None = None, **changes: Any) -> Trainer:
    fields = run_fields(directory, {"num_train_epochs": EPOCHS, "metric_for_best_model": "score", **changes})
    if "save_total_limit" not in changes:
        del fields["save_total_limit"]  # the default is what is tested
    made = Trainer(
        small_model(),
        TrainingArguments(**fields),
        train_dataset=small_dataset(40),
        eval_dataset=small_dataset(16, seed=1),
        compute_metrics=lambda prediction: {"score": SCORES[made.state.global_step]},
        callbacks=callbacks,
    )
    return made


def kept(directory: Path) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in (directory / "out").glob("checkpoint-*")}


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.train()
    assert kept(tmp_path) == {10, 25}
    assert run.state.best_model_checkpoint == str(tmp_path / "out/checkpoint-10")


@pytest.mark.parametrize(
    ("limit", "steps"), [(None, {5, 10, 15, 20, 25}), (0, {5, 10, 15, 20, 25}), (3, {10, 20, 25}), (1, {10, 25})]
)
def test_a_given_limit_counts(tmp_path: Path, limit: int | None, steps: set[int]) -> None:
    trainer(tmp_path, save_total_limit=limit).train()
    assert kept(tmp_path) == steps


def test_a_run_resumed_from_what_is_kept_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, [StopsAt(18)]).train()
    assert kept(tmp_path) == {10, 15}
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert kept(tmp_path) == {10, 25}
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))


@pytest.mark.filterwarnings("ignore:the run continues with changed arguments")
def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    trainer(tmp_path, num_train_epochs=3).train()
    more = trainer(tmp_path)
    more.train(resume_from_checkpoint=True)
    assert more.state.global_step == 25
    assert more.state.best_global_step == 10
    assert kept(tmp_path) == {10, 25}
