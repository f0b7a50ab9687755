"""`Training` without a trainer around it: the loop with an objective, a plan, callbacks and checkpoints of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model, weights

from kdistill.losses.labels import cross_entropy
from kdistill.models.classes import BertForSequenceClassification
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import CallbackHandler, DefaultFlowCallback, Events, TrainerCallback
from kdistill.train.loop import Training, best_metric, training_step
from kdistill.train.objective import BatchLoss, LossPart
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.train.plan import EpochPlan
from kdistill.train.state import TrainerState

ROWS, SIZE = 29, 8
STEPS_PER_EPOCH = 4


class Saved:
    """Checkpoints that keep the step and the weights of each."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.weights: list[np.ndarray] = []

    def begin(self) -> None:
        pass

    def save(self, optimizer: AdamW, state: TrainerState) -> None:
        self.steps.append(state.global_step)
        self.weights.append(weights(optimizer.model))


class Composed:
    """A training of 29 rows in steps of 8, two epochs unless `changes` ask for others, and what it logs."""

    def __init__(self, directory: Path, *callbacks: TrainerCallback, **changes: Any) -> None:
        self.args = TrainingArguments(**run_fields(directory, changes))
        self.optimizer = AdamW(small_model(), lr=0.0)
        self.state = TrainerState()
        self.logs: list[dict[str, float]] = []
        self.plan = EpochPlan(ROWS, batch_size=SIZE, accumulation=1, drop_last=False, seed=self.args.get_data_seed())
        max_steps = self.plan.max_steps(self.args.num_train_epochs, self.args.max_steps)
        self.state.set_length(self.args, max_steps, self.plan.steps_per_epoch)
        self.events = Events(CallbackHandler([DefaultFlowCallback, *callbacks]), self.args, self.state)

    def run(self, **given: Any) -> None:
        parts = {"evaluate": None, "loss": lambda logits, labels, rows: BatchLoss(*cross_entropy(logits, labels), [])}
        Training(
            self.optimizer,
            small_dataset(ROWS),
            self.plan,
            self.state,
            self.args,
            log=self.logs.append,
            events=self.events,
            **(parts | given),
        ).run()


