"""Schedules in a run: their settings, and that a resumed run goes on with the bits of one that was not interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model, weights

from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import Trainer

SETTINGS: dict[str, dict[str, Any]] = {
    "cosine_with_restarts": {"num_cycles": 2},
    "warmup_stable_decay": {"num_decay_steps": 4},
    "reduce_lr_on_plateau": {"patience": 0, "threshold": 10.0},
    "greedy": {"patience": 0, "min_lr": 1e-4, "smooth": True},
}


class Interrupt(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 9:
            raise InterruptedError


def run(directory: Path, scheduler: str, *callbacks: Any, compute_metrics: Any = None, **others: Any) -> Trainer:
    changes = {"lr_scheduler_type": scheduler, "lr_scheduler_kwargs": SETTINGS[scheduler], "num_train_epochs": 3}
    changes |= others
    return Trainer(
        small_model(),
        TrainingArguments(**run_fields(directory, changes | {"eval_steps": 2, "save_steps": 4, "logging_steps": 1})),
        train_dataset=small_dataset(32),
        eval_dataset=small_dataset(16, seed=1),
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )


def rates(trainer: Trainer) -> list[float]:
    return [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("scheduler", SETTINGS)
def test_a_resumed_run_goes_on_with_its_schedule(tmp_path: Path, scheduler: str) -> None:
    whole = run(tmp_path / "whole", scheduler)
    whole.train()
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", scheduler, Interrupt).train()
    again = run(tmp_path / "cut", scheduler)
    again.train(resume_from_checkpoint=True)
    assert rates(again) == rates(whole)
    assert len({*rates(whole)}) > 2
    np.testing.assert_array_equal(weights(again.model), weights(whole.model))


@pytest.mark.filterwarnings("ignore:the weights of the last step, 12, are kept")
def test_a_resumed_run_goes_on_with_a_mean_that_is_no_number(tmp_path: Path) -> None:
    """A metric that is NaN stays in the running sum of "greedy", which the checkpoint must hold as it is."""
    others = {"metric_for_best_model": "own", "compute_metrics": lambda prediction: {"own": float("nan")}}
    whole = run(tmp_path / "whole", "greedy", **others)
    whole.train()
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", "greedy", Interrupt, **others).train()
    again = run(tmp_path / "cut", "greedy", **others)
    again.train(resume_from_checkpoint=True)
    assert rates(again) == rates(whole)
    assert len({*rates(whole)}) > 2


def test_a_rate_that_follows_accuracy_falls_when_it_does_not_rise(tmp_path: Path) -> None:
    args = TrainingArguments(lr_scheduler_type="reduce_lr_on_plateau")
    assert args.scheduler_kwargs() == {"mode": "max"}
    args.greater_is_better = False
    assert args.scheduler_kwargs() == {"mode": "min"}
    args.lr_scheduler_kwargs = {"mode": "max", "patience": 3}
    assert args.scheduler_kwargs() == {"mode": "max", "patience": 3}


@pytest.mark.parametrize(
    ("scheduler", "given", "message"),
    [
        ("cosine_with_restarts", {"num_cycle": 2}, "has 'num_cycle', which the schedule .*did you mean 'num_cycles'"),
        ("linear", {"power": 2}, "has 'power', which the schedule 'linear' does not have; it has none"),
        ("polynomial", {"lr": 2}, "has 'lr', which the schedule 'polynomial' does not have"),
        ("warmup_stable_decay", {}, "lacks num_decay_steps, which the schedule 'warmup_stable_decay' needs"),
        ("polynomial", "{", "is '{', which is not JSON"),
    ],
)
def test_settings_that_a_schedule_does_not_have(scheduler: str, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^lr_scheduler_kwargs {message}"):
        TrainingArguments(lr_scheduler_type=scheduler, lr_scheduler_kwargs=given)


@pytest.mark.parametrize(
    ("scheduler", "given", "message"),
    [
        ("cosine_with_min_lr", {}, "min_lr is None and min_lr_rate is None; expected one of the two"),
        ("polynomial", {"lr_end": 1.0}, "lr_end is 1.0 and learning_rate 0.01; expected an end below it"),
        ("cosine", {"num_cycles": "many"}, "could not convert string to float"),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 3, "decay_type": "cubic"},
            "decay_type is 'cubic'; expected one of",
        ),
        ("greedy", {"factor": 1.5}, "factor is 1.5; expected a number below 1"),
    ],
)
def test_values_that_a_setting_does_not_take(tmp_path: Path, scheduler: str, given: Any, message: str) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"lr_scheduler_type": scheduler, "lr_scheduler_kwargs": given}))
    trainer = Trainer(small_model(), args, train_dataset=small_dataset(8), eval_dataset=small_dataset(8))
    with pytest.raises(ValueError, match=f"^lr_scheduler_kwargs is .*: {message}"):
        trainer.train()


def test_a_rate_that_follows_evaluations_needs_them() -> None:
    with pytest.raises(ValueError, match=r"^lr_scheduler_type is 'greedy' with eval_strategy 'no'; expected"):
        TrainingArguments(lr_scheduler_type="greedy", eval_strategy="no")
