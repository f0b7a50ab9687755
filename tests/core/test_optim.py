"""AdamW, clipping and the schedule against the float64 reference, over many steps; and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.bert_cases import SMALL, batch_of, exact, gradient, random_dlogits, random_rows, wide_model

from kdistill import _core
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.parameters import TensorViews
from kdistill.system.threads import get_num_threads, set_num_threads
from kdistill.train.optim import AdamW, clip_grad_norm_
from kdistill.train.schedules import get_linear_schedule_with_warmup

WORDS = "bert.embeddings.word_embeddings.weight"
STEPS = 25


def small_model(**changes: Any) -> BertForSequenceClassification:
    """Few of its 300 words occur in a step."""
    return wide_model(**(SMALL | {"vocab_size": 300, "num_hidden_layers": 1} | changes))


def fill_gradients(model: BertForSequenceClassification, step: int, scale: float = 1.0) -> None:
    """A pass of two rows of the step's own; words of one step come back many steps later."""
    ids, types = random_rows([5, 3], model.config, seed=step % 11)
    gradient(model, batch_of(ids, types), np.float32(scale) * random_dlogits(model, 2, seed=step))


def named(model: BertForSequenceClassification, flat: NDArray[np.float32]) -> dict[str, reference.Array]:
    return {name: view.astype(np.float64) for name, view in TensorViews(flat, model.layout).items()}


class Reference:
    """The same training in float64, fed with the core's gradients."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.parameters = exact(model)
        self.m = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.steps = 0

    def step(self, model: BertForSequenceClassification, max_norm: float, **constants: Any) -> float:
        gradients = named(model, model.flat_gradients)
        norm, scale = reference.clip_scale(gradients.values(), max_norm)
        self.steps += 1
        scaled = {name: value * scale for name, value in gradients.items()}
        reference.adamw_step(self.parameters, scaled, self.m, self.v, self.steps, **constants)
        return norm


@pytest.mark.parametrize(
    "constants",
    [{}, {"weight_decay": 0.1}, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.01}, {"betas": (0.0, 0.0)}],
    ids=str,
)
def test_steps_with_clipping_decay_and_schedule(constants: dict[str, Any]) -> None:
    model = small_model()
    optimizer, other = AdamW(model, **constants), Reference(model)
    schedule = get_linear_schedule_with_warmup(5, STEPS + 3)
    start = model.flat_parameters.copy()
    for step in range(STEPS):
        fill_gradients(model, step, scale=10.0 ** (step % 3 - 1))
        optimizer.lr = 0.01 * schedule(step)
        max_norm = 2.0
        norm = other.step(model, max_norm, lr=optimizer.lr, **constants)
        # A sum of squares in float32 lanes of 1024, then in double.
        assert clip_grad_norm_(model, max_norm) == pytest.approx(norm, rel=1e-6)
        optimizer.step()
    found, moments = named(model, model.flat_parameters), optimizer.state_dict()
    assert moments["step"] == STEPS
    # Each of 25 steps rounds p (1.5 in size) by half a unit, 6e-8, and has an update (at most 0.01) correct to 2e-6.
    for name, expected in other.parameters.items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-6, err_msg=name)
    # Moments are weighted sums of rounded terms: to the rounding of the largest. The weight 1 - 0.999 is the
    # difference of rounded numbers and 1.3e-5 off; the division by 1 - beta^t takes that out again.
    for key, moment, tolerance in (("m", other.m, 1e-6), ("v", other.v, 2e-5)):
        for name, view in named(model, moments[key]).items():
            expected = moment[name]
            np.testing.assert_allclose(view, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)
    assert np.abs(model.flat_parameters - start).max() > 0.05


def test_decay_is_for_matrices_alone() -> None:
    model = small_model()
    start = exact(model)
    gradient(model, batch_of([[1, 2]], [[0, 0]]), np.zeros((1, 2), np.float32))
    AdamW(model, lr=0.1, weight_decay=0.5).step()
    for name, value in exact(model).items():
        assert reference.decays(name) == (value.ndim == 2)
        expected = start[name].astype(np.float32) * np.float32(0.95 if value.ndim == 2 else 1.0)
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_a_constant_gradient_moves_a_parameter_by_lr_in_every_step() -> None:
    """m / (1 - b1^t) is g and v / (1 - b2^t) is g^2 then, whatever t; from 0 on, no rounding of p hides an error."""
    p, m, v = np.zeros((3, 20), np.float32)
    g = np.linspace(-3, 3, 20, dtype=np.float32)
    for t in range(1, 41):
        _core.adamw(p, g, m, v, (0.5, 0.9, 0.999, 0.0, 0.0), t, 1)
        # Moments of 40 steps carry as many roundings, half of which go each way.
        np.testing.assert_allclose(p, -0.5 * t * np.sign(g), rtol=1e-6)


def dense_steps(
    model: BertForSequenceClassification, gradients: list[NDArray[np.float32]], lrs: list[float], weight_decay: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Word embeddings and their moments when every row takes part in every step."""
    size = int(np.prod(model.parameters[WORDS].shape))
    p = model.parameters[WORDS].ravel().copy()
    m, v = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        _core.adamw(p, g, m, v, (lr, 0.9, 0.999, 1e-8, weight_decay), t, 1)
    return p, m, v


