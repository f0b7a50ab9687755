"""Every named gradient beside PyTorch's, f32 both, without dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
from support import reference

import kdistill as kd

ALPHA, TEMPERATURE = 0.5, 4.0
LENGTHS = [1, 2, 7, 31, 64, 128, 5, 17]
MIDDLE = {
    "num_hidden_layers": 3,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 2000,
}


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        (torch_models.BERT_TINY, "gelu"),
        (torch_models.BERT_TINY, "relu"),
        (torch_models.ODD, "gelu_new"),
        (torch_models.ODD, "gelu"),
        (MIDDLE, "gelu"),
        *((torch_models.ODD, name) for name in reference.ACTIVATIONS if name not in ("gelu", "gelu_new")),
    ],
)
def test_named_gradients_of_the_distillation_loss(config: Mapping[str, Any], activation: str) -> None:
    config = {**config, **torch_models.NO_DROPOUT, "hidden_act": activation}
    ours, theirs = torch_models.pair(config, std=0.06, seed=3)
    ids, types = torch_models.random_rows(LENGTHS, config, seed=4)
    rng = np.random.default_rng(5)
    teacher_logits = rng.normal(scale=3.0, size=(len(ids), ours.config.num_labels)).astype(np.float32)
    labels = rng.integers(ours.config.num_labels, size=len(ids))

    expected_loss = torch_models.torch_distillation_loss(
        torch_models.torch_logits(theirs, ids, types),
        torch.tensor(teacher_logits),
        torch.tensor(labels),
        ALPHA,
        TEMPERATURE,
    )
    expected_loss.backward()
    logits = ours.forward(kd.pack(torch_models.encodings(ids, types)), train=True)
    loss, dlogits = kd.distillation_loss(logits, teacher_logits, labels, alpha=ALPHA, temperature=TEMPERATURE)
    ours.zero_grad()
    ours.backward(dlogits)

    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in expected.items()}
    assert set(ours.gradients) == set(expected)
    for name, gradient in ours.gradients.items():
        if name.endswith("self.key.bias"):  # truly zero: the softmax does not see it
            assert np.linalg.norm(gradient) <= 1e-4 * norms[name.replace(".key.", ".query.")], name
        else:
            assert norms[name] > 0.0, name
            assert np.linalg.norm(gradient - expected[name]) <= 1e-4 * norms[name], name
