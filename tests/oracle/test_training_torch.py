"""Steps of distillation beside torch.optim.AdamW, clip_grad_norm_ and transformers' schedule, f32 both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers

import kdistill as kd

STEPS, WARMUP_STEPS, BATCH = 20, 4, 12
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 6e-5, 0.01, 2.0
ALPHA, TEMPERATURE = 0.5, 4.0
CONFIG = {**torch_models.BERT_TINY, **torch_models.NO_DROPOUT}


class Step(NamedTuple):
    """The inputs of one step."""

    ids: list[list[int]]
    types: list[list[int]]
    teacher_logits: NDArray[np.float32]
    labels: NDArray[np.int64]


class History(NamedTuple):
    """The losses, norms and weights of a training run."""

    losses: list[float]
    norms: list[float]
    parameters: dict[str, NDArray[np.float32]]


def steps() -> list[Step]:
    """Batches of other rows each, ragged, so that most embedding rows have no gradient in most steps."""
    rng = np.random.default_rng(6)
    given = []
    for step in range(STEPS):
        ids, types = torch_models.random_rows(rng.integers(1, 40, size=BATCH).tolist(), CONFIG, seed=100 + step)
        teacher_logits = rng.normal(scale=3.0, size=(BATCH, 2)).astype(np.float32)
        given.append(Step(ids, types, teacher_logits, rng.integers(2, size=BATCH)))
    return given


def decays(name: str) -> bool:
    """Whether weight decay touches a parameter."""
    return not name.endswith("bias") and "LayerNorm" not in name


def train_torch(model: Any, given: list[Step]) -> History:
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if decays(name)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for name, p in named if not decays(name)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS)
    losses, norms = [], []
    for step in given:
        logits = torch_models.torch_logits(model, step.ids, step.types)
        teacher_logits, labels = torch.tensor(step.teacher_logits), torch.tensor(step.labels)
        loss = torch_models.torch_distillation_loss(logits, teacher_logits, labels, ALPHA, TEMPERATURE)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return History(losses, norms, torch_models.torch_arrays(model))


def train_kdistill(model: kd.BertForSequenceClassification, given: list[Step]) -> History:
    optimizer = kd.AdamW(model, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = kd.get_linear_schedule_with_warmup(WARMUP_STEPS, STEPS)
    losses, norms = [], []
    for count, step in enumerate(given):
        optimizer.lr = LEARNING_RATE * schedule(count)
        logits = model.forward(kd.pack(torch_models.encodings(step.ids, step.types)), train=True)
        loss, dlogits = kd.distillation_loss(logits, step.teacher_logits, step.labels, ALPHA, TEMPERATURE)
        model.backward(dlogits)
        norms.append(kd.clip_grad_norm_(model, MAX_NORM))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    return History(losses, norms, {name: np.array(value) for name, value in model.parameters.items()})


def test_twenty_steps_with_clipping_decay_and_warmup() -> None:
    ours, theirs = torch_models.pair(CONFIG, std=0.06, seed=7)
    start = torch_models.torch_arrays(theirs)
    given = steps()
    expected = train_torch(theirs, given)
    history = train_kdistill(ours, given)

    assert min(expected.norms) < MAX_NORM < max(expected.norms), "some steps must be clipped and some not"
    np.testing.assert_allclose(history.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(history.norms, expected.norms, rtol=1e-4)
    for name, value in history.parameters.items():
        if name.endswith("self.key.bias"):  # AdamW turns the rounding noise of a zero gradient into steps
            continue
        assert np.abs(expected.parameters[name] - start[name]).max() > 1e-4, name
        assert np.abs(value - expected.parameters[name]).max() <= 1e-5, name