def by_hand(seed: int, steps: int) -> BertForSequenceClassification:
    """The model after so many of 8 steps, trained by lines written out."""
    model, dataset = small_model(), small_dataset(ROWS)
    optimizer = AdamW(model)
    for step in range(steps):
        random = np.random.Philox(key=np.array([seed, step // STEPS_PER_EPOCH], np.uint64)).random_raw(ROWS)
        first = step % STEPS_PER_EPOCH * SIZE
        optimizer.lr = 0.01 * (8 - step) / 8
        batch, labels = dataset.batch(np.argsort(random, kind="stable")[first : first + SIZE])
        model.backward(cross_entropy(model.forward(batch, train=True), labels)[1])
        clip_grad_norm_(model, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_the_loop_alone_trains_as_lines_written_out(tmp_path: Path) -> None:
    composed, saved = Composed(tmp_path, save_strategy="steps", save_steps=3, eval_strategy="no"), Saved()
    composed.run(checkpoints=saved)
    assert (composed.state.global_step, composed.state.epoch, composed.state.stopped) == (8, 2.0, False)
    assert saved.steps == [3, 6, 8]
    for step, found in zip(saved.steps, saved.weights, strict=True):
        np.testing.assert_array_equal(found, weights(by_hand(composed.args.seed, step)))


def test_a_loop_goes_on_where_the_state_is(tmp_path: Path) -> None:
    """Two steps in a first loop and six in a second one, with another state that has passed as many."""

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = state.global_step == 2

    first = Composed(tmp_path, Stop(), eval_strategy="no")
    first.run()
    assert first.state.stopped
    second = Composed(tmp_path, eval_strategy="no")
    second.optimizer = first.optimizer
    second.state.global_step = 2
    second.run()
    assert second.state.global_step == 8
    np.testing.assert_array_equal(weights(second.optimizer.model), weights(by_hand(second.args.seed, 8)))


def test_evaluations_choose_what_is_saved(tmp_path: Path) -> None:
    values, saved = iter([3.0, 1.0, 2.0, 0.5]), Saved()
    composed = Composed(
        tmp_path,
        num_train_epochs=4,
        save_strategy="best",
        load_best_model_at_end=False,
        metric_for_best_model="loss",
    )
    composed.run(evaluate=lambda: {"eval_loss": next(values)}, checkpoints=saved)
    assert saved.steps == [4, 8, 16]
    assert (composed.state.best_metric, composed.state.best_global_step) == (0.5, 16)


def test_without_checkpoints_and_evaluations_nobody_is_asked_for_them(tmp_path: Path) -> None:
    class Ask(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            control.should_save = control.should_evaluate = True

        def on_save(self, args, state, control, **kwargs) -> None:
            raise AssertionError("nothing was saved")

    composed = Composed(tmp_path, Ask(), eval_strategy="no")
    composed.run()
    assert composed.state.global_step == 8
    assert not composed.events.control.should_save


def test_an_evaluation_before_the_first_step_needs_rows(tmp_path: Path) -> None:
    composed = Composed(tmp_path, eval_strategy="no", eval_on_start=True)
    with pytest.raises(ValueError, match="eval_dataset is None; expected rows to evaluate on"):
        composed.run()
    assert composed.state.global_step == 0
    evaluated = []
    composed.run(evaluate=lambda: evaluated.append(composed.state.global_step) or {"eval_loss": 1.0})
    assert (evaluated, composed.state.global_step) == ([0], 8)


def test_parts_of_the_loss_are_means_over_rows(tmp_path: Path) -> None:
    """Logged once an epoch: the mean over its steps of each step's mean over the rows that have the part."""
    seen: list[tuple[float, int]] = []

    def loss(logits: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> BatchLoss:
        even = rows[rows % 2 == 0].astype(float)
        mean = even.mean() if len(even) else 0.0
        seen.append((mean, len(even)))
        return BatchLoss(*cross_entropy(logits, labels), [LossPart("even", mean, len(even))])

    composed = Composed(tmp_path, eval_strategy="no", per_device_train_batch_size=3)
    composed.run(loss=loss)
    assert len(seen) == 2 * (3 + 3 + 3 + 2)  # micro-batches of 3, 3 and 2 rows; the last step has 5 rows
    for epoch in range(2):
        micro = seen[11 * epoch : 11 * epoch + 11]
        steps = [micro[0:3], micro[3:6], micro[6:9], micro[9:11]]
        means = [sum(mean * n for mean, n in step) / sum(n for _, n in step) for step in steps]
        assert composed.logs[epoch]["even"] == pytest.approx(np.mean(means), rel=1e-12)


def test_a_part_that_no_row_of_a_step_has_is_absent() -> None:
    optimizer = AdamW(small_model(), lr=0.0)
    step = training_step(
        optimizer,
        small_dataset(8),
        np.arange(8),
        batch_size=4,
        max_grad_norm=1.0,
        loss=lambda logits, labels, rows: BatchLoss(
            *cross_entropy(logits, labels),
            [LossPart("never", 0.0, 0), LossPart("once", 5.0, int(rows[0] == 0)), LossPart("all", float(rows[0]), 4)],
        ),
        on_event=lambda name: None,
    )
    assert step.parts == {"once": 5.0, "all": 2.0}


def test_the_metric_that_chooses_has_its_prefix_or_not() -> None:
    for name in ("score", "eval_score"):
        assert best_metric({"eval_score": 3.0}, TrainingArguments(metric_for_best_model=name)) == 3.0
    with pytest.raises(ValueError, match="metric_for_best_model is 'f1'; the evaluation gives eval_score"):
        best_metric({"eval_score": 3.0}, TrainingArguments(metric_for_best_model="f1"))