@pytest.mark.parametrize("look_every", [1, 7, 1000])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_rows_moved_late_have_the_bits_of_rows_moved_in_time(weight_decay: float, look_every: int) -> None:
    """Looking at parameters or evaluating in between brings rows up to date, and must not change them."""
    model = small_model()
    optimizer = AdamW(model, weight_decay=weight_decay)
    gradients, lrs = [], []
    untrained = small_model()
    for step in range(40):
        fill_gradients(model, step)
        optimizer.lr = 0.01 / (1 + step)
        lrs.append(optimizer.lr)
        gradients.append(model.gradients[WORDS].ravel().copy())
        optimizer.step()
        if step % look_every == look_every - 1:
            assert np.isfinite(model.flat_parameters).all()
            model.forward([[step, 299 - step]])
    p, m, v = dense_steps(untrained, gradients, lrs, weight_decay)
    assert any(not g.reshape(300, -1)[row].any() for row in range(300) for g in gradients[:1])
    np.testing.assert_array_equal(model.parameters[WORDS].ravel(), p)
    state = optimizer.state_dict()
    np.testing.assert_array_equal(TensorViews(state["m"], model.layout)[WORDS].ravel(), m)
    np.testing.assert_array_equal(TensorViews(state["v"], model.layout)[WORDS].ravel(), v)


def test_rows_left_alone_for_a_thousand_steps() -> None:
    """The first moment has run out to nothing long before: from then on only the decay goes on."""
    model = small_model(hidden_size=4, num_attention_heads=2, intermediate_size=4)
    optimizer, untrained = AdamW(model, lr=1e-3, weight_decay=0.01), exact(model)
    gradients = []
    for step in range(1000):
        gradient(model, batch_of([[7 if step == 0 else 1]], [[0]]), np.ones((1, 2), np.float32))
        gradients.append(model.gradients[WORDS].ravel().copy())
        optimizer.step()
    other = small_model(hidden_size=4, num_attention_heads=2, intermediate_size=4)
    np.testing.assert_array_equal(exact(other)[WORDS], untrained[WORDS])
    p, m, v = dense_steps(other, gradients, [1e-3] * 1000, 0.01)
    state = optimizer.state_dict()
    # What is cut off is below the smallest normal number; its steps are far below half a unit of any parameter.
    np.testing.assert_array_equal(model.parameters[WORDS].ravel(), p)
    np.testing.assert_allclose(TensorViews(state["m"], model.layout)[WORDS].ravel(), m, rtol=0, atol=1.2e-38)
    np.testing.assert_array_equal(TensorViews(state["v"], model.layout)[WORDS].ravel(), v)


