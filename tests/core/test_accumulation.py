"""A batch cut into micro-batches: the same dropout masks, and gradients that add up to those of the batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from support.bert_cases import SMALL, batch_of, gradient, random_rows, wide_model

from kdistill.losses.teacher import distillation_loss
from kdistill.models.classes import BertForSequenceClassification
from kdistill.train.optim import AdamW

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
LENGTHS = [5, 40, 1, 12, 7, 9, 2, 33, 21, 6, 40, 40, 3]
CUTS = {"unequal": [0, 1, 7, 13], "short last group": [0, 5, 10, 13], "rows": list(range(14))}


def model_with_dropout() -> BertForSequenceClassification:
    model = wide_model(**SMALL, **DROPOUT)
    model.optimizer_step = 9
    return model


def accumulate(model: BertForSequenceClassification, cuts: list[int]) -> tuple[list[np.ndarray], float]:
    """Logits of each micro-batch and the loss of them all; gradients are left in the model."""
    ids, types = random_rows(LENGTHS, model.config, seed=5)
    rng = np.random.default_rng(6)
    teacher, labels = rng.standard_normal((len(ids), 2)), rng.integers(0, 2, len(ids))
    model.zero_grad()
    logits, total = [], 0.0
    for first, last in pairwise(cuts):
        logits.append(model.forward(batch_of(ids[first:last], types[first:last]), train=True))
        loss, dlogits = distillation_loss(logits[-1], teacher[first:last], labels[first:last])
        share = (last - first) / len(ids)
        model.backward(dlogits * np.float32(share))
        total += loss * share
    return logits, total


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_micro_batches_add_up_to_the_batch(cuts: list[int]) -> None:
    model = model_with_dropout()
    (whole,), loss = accumulate(model, [0, len(LENGTHS)])
    gradients = model.flat_gradients.copy()
    assert model.tokens_in_step == sum(LENGTHS)
    parts, loss_of_parts = accumulate(model, cuts)
    # The same masks, so the same bits.
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    # The sum over rows is made in another order: some roundings of the largest terms.
    assert loss_of_parts == pytest.approx(loss, rel=1e-12)
    difference = np.linalg.norm(model.flat_gradients - gradients) / np.linalg.norm(gradients)
    assert difference <= 1e-6
    assert model.tokens_in_step == sum(LENGTHS)


def test_masks_move_on_with_tokens_steps_and_seeds() -> None:
    model = model_with_dropout()
    row = [[3, 4, 5, 6, 7]]
    first = model.forward(row, train=True)
    second = model.forward(row, train=True)
    assert model.tokens_in_step == 10
    model.tokens_in_step = 0
    np.testing.assert_array_equal(model.forward(row, train=True), first)
    np.testing.assert_array_equal(model.forward(row, train=True), second)
    changes = {"optimizer_step": 10, "dropout_seed": 8}
    seen = [first, second]
    for name, value in changes.items():
        setattr(model, name, value)
        model.tokens_in_step = 0
        seen.append(model.forward(row, train=True))
    assert len(np.unique(np.concatenate(seen), axis=0)) == 4


def test_rows_of_words_that_somebody_writes_count_from_then_on() -> None:
    """What adds gradients up outside of the core tells it of rows, and these keep the order of their first use."""
    model = wide_model(**SMALL)
    model.backward(np.ones_like(model.forward([[9, 3, 9], [4, 3]], train=True)))
    core = model.trainable_core()
    assert core.touched_rows().tolist() == [9, 3, 4]
    core.touch_rows(np.array([7, 4, 1], np.int32))
    assert core.touched_rows().tolist() == [9, 3, 4, 7, 1]
    before = core.gradient_norm(1)
    words, _ = model.gradients_to_write()
    words[7] = 2
    assert core.gradient_norm(1) == pytest.approx(np.sqrt(before**2 + 4 * words.shape[1]), rel=1e-6)
    with pytest.raises(ValueError, match="the vocabulary has"):
        core.touch_rows(np.array([len(words)], np.int32))
    model.zero_grad()
    assert not core.touched_rows().size
    core.touch_rows(None)
    assert core.touched_rows().tolist() == [*range(len(words))]
    with pytest.raises(RuntimeError, match="frozen"):
        model.freeze().core.touched_rows()


def test_evaluation_does_not_move_the_masks() -> None:
    model = model_with_dropout()
    model.forward([[1, 2]])
    assert model.tokens_in_step == 0


def test_a_step_of_the_optimiser_begins_a_new_batch() -> None:
    model = model_with_dropout()
    optimizer = AdamW(model)
    gradient(model, batch_of([[1, 2]], [[0, 0]]), np.ones((1, 2), np.float32))
    assert (model.optimizer_step, model.tokens_in_step) == (9, 2)
    optimizer.step()
    assert (model.optimizer_step, model.tokens_in_step) == (10, 0)
