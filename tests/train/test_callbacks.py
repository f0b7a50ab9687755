"""Callbacks: which event comes when, how they steer a run, and what a resumed run gives them back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model, weights

from kdistill.metrics.prediction import EvalPrediction
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import EarlyStoppingCallback, TrainerCallback, TrainerControl
from kdistill.train.default_callbacks import ProgressCallback
from kdistill.trainers import Trainer

EVENTS = [name for name in vars(TrainerCallback) if name.startswith("on_")]


class Recorder(TrainerCallback):
    """Keeps the names of the events of a run, and the step of each."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def record(args: TrainingArguments, state: Any, control: TrainerControl, **kwargs: Any) -> None:
            assert kwargs["model"] is not None
            self.events.append((name.removeprefix("on_"), state.global_step))

        return record


def run(
    directory: Path, *callbacks: Any, metric: Callable[[], float] | None = None, rows: int = 32, **changes: Any
) -> Trainer:
    """A trainer with 4 steps an epoch that measures `score` with `metric`, if there is one."""
    fields = {"eval_strategy": "no"} if metric is None else {"metric_for_best_model": "score"}

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return {} if metric is None else {"score": metric()}

    return Trainer(
        small_model(),
        TrainingArguments(**run_fields(directory, fields | changes)),
        train_dataset=small_dataset(rows),
        eval_dataset=small_dataset(16, seed=1),
        compute_metrics=compute_metrics,
        callbacks=callbacks,
    )


def scripted(*values: float) -> Callable[[], float]:
    return iter(values).__next__