def test_logits_after_a_step_are_those_of_all_rows_moved() -> None:
    """A word that had no gradient moves too, and the next pass that reads it sees it where it belongs."""
    model = small_model()
    optimizer = AdamW(model, lr=0.01)
    for step in range(3):
        fill_gradients(model, step)
        optimizer.step()
    late = model.forward([[0, 100, 200], [299]])
    fresh = small_model(seed=1)
    fresh.load_flat(model.flat_parameters)
    np.testing.assert_array_equal(fresh.forward([[0, 100, 200], [299]]), late)


def test_the_number_of_threads_changes_no_bit() -> None:
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 5):
            set_num_threads(threads)
            model = small_model(hidden_size=60, num_attention_heads=2, intermediate_size=300)
            optimizer = AdamW(model, weight_decay=0.1)
            norms = []
            for step in range(3):
                fill_gradients(model, step)
                norms.append(clip_grad_norm_(model, 0.5))
                optimizer.step()
            state = optimizer.state_dict()
            results.append((norms, model.flat_parameters.tobytes(), state["m"].tobytes(), state["v"].tobytes()))
    finally:
        set_num_threads(before)
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("new_model", [False, True])
def test_going_on_from_a_state_is_the_same_to_the_bit(new_model: bool) -> None:
    def train(model: BertForSequenceClassification, optimizer: AdamW, steps: range) -> None:
        for step in steps:
            fill_gradients(model, step)
            optimizer.step()

    straight = small_model(hidden_dropout_prob=0.1)
    train(straight, AdamW(straight, weight_decay=0.1), range(12))

    model = small_model(hidden_dropout_prob=0.1)
    optimizer = AdamW(model, weight_decay=0.1)
    train(model, optimizer, range(5))
    state, parameters = optimizer.state_dict(), model.flat_parameters.copy()
    train(model, optimizer, range(5, 7))  # a state is a copy: going on does not change it
    resumed = small_model(seed=99, hidden_dropout_prob=0.1) if new_model else model
    resumed.load_flat(parameters)
    resumed.dropout_seed, resumed.optimizer_step = straight.dropout_seed, 5
    again = AdamW(resumed, weight_decay=0.1) if new_model else optimizer
    again.load_state_dict(state)
    train(resumed, again, range(5, 12))
    np.testing.assert_array_equal(resumed.flat_parameters, straight.flat_parameters)


def test_a_state_is_for_the_steps_to_come() -> None:
    """Rows that were still to be moved are moved by what the optimiser was when the steps were taken."""
    models = [small_model(), small_model()]
    optimizers = [AdamW(model, weight_decay=0.1) for model in models]
    state = optimizers[0].state_dict()
    for step in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            fill_gradients(model, step)
            optimizer.step()
    optimizers[0].load_state_dict(state)
    np.testing.assert_array_equal(models[0].flat_parameters, models[1].flat_parameters)


def test_the_state_before_the_first_step() -> None:
    model = small_model()
    optimizer = AdamW(model)
    state = optimizer.state_dict()
    assert (state["step"], state["m"].size, state["v"].size) == (0, 0, 0)
    optimizer.load_state_dict(state)
    fill_gradients(model, 0)
    optimizer.step()
    assert optimizer.state_dict()["m"].shape == model.flat_parameters.shape


class Interrupted:
    """A core whose step is disturbed by a signal, which is answered before the step begins or when it has ended."""

    def __init__(self, core: _core.Model, done: bool) -> None:
        self._core, self._done = core, done

    def adamw_step(self, *arguments: Any) -> None:
        if self._done:
            self._core.adamw_step(*arguments)
        raise KeyboardInterrupt


