"""The moving average of the parameters: in float64 from its formula, late rows included, and through a whole run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bert_cases import SMALL, batch_of, gradient, random_dlogits, random_rows, wide_model
from support.small_run import run_fields, small_dataset, weights
from support.small_run import small_model as trained_model

from kdistill.models.classes import BertForSequenceClassification
from kdistill.system.threads import get_num_threads, set_num_threads
from kdistill.train.arguments import TrainingArguments
from kdistill.train.optim import AdamW, averaged
from kdistill.trainers import Trainer

DECAY = 0.98


def small_model() -> BertForSequenceClassification:
    """Few of its 300 words occur in a step."""
    return wide_model(**(SMALL | {"vocab_size": 300, "num_hidden_layers": 1}))


def train(model: BertForSequenceClassification, optimizer: AdamW, steps: Sequence[int]) -> None:
    """Steps on gradients that depend on nothing but the step; words of one come back many steps later, or never."""
    for step in steps:
        ids, types = random_rows([5, 3], model.config, seed=step % 11)
        optimizer.lr = 0.01 / (1 + step / 20)
        gradient(model, batch_of(ids, types), random_dlogits(model, 2, seed=step))
        optimizer.step()
        optimizer.zero_grad()


def average_of(model: BertForSequenceClassification, optimizer: AdamW) -> NDArray[np.float32]:
    with averaged(optimizer):
        return weights(model)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_the_average_is_that_of_the_formula(weight_decay: float) -> None:
    """A twin without an average is looked at after every step, and what it shows is averaged in float64."""
    model, twin = small_model(), small_model()
    optimizer = AdamW(model, weight_decay=weight_decay, ema_decay=DECAY)
    plain = AdamW(twin, weight_decay=weight_decay)
    expected = weights(twin).astype(np.float64)
    for step in range(150):
        train(model, optimizer, [step])
        train(twin, plain, [step])
        decay = min(DECAY, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(twin)
    np.testing.assert_array_equal(weights(model), weights(twin))  # the average changes nothing of the training
    found = average_of(model, optimizer)
    # Each step rounds the average (1.5 in size) by half a unit, 6e-8, of which 1 / (1 - decay) = 50 are left.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(found - weights(model)).max() > 0.01
    np.testing.assert_array_equal(weights(model), weights(twin))  # it was lent, and given back


@pytest.mark.parametrize("look_every", [1, 7])
def test_looking_in_between_changes_no_bit(look_every: int) -> None:
    """Rows that are read are brought up to date, their averages with them, step by step or many at once."""
    model, looked = small_model(), small_model()
    optimizers = [AdamW(m, weight_decay=0.05, ema_decay=DECAY) for m in (model, looked)]
    for step in range(60):
        train(model, optimizers[0], [step])
        train(looked, optimizers[1], [step])
        if step % look_every == 0:
            assert np.isfinite(average_of(looked, optimizers[1])).all()
            looked.forward([[step, 299 - step]])
    np.testing.assert_array_equal(average_of(model, optimizers[0]), average_of(looked, optimizers[1]))
    np.testing.assert_array_equal(weights(model), weights(looked))


def test_rows_left_alone_for_a_thousand_steps() -> None:
    """Their first moment has run out to nothing; decay and average go on, to within a millionth."""
    model, twin = small_model(), small_model()
    optimizer, plain = AdamW(model, weight_decay=0.1, ema_decay=DECAY), AdamW(twin, weight_decay=0.1)
    expected = weights(twin).astype(np.float64)
    for step in range(1000):
        for m, o in ((model, optimizer), (twin, plain)):
            gradient(m, batch_of([[7 if step == 0 else 1]], [[0]]), np.ones((1, m.config.num_labels), np.float32))
            o.step()
            o.zero_grad()
        decay = min(DECAY, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(twin)
    np.testing.assert_allclose(average_of(model, optimizer), expected, rtol=1e-6, atol=2e-6)


def test_parameters_that_stand_still_are_their_average() -> None:
    model = small_model()
    optimizer = AdamW(model, ema_decay=DECAY)
    start = weights(model)
    for step in range(20):
        optimizer.lr = 0.0
        gradient(model, batch_of([[1, step]], [[0, 0]]), np.ones((1, model.config.num_labels), np.float32))
        optimizer.step()
    np.testing.assert_array_equal(average_of(model, optimizer), start)


def test_the_number_of_threads_changes_no_bit() -> None:
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            model = small_model()
            optimizer = AdamW(model, ema_decay=DECAY)
            train(model, optimizer, range(5))
            results.append(average_of(model, optimizer).tobytes())
    finally:
        set_num_threads(before)
    assert results[1:] == results[:1] * 2


def test_going_on_from_a_state() -> None:
    straight = small_model()
    optimizer = AdamW(straight, ema_decay=DECAY)
    train(straight, optimizer, range(5))
    state, parameters = optimizer.state_dict(), weights(straight)
    train(straight, optimizer, range(5, 12))
    resumed = small_model()
    resumed.load_flat(parameters)
    again = AdamW(resumed, ema_decay=DECAY)
    again.load_state_dict(state)
    train(resumed, again, range(5, 12))
    np.testing.assert_array_equal(average_of(resumed, again), average_of(straight, optimizer))


def test_without_an_average_there_is_none_in_the_state_and_nothing_is_lent() -> None:
    model = small_model()
    optimizer = AdamW(model)
    train(model, optimizer, range(3))
    assert set(optimizer.state_dict()) == {"step", "m", "v"}
    np.testing.assert_array_equal(average_of(model, optimizer), weights(model))
    with averaged(None):
        pass


def test_what_is_refused() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=re.escape("ema_decay is 1.0; expected a number in [0, 1)")):
        AdamW(model, ema_decay=1.0)
    optimizer = AdamW(model, ema_decay=0.5)
    train(model, optimizer, range(2))
    before = average_of(model, optimizer)
    with pytest.raises(ValueError, match="average has 5 values"):
        optimizer.load_state_dict(optimizer.state_dict() | {"average": np.zeros(5, np.float32)})
    np.testing.assert_array_equal(average_of(model, optimizer), before)


# ---- in a run


def run(directory: Path, **changes: object) -> Trainer:
    """A run of four epochs on 24 rows, three steps each, that evaluates and saves after each epoch."""
    fields = run_fields(directory, {"num_train_epochs": 4, "ema_decay": 0.9, "load_best_model_at_end": False} | changes)
    args = TrainingArguments(**fields)  # type: ignore[arg-type]
    return Trainer(trained_model(), args, train_dataset=small_dataset(24), eval_dataset=small_dataset(16, seed=1))


def test_a_run_evaluates_saves_and_ends_with_the_average(tmp_path: Path) -> None:
    """The plain run's checkpoints after every step show what is to be averaged."""
    plain = run(tmp_path / "plain", ema_decay=0.0, save_strategy="steps", save_steps=1)
    expected = weights(plain.model).astype(np.float64)
    plain.train()
    trainer = run(tmp_path / "ema")
    trainer.train()
    for step in range(12):
        checkpoint = tmp_path / "plain" / "out" / f"checkpoint-{step + 1}"
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(BertForSequenceClassification.from_pretrained(checkpoint))
        if step % 3 == 2:
            saved = tmp_path / "ema" / "out" / f"checkpoint-{step + 1}"
            model = BertForSequenceClassification.from_pretrained(saved)
            np.testing.assert_allclose(weights(model), expected, rtol=0, atol=1e-6)
            logged = [e for e in trainer.state.log_history if "eval_loss" in e and e["step"] == step + 1]
            other = Trainer(model, TrainingArguments(output_dir=str(tmp_path), disable_tqdm=True))
            assert other.evaluate(small_dataset(16, seed=1))["eval_loss"] == logged[0]["eval_loss"]
    np.testing.assert_allclose(weights(trainer.model), expected, rtol=0, atol=1e-6)
    kept = BertForSequenceClassification.from_pretrained(tmp_path / "ema" / "out")
    np.testing.assert_array_equal(weights(kept), weights(trainer.model))


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = run(tmp_path)
    straight.train()
    out = tmp_path / "out"
    for name in ("checkpoint-9", "checkpoint-12"):
        shutil.rmtree(out / name)
    (out / "trainer_state.json").unlink()
    resumed = run(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    np.testing.assert_array_equal(weights(resumed.model), weights(straight.model))


def test_the_best_average_is_kept(tmp_path: Path) -> None:
    trainer = run(tmp_path, load_best_model_at_end=True, metric_for_best_model="eval_loss", learning_rate=0.3)
    trainer.train()
    assert trainer.state.best_global_step is not None
    best = tmp_path / "out" / f"checkpoint-{trainer.state.best_global_step}"
    np.testing.assert_array_equal(weights(trainer.model), weights(BertForSequenceClassification.from_pretrained(best)))
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert trainer.evaluate()["eval_loss"] == results["eval_loss"]
