"""The lines about a run while it trains: short, one for an epoch, with the time left."""

from __future__ import annotations

import pytest
from support.clock import Clock, clock_of_progress

from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import TrainerControl
from kdistill.train.default_callbacks import ProgressCallback
from kdistill.train.state import TrainerState

LOSSES = {"loss": 1.45512, "hard_loss": 0.62212, "soft_loss": 2.28812, "grad_norm": 1.19, "learning_rate": 3.375e-4}
EVALUATION = {"eval_loss": 0.4921, "eval_accuracy": 0.80276, "eval_n": 872, "eval_runtime": 0.29}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_of_progress(monkeypatch)


def lines_of(clock: Clock, capsys: pytest.CaptureFixture[str], *entries: dict[str, float], stop: int = 40) -> list[str]:
    """What is on stderr of a run of 3 epochs of 40 steps that takes a second a step and logs `entries` at `stop`."""
    args = TrainingArguments(eval_strategy="epoch", metric_for_best_model="accuracy")
    state = TrainerState(max_steps=120, num_train_epochs=3)
    control, callback = TrainerControl(), ProgressCallback()
    callback.on_train_begin(args, state, control)
    for step in range(1, stop + 1):
        callback.on_step_begin(args, state, control)
        clock.now += 1
        state.global_step, state.epoch = step, step / 40
        callback.on_step_end(args, state, control)
    for entry in entries:
        callback.on_log(args, state, control, logs={**entry, "epoch": state.epoch, "step": state.global_step})
    callback.on_train_end(args, state, control)
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]


def test_an_epoch_is_one_line_with_few_digits_and_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = lines_of(clock, capsys, LOSSES, EVALUATION)
    figures = "loss 1.455 (hard 0.622, soft 2.288), eval_accuracy 0.803, eval_loss 0.492"
    assert line == f"epoch 1 of 3: {figures}, 1:20 left"
    assert len(line) <= 100


def test_a_line_inside_of_an_epoch_names_the_step(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(clock, capsys, {"loss": 2.0}, stop=50) == ["epoch 1.25 of 3, step 50: loss 2.000, 1:10 left"]


def test_a_users_metric_is_shown_and_a_run_that_only_ends_logs_no_line(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines_of(clock, capsys, {"eval_loss": 1e-5, "eval_mine": 12345.678}) == [
        "epoch 1 of 3: eval_loss 1e-05, eval_mine 1.23e+04, 1:20 left"
    ]
    assert lines_of(clock, capsys, {"train_loss": 0.9, "train_runtime": 3.0}, stop=120) == []


def test_each_stage_of_a_distillation_has_its_own_pace(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """The first 80 steps take a second each, the others three; nobody expects the latter to be as quick."""
    args = DistillationTrainingArguments("unused", matches="tinybert")
    state = TrainerState()
    state.set_length(args, 120, 40)
    control, callback = TrainerControl(), ProgressCallback()
    callback.on_train_begin(args, state, control)
    for step in range(1, 121):
        callback.on_step_begin(args, state, control)
        clock.now += 1 if step <= 80 else 3
        state.global_step, state.epoch = step, step / 40
        callback.on_step_end(args, state, control)
        if step in (20, 100):
            callback.on_log(args, state, control, logs={"loss": 1.0, "epoch": state.epoch, "step": step})
    callback.on_train_end(args, state, control)
    said = capsys.readouterr().err.splitlines()
    assert "epoch 0.5 of 3, step 20: loss 1.000, 1:00 left of this stage" in said
    assert "train, intermediate: 80 steps in 1:20" in said
    assert "epoch 2.5 of 3, step 100: loss 1.000, 1:00 left" in said
    assert said[-1] == "train, prediction: 40 steps in 2:00"