def interrupted_step(optimizer: AdamW, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = Interrupted(optimizer.model.trainable_core(), done)
    with monkeypatch.context() as disturbed:
        disturbed.setattr(optimizer.model, "trainable_core", lambda: interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()


@pytest.mark.parametrize("done", [False, True])
def test_an_interrupted_step_is_done_and_counted_or_neither(done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, twin = small_model(), small_model()
    optimizer, twins = AdamW(model), AdamW(twin)
    for step in range(6):
        for each in (model, twin):
            fill_gradients(each, step)
        twins.step()
        if step == 3:
            interrupted_step(optimizer, done, monkeypatch)
            assert model.tokens_in_step == (0 if done else 8)
        if step != 3 or not done:
            optimizer.step()
        assert (model.optimizer_step, model.tokens_in_step) == (twin.optimizer_step, 0) == (step + 1, 0)
    state, expected = optimizer.state_dict(), twins.state_dict()
    assert state["step"] == expected["step"] == 6
    for name in ("m", "v"):
        np.testing.assert_array_equal(state[name], expected[name])
    np.testing.assert_array_equal(model.flat_parameters, twin.flat_parameters)


def test_a_state_of_another_model_is_refused() -> None:
    model = small_model()
    optimizer = AdamW(model)
    fill_gradients(model, 0)
    optimizer.step()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=f"v has 5 values; this model's optimiser has {model.flat_parameters.size}"):
        optimizer.load_state_dict(state | {"step": 3, "v": np.zeros(5, np.float32)})
    after = optimizer.state_dict()
    assert after["step"] == 1
    np.testing.assert_array_equal(after["m"], state["m"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1e-3}, "lr is -0.001; expected a finite number of at least 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"betas": (1.0, 0.9)}, "betas[0] is 1.0; expected a number in [0, 1)"),
        ({"betas": (0.9, -0.1)}, "betas[1] is -0.1"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        AdamW(small_model(), **arguments)


def test_parameters_in_place_of_the_model() -> None:
    model = small_model()
    with pytest.raises(TypeError, match=r"^model is a generator; expected the model itself, not its parameters"):
        AdamW((view for _, view in model.named_parameters()), lr=0.1)  # type: ignore[arg-type]


def test_a_frozen_model_has_no_optimizer() -> None:
    model = small_model()
    optimizer = AdamW(model)
    fill_gradients(model, 0)
    optimizer.step()
    model.freeze()
    with pytest.raises(RuntimeError, match="the model is frozen"):
        AdamW(model)
    with pytest.raises(RuntimeError, match="the model is frozen"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="the model is frozen"):
        clip_grad_norm_(model, 1.0)


# ---- clipping


def test_clipping_brings_the_norm_down_and_leaves_small_ones_alone() -> None:
    model = small_model(num_labels=16)  # sixteen floats at the end of the flat array, and none that only fill it up
    fill_gradients(model, 0)
    before = model.flat_gradients.copy()
    norm = float(np.linalg.norm(before.astype(np.float64)))
    assert clip_grad_norm_(model, 2 * norm) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(model.flat_gradients, before)
    assert clip_grad_norm_(model, norm / 3) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_allclose(model.flat_gradients, before / 3, rtol=1e-5)  # the 1e-6 in the divisor
    assert clip_grad_norm_(model, 1e9) == pytest.approx(norm / 3, rel=1e-5)


def test_clipping_of_no_gradients() -> None:
    assert clip_grad_norm_(small_model(), 1.0) == 0


@pytest.mark.parametrize("max_norm", [0.0, -1.0, float("nan")])
def test_a_norm_to_clip_at_is_above_zero(max_norm: float) -> None:
    model = small_model()
    fill_gradients(model, 0)
    before = model.flat_gradients.copy()
    with pytest.raises(ValueError, match=f"max_norm is {max_norm}; expected a number above 0"):
        clip_grad_norm_(model, max_norm)
    np.testing.assert_array_equal(model.flat_gradients, before)


def test_clearing_gradients_clears_nan() -> None:
    model = small_model()
    gradient(model, batch_of([[1, 2]], [[0, 0]]), np.full((1, 2), np.nan, np.float32))
    assert np.isnan(model.flat_gradients).any()
    model.zero_grad()
    assert not model.flat_gradients.any()


# ---- schedule


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10), (12, 10), (0, 0), (1, 1)])
def test_linear_schedule(warmup: int, total: int) -> None:
    schedule = get_linear_schedule_with_warmup(warmup, total)
    for step in range(15):
        assert schedule(step) == reference.linear_schedule_with_warmup(step, warmup, total)


def test_linear_schedule_at_known_points() -> None:
    schedule = get_linear_schedule_with_warmup(2, 6)
    assert [schedule(step) for step in range(8)] == [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0]
