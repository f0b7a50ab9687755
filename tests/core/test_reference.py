"""The reference's own sanity: identities, finite differences and hand-computed values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from support import reference


@dataclass(frozen=True)
class Config:
    num_hidden_layers: int = 2
    num_attention_heads: int = 3
    hidden_size: int = 12
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12


ROWS = [[2, 5, 7, 3], [2, 3], [2, 9, 9, 1, 4, 3]]
SHAPES = reference.parameter_shapes(
    hidden_size=12,
    num_hidden_layers=2,
    intermediate_size=20,
    vocab_size=11,
    max_position_embeddings=8,
    type_vocab_size=2,
    num_labels=3,
)


def parameters(seed: int = 0) -> dict[str, reference.Array]:
    return reference.random_parameters(SHAPES, std=0.3, seed=seed)


def test_activations_at_known_points() -> None:
    x = np.array([-1.0, 0.0, 1.0, 8.0])
    phi = np.array([0.15865525393145707, 0.5, 0.8413447460685429, 1.0])
    np.testing.assert_allclose(reference.gelu(x), x * phi, rtol=1e-14)
    np.testing.assert_allclose(reference.gelu_new(x), x * phi, atol=5e-4)
    assert not np.allclose(reference.gelu_new(x), x * phi, atol=1e-6)
    np.testing.assert_array_equal(reference.relu(x), [0.0, 0.0, 1.0, 8.0])


def test_softmax_of_large_values_is_finite_and_sums_to_one() -> None:
    x = np.array([[1e4, -1e4, 1e4 - 1.0], [-1e4, -1e4, -1e4]])
    np.testing.assert_allclose(reference.softmax(x).sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(reference.softmax(x)[0, 0], 1.0 / (1.0 + math.exp(-1.0)), rtol=1e-14)
    np.testing.assert_allclose(np.exp(reference.log_softmax(x)), reference.softmax(x), rtol=1e-13)


def test_layer_norm_normalises() -> None:
    x = np.random.default_rng(0).standard_normal((5, 7)) * 3.0 + 2.0
    y = reference.layer_norm(x, np.ones(7), np.zeros(7), 0.0)
    np.testing.assert_allclose(y.mean(axis=1), 0.0, atol=1e-14)
    np.testing.assert_allclose((y**2).mean(axis=1), 1.0, rtol=1e-13)


def test_attention_with_equal_keys_is_the_mean_of_the_values() -> None:
    rng = np.random.default_rng(1)
    q, v = rng.standard_normal((2, 5, 6))
    k = np.tile(rng.standard_normal(6), (5, 1))
    np.testing.assert_allclose(reference.attention(q, k, v, heads=2), np.tile(v.mean(axis=0), (5, 1)), rtol=1e-12)


def test_attention_heads_are_independent() -> None:
    q, k, v = np.random.default_rng(2).standard_normal((3, 5, 6))
    both = reference.attention(q, k, v, heads=2)
    right = reference.attention(q[:, 3:], k[:, 3:], v[:, 3:], heads=1)
    np.testing.assert_allclose(both[:, 3:], right, rtol=1e-14)


def test_a_row_has_the_same_logits_alone_and_in_a_batch() -> None:
    together = reference.forward(parameters(), Config(), ROWS)
    alone = [reference.forward(parameters(), Config(), [row])[0] for row in ROWS]
    assert together.shape == (3, 3)
    np.testing.assert_array_equal(together, alone)


def test_positions_and_types_matter() -> None:
    logits = reference.forward(parameters(), Config(), [[2, 5, 7, 3]])
    assert np.abs(logits - reference.forward(parameters(), Config(), [[2, 7, 5, 3]])).max() > 1e-4
    typed = reference.forward(parameters(), Config(), [[2, 5, 7, 3]], [[0, 0, 1, 1]])
    assert np.abs(logits - typed).max() > 1e-4


def test_key_biases_change_nothing() -> None:
    name = "bert.encoder.layer.0.attention.self.key.bias"
    moved = {**parameters(), name: np.ones(12)}
    expected = reference.forward(parameters(), Config(), ROWS)
    np.testing.assert_allclose(reference.forward(moved, Config(), ROWS), expected, atol=1e-12)


def test_masks_of_one_drop_nothing_and_every_mask_is_used() -> None:
    config = Config()
    plain = reference.forward(parameters(), config, ROWS)
    shapes = [reference.dropout_shapes(config, len(row)) for row in ROWS]
    ones = {module: [np.ones(shape[module]) for shape in shapes] for module in shapes[0]}
    np.testing.assert_array_equal(reference.forward(parameters(), config, ROWS, masks=ones), plain)
    assert len(ones) == 2 + 3 * config.num_hidden_layers
    for module, masks in ones.items():
        halved = {**ones, module: [mask * 0.5 for mask in masks]}
        assert np.abs(reference.forward(parameters(), config, ROWS, masks=halved) - plain).max() > 1e-4, module


def test_finite_difference_of_a_known_function() -> None:
    x = np.array([[0.3, -1.2], [2.0, 0.1]])
    np.testing.assert_allclose(reference.finite_difference(lambda a: float(np.sin(a).sum()), x), np.cos(x), rtol=1e-9)
    some = reference.finite_difference(lambda a: float((a**3).sum()), x, indices=[(1, 0), (0, 1)])
    np.testing.assert_allclose(some, [12.0, 3 * 1.44], rtol=1e-8)


def test_gradient_of_the_classifier_bias_is_the_sum_of_the_loss_gradients() -> None:
    given = parameters()
    labels = [0, 2, 1]

    def loss(changed: reference.Parameters) -> float:
        return reference.cross_entropy(reference.forward(changed, Config(), ROWS), labels)[0]

    _, dlogits = reference.cross_entropy(reference.forward(given, Config(), ROWS), labels)
    numeric = reference.parameter_gradient(loss, given, "classifier.bias")
    np.testing.assert_allclose(numeric, dlogits.sum(axis=0), rtol=1e-8)


def test_cross_entropy_of_equal_logits() -> None:
    loss, gradient = reference.cross_entropy(np.zeros((2, 4)), [1, 3])
    assert loss == pytest.approx(math.log(4.0), rel=1e-15)
    np.testing.assert_allclose(gradient[0], [0.125, -0.375, 0.125, 0.125], rtol=1e-15)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 100.0])
@pytest.mark.parametrize("labels", [None, [0, -100, 2], [1, 1, 0]])
def test_loss_gradients_against_finite_differences(temperature: float, labels: list[int] | None) -> None:
    student, teacher = np.random.default_rng(3).standard_normal((2, 3, 3))

    def loss(logits: reference.Array) -> float:
        return reference.distillation_loss(logits, teacher, labels, alpha=0.3, temperature=temperature)[0]

    _, gradient = reference.distillation_loss(student, teacher, labels, alpha=0.3, temperature=temperature)
    numeric = reference.finite_difference(loss, student, step=1e-4 * min(temperature, 1.0))
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_distillation_loss_is_zero_at_the_teacher_and_cross_entropy_at_alpha_one() -> None:
    student, teacher = np.random.default_rng(4).standard_normal((2, 5, 2))
    assert reference.distillation_loss(teacher, teacher, alpha=0.0)[0] == pytest.approx(0.0, abs=1e-15)
    both = reference.distillation_loss(student, teacher, [0, 1, 1, 0, 1], alpha=1.0)
    hard = reference.cross_entropy(student, [0, 1, 1, 0, 1])
    assert both[0] == pytest.approx(hard[0], rel=1e-15)
    np.testing.assert_allclose(both[1], hard[1], rtol=1e-14)


def test_adamw_first_step_is_lr_against_the_gradient_plus_decay() -> None:
    names = ["classifier.weight", "classifier.bias", "bert.embeddings.LayerNorm.weight"]
    given = {name: np.array([1.0, -2.0]) for name in names}
    gradients = {name: np.array([3.0, -0.5]) for name in names}
    m, v = ({name: np.zeros(2) for name in names} for _ in range(2))
    reference.adamw_step(given, gradients, m, v, step=1, lr=0.1, weight_decay=0.01)
    np.testing.assert_allclose(given["classifier.weight"], [0.999 - 0.1, -1.998 + 0.1], rtol=1e-7)
    for name in names[1:]:
        np.testing.assert_allclose(given[name], [0.9, -1.9], rtol=1e-7)


def test_clipping_brings_the_norm_down_and_never_up() -> None:
    gradients = [np.array([3.0]), np.array([[4.0]])]
    norm, scale = reference.clip_scale(gradients, 1.0)
    assert norm == pytest.approx(5.0)
    assert scale == pytest.approx(0.2, rel=1e-6)
    assert reference.clip_scale(gradients, 10.0) == (5.0, 1.0)


def test_linear_schedule() -> None:
    values = [reference.linear_schedule_with_warmup(step, 2, 6) for step in range(8)]
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert reference.linear_schedule_with_warmup(0, 0, 4) == 1.0
