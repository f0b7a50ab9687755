"""Parameters beside a model: updated in its optimiser's step by the same formula, clipped with it, kept with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.small_run import small_dataset, small_model

from kdistill.train.auxiliary import Auxiliary
from kdistill.train.optim import AdamW, clip_grad_norm_


def matrices(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"a": random.standard_normal((3, 5)).astype(np.float32), "b": random.standard_normal((7, 2)).astype("f4")}


def optimizer_of(auxiliary: Auxiliary | None, **settings: float) -> AdamW:
    return AdamW(small_model(), lr=0.1, weight_decay=0.2, auxiliary=auxiliary, **settings)


def gradients(auxiliary: Auxiliary, seed: int) -> dict[str, np.ndarray]:
    found = matrices(seed)
    for name, view in auxiliary.gradients.items():
        view[:] = found[name]
    return found


def model_gradients(optimizer: AdamW) -> None:
    batch, _ = small_dataset(4).batch(np.arange(4))
    logits = optimizer.model.forward(batch, train=True)
    optimizer.model.backward(np.ones_like(logits))


def test_steps_are_those_of_the_formula_at_the_own_learning_rate() -> None:
    auxiliary = Auxiliary(matrices(), learning_rate=0.5)
    optimizer = optimizer_of(auxiliary)
    p = {name: value.astype(np.float64) for name, value in matrices().items()}
    moments = {name: (np.zeros(value.shape), np.zeros(value.shape)) for name, value in p.items()}
    for t in range(1, 5):
        g = gradients(auxiliary, t)
        model_gradients(optimizer)
        optimizer.step()
        assert not any(view.any() for view in auxiliary.gradients.values()), "they go with the step"
        optimizer.zero_grad()
        for name in p:
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * g[name], 0.999 * v + 0.001 * g[name].astype(float) ** 2
            p[name] = p[name] * (1 - 0.05 * 0.2) - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            moments[name] = m, v
            np.testing.assert_allclose(auxiliary.parameters[name], p[name], rtol=0, atol=2e-6)


def test_clipping_takes_one_norm_of_both() -> None:
    auxiliary = Auxiliary(matrices())
    optimizer = optimizer_of(auxiliary)
    g = gradients(auxiliary, 1)
    model_gradients(optimizer)
    own = optimizer.model.flat_gradients.copy()
    norm = math.sqrt(sum(float(np.square(part, dtype=float).sum()) for part in (own, *g.values())))
    assert clip_grad_norm_(optimizer.model, 0.5, auxiliary=auxiliary) == pytest.approx(norm, rel=1e-6)
    factor = 0.5 / (norm + 1e-6)
    np.testing.assert_allclose(optimizer.model.flat_gradients, own * factor, rtol=1e-6)
    np.testing.assert_allclose(auxiliary.gradients["b"], g["b"] * factor, rtol=1e-6)


def test_a_step_that_fails_leaves_them_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    auxiliary = Auxiliary(matrices())
    optimizer = optimizer_of(auxiliary)
    gradients(auxiliary, 1)
    model_gradients(optimizer)
    optimizer.step()
    before = {name: value.copy() for name, value in auxiliary.parameters.items()}
    state, g = auxiliary.state_dict(), gradients(auxiliary, 2)
    monkeypatch.setattr(optimizer, "_history", np.zeros((0, 0), np.float32))  # which the core refuses
    with pytest.raises(ValueError, match="history"):
        optimizer.step()
    assert optimizer.steps_done == 1
    for name, value in before.items():
        np.testing.assert_array_equal(auxiliary.parameters[name], value)
        np.testing.assert_array_equal(auxiliary.gradients[name], g[name])
    for name, value in auxiliary.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_state_goes_on_with_the_same_bits(steps: int) -> None:
    first = optimizer_of(Auxiliary(matrices()), ema_decay=0.5)
    for t in range(steps):
        gradients(first.auxiliary, t)
        model_gradients(first)
        first.step()
        first.zero_grad()
    second = optimizer_of(Auxiliary(matrices(9)), ema_decay=0.5)
    second.model.load_flat(first.model.flat_parameters)
    second.load_state_dict(first.state_dict())
    second.model.optimizer_step = first.model.optimizer_step
    for optimizer in (first, second):
        gradients(optimizer.auxiliary, 7)
        model_gradients(optimizer)
        optimizer.step()
    for name, value in first.auxiliary.parameters.items():
        np.testing.assert_array_equal(second.auxiliary.parameters[name], value)


def test_gradients_that_a_step_has_read_do_not_come_back_with_an_earlier_state() -> None:
    optimizer = optimizer_of(Auxiliary(matrices()))
    start = optimizer.state_dict()
    gradients(optimizer.auxiliary, 1)
    model_gradients(optimizer)
    optimizer.step()
    optimizer.load_state_dict(start)
    assert not any(view.any() for view in optimizer.auxiliary.gradients.values())


def test_a_state_of_other_parameters_is_refused() -> None:
    state = optimizer_of(Auxiliary(matrices())).state_dict()
    with pytest.raises(ValueError, match="state has parameters beside the model, and the other has none"):
        optimizer_of(None).load_state_dict(state)
    with pytest.raises(ValueError, match="this optimiser has parameters beside the model, and the other has none"):
        optimizer_of(Auxiliary(matrices())).load_state_dict(optimizer_of(None).state_dict())
    with pytest.raises(ValueError, match=r"parameters has shape \(29,\); expected \(15,\), as matches are"):
        optimizer_of(Auxiliary({"a": matrices()["a"]})).load_state_dict(state)


def test_they_are_read_only_from_outside() -> None:
    auxiliary = Auxiliary(matrices())
    with pytest.raises(ValueError, match="read-only"):
        auxiliary.parameters["a"][0, 0] = 1