def test_order_of_the_events(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = run(
        tmp_path,
        recorder,
        metric=scripted(1, 2),
        rows=12,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
        num_train_epochs=1,
    )
    trainer.train()
    trainer.predict(small_dataset(3))
    assert recorder.events == [
        ("init_end", 0),
        ("train_begin", 0),
        ("epoch_begin", 0),
        ("step_begin", 0),
        ("substep_end", 0),
        ("pre_optimizer_step", 0),
        ("optimizer_step", 0),
        ("step_end", 1),
        ("step_begin", 1),
        ("pre_optimizer_step", 1),
        ("optimizer_step", 1),
        ("step_end", 2),
        ("epoch_end", 2),
        ("log", 2),  # the training loss
        ("prediction_step", 2),
        ("log", 2),  # the evaluation
        ("evaluate", 2),
        ("save", 2),
        ("log", 2),  # the run
        ("train_end", 2),
        ("prediction_step", 2),
        ("predict", 2),
    ]
    assert {f"on_{event}" for event, _ in recorder.events} == set(EVENTS) - {"on_push_begin"}


def test_gradients_are_there_to_be_watched(tmp_path: Path) -> None:
    """Clipped before the step, and zero after it."""
    norms: dict[str, list[float]] = {"on_pre_optimizer_step": [], "on_optimizer_step": [], "on_step_end": []}

    class Watch(TrainerCallback):
        def note(self, event: str, model: Any) -> None:
            norms[event].append(float(np.linalg.norm(model.flat_gradients.astype(np.float64))))

        def on_pre_optimizer_step(self, args, state, control, model, optimizer, **kwargs) -> None:
            assert optimizer.model is model
            self.note("on_pre_optimizer_step", model)

        def on_optimizer_step(self, args, state, control, model, **kwargs) -> None:
            self.note("on_optimizer_step", model)

        def on_step_end(self, args, state, control, model, **kwargs) -> None:
            self.note("on_step_end", model)

    run(tmp_path, Watch, max_grad_norm=0.1, num_train_epochs=1).train()
    assert norms["on_pre_optimizer_step"] == pytest.approx([0.1] * 4, rel=1e-4)
    assert norms["on_optimizer_step"] == norms["on_pre_optimizer_step"]
    assert norms["on_step_end"] == [0.0] * 4


def test_control_that_a_callback_returns_is_taken(tmp_path: Path) -> None:
    class Replace(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> TrainerControl:
            return TrainerControl(should_training_stop=state.global_step == 2, should_save=True)

    trainer = run(tmp_path, Replace())
    assert trainer.train().global_step == 2
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}


def test_callbacks_ask_for_logs_evaluations_and_checkpoints(tmp_path: Path) -> None:
    class Ask(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            control.should_log = state.global_step == 1
            control.should_evaluate = state.global_step == 2
            control.should_save = state.global_step == 3

    recorder = Recorder()
    never = {"logging_strategy": "no", "save_strategy": "no", "eval_strategy": "no"}
    with pytest.warns(UserWarning, match="metric_for_best_model has no effect here.*only when a callback requests"):
        trainer = run(tmp_path, Ask, recorder, metric=scripted(1), num_train_epochs=1, **never)
    trainer.train()
    seen = [(event, step) for event, step in recorder.events if event in ("log", "evaluate", "save")]
    assert seen == [("log", 1), ("log", 2), ("evaluate", 2), ("save", 3), ("log", 4)]


def test_callbacks_are_added_and_taken_out(tmp_path: Path) -> None:
    first, second = EarlyStoppingCallback(2), Recorder()
    trainer = run(tmp_path, first, second)
    assert trainer.pop_callback(EarlyStoppingCallback) is first
    assert trainer.pop_callback(EarlyStoppingCallback) is None
    trainer.remove_callback(second)
    trainer.add_callback(Recorder)
    added = trainer.pop_callback(Recorder)
    assert isinstance(added, Recorder)
    assert added is not second
    assert trainer.pop_callback(ProgressCallback) is None  # disable_tqdm
    assert isinstance(run(tmp_path, disable_tqdm=False).pop_callback(ProgressCallback), ProgressCallback)


class EndEpochs(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_epoch_stop = state.global_step in (1, 4)


def test_a_callback_ends_an_epoch(tmp_path: Path) -> None:
    """Its other steps count as passed: the run is shorter, and each epoch begins with its own rows."""
    seen: list[list[int]] = []

    class Noting(Trainer):
        def compute_loss(self, logits, labels, rows):
            seen.append(rows.tolist())
            return super().compute_loss(logits, labels, rows)

    recorder = Recorder()
    args = TrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 3, "eval_strategy": "no"}))
    trainer = Noting(small_model(), args, train_dataset=small_dataset(32), callbacks=[EndEpochs, recorder])
    assert trainer.train().global_step == 1 + 3 + 4
    assert trainer.state.epoch == 3
    assert [step for event, step in recorder.events if event == "epoch_end"] == [1, 4, 8]
    whole = []
    for epoch in range(3):
        sampler_rows = np.argsort(np.random.Philox(key=np.array([42, epoch], np.uint64)).random_raw(32), kind="stable")
        whole.append(sampler_rows.reshape(4, 8).tolist())
    assert seen == [*whole[0][:1], *whole[1][:3], *whole[2]]


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_ended_epochs_are_resumed(tmp_path: Path, step: int) -> None:
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs) -> None:
            if state.global_step == step:
                raise InterruptedError

    every = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 3}
    whole = run(tmp_path / "whole", EndEpochs, **every)
    whole.train()
    with pytest.raises(InterruptedError):
        run(tmp_path / "cut", EndEpochs, Interrupt, **every).train()
    again = run(tmp_path / "cut", EndEpochs, **every)
    assert again.train(resume_from_checkpoint=True).global_step == whole.state.global_step
    np.testing.assert_array_equal(weights(again.model), weights(whole.model))


@pytest.mark.parametrize(
    ("patience", "threshold", "greater", "metrics", "epochs"),
    [
        (1, 0.0, True, [1, 2, 2, 9], 3),  # an equal one is no better
        (2, 0.0, True, [1, 2, 1, 3, 2, 1, 9], 6),
        (1, 0.5, True, [1, 2, 2.25, 9], 3),  # better, but by too little
        (2, 0.0, False, [3, 2, 4, 1, 5, 6, 0], 6),
        (3, 0.0, True, [1, 2, 3, 4, 5], 5),  # never
        (1, 0.0, True, [math.nan, 1, 2, math.nan, 9], 4),
    ],
)
def test_early_stopping(
    tmp_path: Path, patience: int, threshold: float, greater: bool, metrics: list[float], epochs: int
) -> None:
    stopping = EarlyStoppingCallback(early_stopping_patience=patience, early_stopping_threshold=threshold)
    trainer = run(
        tmp_path,
        stopping,
        metric=scripted(*metrics),
        num_train_epochs=len(metrics),
        greater_is_better=greater,
        rows=8,
    )
    assert trainer.train().global_step == epochs
    best = (max if greater else min)(value for value in metrics[:epochs] if not math.isnan(value))
    assert trainer.state.best_metric == best


