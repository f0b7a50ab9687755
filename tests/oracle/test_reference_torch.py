"""The float64 reference of the test suite beside PyTorch in float64: same formulas, so equal to rounding."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers
from support import reference


@pytest.mark.parametrize("activation", [*reference.ACTIVATIONS])
def test_forward(activation: str) -> None:
    config = {**torch_models.ODD, "hidden_act": activation}
    model = torch_models.torch_model(config, std=0.1, seed=11).double()
    ids, types = torch_models.random_rows([1, 20, 3], config, seed=12)
    with torch.inference_mode():
        expected = torch_models.torch_logits(model, ids, types).numpy()
    parameters = {name: p.detach().numpy() for name, p in model.named_parameters()}
    np.testing.assert_allclose(reference.forward(parameters, model.config, ids, types), expected, atol=1e-13)


def test_adamw_and_clipping() -> None:
    rng = np.random.default_rng(13)
    model = torch.nn.ModuleDict({"classifier": torch.nn.Linear(5, 3, dtype=torch.float64)})
    weight, bias = model["classifier"].weight, model["classifier"].bias
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-6)
    given = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    m, v = ({name: np.zeros_like(value) for name, value in given.items()} for _ in range(2))
    for step in range(1, 6):
        gradients = {name: rng.standard_normal(value.shape) for name, value in given.items()}
        for name, p in model.named_parameters():
            p.grad = torch.tensor(gradients[name])
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.5).item()
        optimizer.step()
        our_norm, scale = reference.clip_scale(gradients.values(), 1.5)
        assert our_norm == pytest.approx(norm, rel=1e-14)
        clipped = {name: gradient * scale for name, gradient in gradients.items()}
        reference.adamw_step(given, clipped, m, v, step, lr=1e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(given[name], p.detach().numpy(), atol=1e-14)


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (3, 10)])
def test_linear_schedule(warmup: int, total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    for step in range(total + 2):
        expected = scheduler.get_last_lr()[0]
        assert reference.linear_schedule_with_warmup(step, warmup, total) == pytest.approx(expected, abs=1e-15)
        optimizer.step()
        scheduler.step()


def test_distillation_loss() -> None:
    student, teacher = np.random.default_rng(14).standard_normal((2, 6, 3)) * 5.0
    labels = [0, 2, 1, 1, 0, 2]
    x = torch.tensor(student, requires_grad=True)
    expected = torch_models.torch_distillation_loss(x, torch.tensor(teacher), torch.tensor(labels), 0.3, 2.5)
    expected.backward()
    loss, gradient = reference.distillation_loss(student, teacher, labels, alpha=0.3, temperature=2.5)
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-15)