def test_early_stopping_goes_on_where_it_was(tmp_path: Path) -> None:
    """Interrupted after one bad evaluation of two; and what is stopped stays finished."""

    class Interrupt(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs) -> None:
            if state.global_step == 2:
                raise InterruptedError

    fields = {"rows": 8, "num_train_epochs": 9}
    with pytest.raises(InterruptedError):
        run(tmp_path, EarlyStoppingCallback(2), Interrupt, metric=scripted(5, 4), **fields).train()
    trainer = run(tmp_path, EarlyStoppingCallback(2), metric=scripted(3), **fields)
    assert trainer.train(resume_from_checkpoint=True).global_step == 3
    model = tmp_path / "out" / "model.safetensors"
    saved = model.stat().st_ino
    again = run(tmp_path, EarlyStoppingCallback(2), metric=scripted(), **fields)
    assert again.train(resume_from_checkpoint=True).global_step == 3
    assert model.stat().st_ino == saved  # not even written again
    # Stopped, but killed before the end was written: the checkpoint knows.
    (tmp_path / "out" / "trainer_state.json").unlink()
    again = run(tmp_path, EarlyStoppingCallback(2), metric=scripted(), **fields)
    assert again.train(resume_from_checkpoint=True).global_step == 3
    more = run(tmp_path, metric=scripted(3, 3, 3, 3, 3, 3, 3), **(fields | {"num_train_epochs": 10}))
    with pytest.warns(UserWarning, match="num_train_epochs was 9.0 and is now 10.0"):
        assert more.train(resume_from_checkpoint=True).global_step == 10


def test_early_stopping_needs_evaluations(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="eval_strategy is 'no'; expected 'epoch' or 'steps' for EarlyStopping"):
        run(tmp_path, EarlyStoppingCallback).train()
    trainer = run(tmp_path / "2", EarlyStoppingCallback, metric=scripted(1, 0), load_best_model_at_end=False)
    with pytest.warns(UserWarning, match="EarlyStoppingCallback without load_best_model_at_end"):
        trainer.train()


def test_state_tells_what_callbacks_of_transformers_ask(tmp_path: Path) -> None:
    trainer = run(tmp_path, metric=scripted(*range(9)), eval_strategy="steps", eval_steps=0.25, save_steps=0.5)
    trainer.train()
    state = trainer.state
    assert (state.max_steps, state.num_train_epochs, state.eval_steps, state.save_steps) == (8, 2, 2, 4)
    assert state.is_world_process_zero
    assert state.is_local_process_zero
    stored = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert {entry["step"] for entry in stored["log_history"] if "eval_score" in entry} == {2, 4, 6, 8}


def test_what_a_callback_does_to_logs_stays_there(tmp_path: Path) -> None:
    """Those of transformers take entries out before they print."""

    class Take(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs) -> None:
            logs.clear()

    trainer = run(tmp_path, Take)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history] == [4, 8, 8]


class Remembering(TrainerCallback):
    """A callback whose state holds what users keep: the best so far, which begins at infinity."""

    def __init__(self) -> None:
        self.best, self.least, self.last, self.model = math.inf, np.float32(-math.inf), np.float64(0), None
        self.bounds = {"of": [math.inf, (1, -math.inf)], "mean": np.array([0.5, math.inf])}
        self.seen: list[object] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.seen.append((self.best, self.least, self.last, self.model, self.bounds))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.last, self.model = np.float64(state.global_step), object()
        if state.global_step == 6:
            raise InterruptedError

    def state(self) -> dict[str, object]:
        names = ("best", "least", "last", "model", "bounds")
        return {"args": {}, "attributes": {name: getattr(self, name) for name in names}}


def test_a_state_of_a_callback_that_json_has_not_is_kept_or_said(tmp_path: Path) -> None:
    said = pytest.warns(UserWarning, match="model of Remembering is of type object, which a checkpoint cannot hold")
    with said, pytest.raises(InterruptedError):
        run(tmp_path, Remembering).train()
    text = (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
    resumed = run(tmp_path, again := Remembering())
    with pytest.raises(InterruptedError):
        resumed.train(resume_from_checkpoint=True)
    bounds = {"of": [math.inf, [1, -math.inf]], "mean": [0.5, math.inf]}
    assert again.seen == [(math.inf, -math.inf, 4.0, None, bounds)]
