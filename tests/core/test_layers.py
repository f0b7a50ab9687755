"""Single layers, forward against the float64 reference and backward against finite differences of it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.paths import SUPPORT

from kdistill import _core
from kdistill._core import testing

NO_DROPOUT = (0.0, 0, 0, 0, 0)
# Features of one head's random bits: one block.
FEATURES = 64


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def exact(x: NDArray[np.float32]) -> reference.Array:
    return x.astype(np.float64)


# ---- LayerNorm


@pytest.mark.parametrize("eps", [1e-12, 0.1])
@pytest.mark.parametrize("width", [2, 3, 4, 7, 8, 15, 16, 17, 33, 60, 129])
def test_norm(width: int, eps: float) -> None:
    x, dy = normal(3, width, seed=1, scale=2.0) + 1, normal(3, width, seed=2)
    gamma, beta = 1 + normal(width, seed=3, scale=0.3), normal(width, seed=4)
    y, stats = testing.norm_forward(x, gamma, beta, eps)
    dx, dgamma, dbeta = testing.norm_backward(dy, x, stats, gamma)

    # Values around 3 with half a unit roundoff (6e-8) each in the mean, the variance and the product.
    np.testing.assert_allclose(y, reference.layer_norm(exact(x), exact(gamma), exact(beta), eps), rtol=2e-6, atol=2e-6)

    def weighted(x: reference.Array, gamma: reference.Array, beta: reference.Array) -> float:
        return float((exact(dy) * reference.layer_norm(x, gamma, beta, eps)).sum())

    xd, gd, bd = exact(x), exact(gamma), exact(beta)
    expected = [
        reference.finite_difference(lambda x: weighted(x, gd, bd), xd),
        reference.finite_difference(lambda gamma: weighted(xd, gamma, bd), gd),
        reference.finite_difference(lambda beta: weighted(xd, gd, beta), bd),
    ]
    # dx is what is left of dy gamma when two of its components are taken out. Two features of eps 0 leave nothing,
    # so the bound is on 1 / std times the operands: rounding of what cancels.
    bound = 2e-6 * float(stats[:, 1].max() * np.abs(dy).max() * np.abs(gamma).max()) + 1e-8
    np.testing.assert_allclose(dx, expected[0], rtol=0, atol=bound)
    np.testing.assert_allclose(dgamma, expected[1], rtol=2e-6, atol=5e-6)
    np.testing.assert_allclose(dbeta, expected[2], rtol=1e-6, atol=1e-6)


def test_norm_of_values_far_from_zero() -> None:
    """E[x^2] - E[x]^2 would lose every digit here; what is left is the rounding of x itself (6e-5 in 1000)."""
    x = 1000 + normal(4, 60, seed=5)
    ones, zeros = np.ones(60, np.float32), np.zeros(60, np.float32)
    y, _ = testing.norm_forward(x, ones, zeros, 1e-12)
    np.testing.assert_allclose(y, reference.layer_norm(exact(x), 1.0, 0.0, 1e-12), rtol=0, atol=2e-4)


def test_norm_of_equal_values_is_beta() -> None:
    beta = normal(24, seed=6)
    y, stats = testing.norm_forward(np.full((1, 24), 0.5, np.float32), np.ones(24, np.float32), beta, 1e-12)
    np.testing.assert_array_equal(y[0], beta)
    np.testing.assert_allclose(stats, [[0.5, 1e6]], rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_norm_of_one_element_is_beta_and_has_no_slope(rows: int) -> None:
    """Exactly: 1 / sqrt(eps) is 1e6 and would make a gradient of any rounding."""
    x, dy = normal(rows, 1, seed=7, scale=3.0), normal(rows, 1, seed=8)
    gamma, beta = normal(1, seed=9), normal(1, seed=10)
    y, stats = testing.norm_forward(x, gamma, beta, 1e-12)
    dx, dgamma, dbeta = testing.norm_backward(dy, x, stats, gamma)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, (rows, 1)))
    np.testing.assert_array_equal(dx, np.zeros((rows, 1)))
    np.testing.assert_array_equal(dgamma, [0])
    np.testing.assert_allclose(dbeta, exact(dy).sum(axis=0), rtol=1e-6, atol=1e-6)
    dy[-1] = np.nan
    assert np.isnan(testing.norm_backward(dy, x, stats, gamma)[0][-1])


# ---- activations


def test_every_activation_has_a_reference() -> None:
    assert set(_core.ACTIVATIONS) == set(reference.ACTIVATIONS)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activation(name: str) -> None:
    grid = np.concatenate((np.linspace(-30, 30, 2400), np.linspace(-1e-3, 1e-3, 60), normal(300, seed=7)))
    x, dy = grid.astype(np.float32), normal(len(grid), seed=8)
    y, dx = testing.activation(x, dy, name)
    # erf and tanh are good to 5e-7 absolute, and x multiplies them; for large negative x that is all there is.
    tolerance = 5e-7 * np.maximum(np.abs(exact(x)), 1) + 1e-9
    assert (np.abs(y - reference.ACTIVATIONS[name](exact(x))) <= tolerance).all()

    step = 1e-5
    slope = (reference.ACTIVATIONS[name](exact(x) + step) - reference.ACTIVATIONS[name](exact(x) - step)) / (2 * step)
    smooth = np.abs(x) > step if name == "relu" else np.ones(len(x), bool)
    # The same approximations; in gelu_new's slope 1 - tanh^2 meets a factor that grows with x^3, but vanishes first.
    assert (np.abs(dx - dy * slope) <= 4e-6 * np.abs(dy) + 1e-9)[smooth].all()


def test_relu_at_zero_has_slope_zero() -> None:
    x = np.array([-0.0, 0.0, 1e-45], np.float32)
    y, dx = testing.activation(x, np.ones(3, np.float32), "relu")
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, [0, 0, 1])


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activation_of_any_count_and_of_extremes(name: str) -> None:
    x = normal(70, seed=9, scale=3.0)
    whole, slopes = testing.activation(x, np.ones(70, np.float32), name)
    for count in range(1, 70):
        y, dx = testing.activation(x[:count].copy(), np.ones(count, np.float32), name)
        np.testing.assert_array_equal(y, whole[:count])
        np.testing.assert_array_equal(dx, slopes[:count])
    y, dx = testing.activation(np.array([1e4, -1e4, np.nan], np.float32), np.ones(3, np.float32), name)
    np.testing.assert_array_equal(y, [1, -1, np.nan] if name == "tanh" else [1e4, 0, np.nan])
    np.testing.assert_allclose(dx[:2], [0, 0] if name == "tanh" else [1, 0], rtol=0, atol=1e-30)


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match=r"activation is 'mish'; expected one of gelu, .*, relu, silu, swish, tanh$"):
        testing.activation(np.ones(1, np.float32), np.ones(1, np.float32), "mish")


@pytest.mark.parametrize("name", ["silu", "quick_gelu"])
def test_a_sigmoid_keeps_its_digits_where_it_is_small(name: str) -> None:
    """exp is good to 2e-7 of its value and nothing cancels; rounding 1.702 x, up to 85, adds 85 * 6e-8."""
    x = np.linspace(-50, 50, 2001, dtype=np.float32)
    y, slope = testing.activation(x, np.ones_like(x), name)
    expected = reference.ACTIVATIONS[name](exact(x))
    np.testing.assert_allclose(y, expected, rtol=6e-6 if name == "quick_gelu" else 6e-7, atol=0)
    # x g' and g cancel in the slope only near its zero at -1.28 (-0.75).
    g = expected[x != 0] / exact(x[x != 0])
    scale = 1.702 if name == "quick_gelu" else 1.0
    away = exact(x[x != 0])
    exact_slope = g + away * scale * g * np.exp(-np.logaddexp(0.0, scale * away))
    np.testing.assert_allclose(slope[x != 0], exact_slope, rtol=1e-5, atol=4e-7)


# ---- dropout


def test_dropout_multiplies_by_zero_or_the_inverse_of_what_is_kept() -> None:
    for p in (0.1, 0.5, 0.9):
        mask = testing.dropout(np.ones((20, 130), np.float32), (p, 1, 2, 3, 4))
        kept = np.float32(1 / (1 - round(p * 2**16) / 2**16))  # a rate is a number of 65536ths
        assert abs(kept * (1 - p) - 1) < 7e-5  # half a 65536th beside the 0.1 that are kept of 0.9
        assert set(np.unique(mask)) == {np.float32(0), kept}
        x = normal(20, 130, seed=10)
        np.testing.assert_array_equal(testing.dropout(x, (p, 1, 2, 3, 4)), np.where(mask > 0, x * kept, 0))


def test_dropout_of_rates_that_round_to_nothing_and_to_all() -> None:
    x = normal(3, 70, seed=10)
    np.testing.assert_array_equal(testing.dropout(x, (1e-7, 1, 2, 3, 4)), x)
    np.testing.assert_array_equal(testing.dropout(x, (1 - 1e-7, 1, 2, 3, 4)), np.zeros_like(x))


def test_dropout_of_rate_zero_changes_nothing() -> None:
    x = normal(3, 70, seed=11)
    np.testing.assert_array_equal(testing.dropout(x, NO_DROPOUT), x)


def test_a_row_is_dropped_by_its_own_place() -> None:
    x = normal(6, 70, seed=12)
    whole = testing.dropout(x, (0.5, 1, 2, 3, 100))
    np.testing.assert_array_equal(testing.dropout(x[4:], (0.5, 1, 2, 3, 104)), whole[4:])


# ---- attention


def attention_mask(p: float, tokens: int, heads: int) -> reference.Array:
    """(heads, queries, keys): what attention's dropout multiplies the probabilities by."""
    ones = np.ones((tokens, heads * FEATURES), np.float32)
    drawn = exact(testing.dropout(ones, (p, *POSITION)))
    return drawn.reshape(tokens, heads, FEATURES)[:, :, :tokens].transpose(1, 0, 2)


POSITION = (11, 5, 2, 70)  # seed, step, tensor, place of the first query
SHAPES = [  # tokens, heads, width of a head
    (1, 2, 3),
    (2, 1, 1),
    (5, 3, 4),
    (7, 2, 12),
    (16, 1, 16),
    (17, 2, 7),
    (33, 1, 5),  # more queries than are handled together
    (40, 2, 8),
]


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention(shape: tuple[int, int, int], p: float) -> None:
    tokens, heads, width = shape
    q, k, v, dctx = (normal(tokens, heads * width, seed=20 + i) for i in range(4))
    dropout, mask = (p, *POSITION), attention_mask(p, tokens, heads)
    ctx, lse = testing.attention_forward(q, k, v, heads, FEATURES, dropout)
    gradients = testing.attention_backward(dctx, ctx, lse, q, k, v, heads, FEATURES, dropout)

    # Probabilities carry exp's 2e-7 and the rounding of scores (some 3 in size); values are around 1.
    np.testing.assert_allclose(ctx, reference.attention(exact(q), exact(k), exact(v), heads, mask), rtol=0, atol=3e-6)

    operands = [exact(q), exact(k), exact(v)]
    for i, (name, gradient) in enumerate(zip("qkv", gradients, strict=True)):

        def weighted(x: reference.Array, i: int = i) -> float:
            return float((exact(dctx) * reference.attention(*operands[:i], x, *operands[i + 1 :], heads, mask)).sum())

        expected = reference.finite_difference(weighted, operands[i])
        # Sums over up to 40 keys of probabilities times values around 1: as above, and rounding of the sums.
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-6, err_msg=f"d{name}")


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_with_relative_positions(shape: tuple[int, int, int], p: float) -> None:
    tokens, heads, width = shape
    q, k, v, dctx = (normal(tokens, heads * width, seed=20 + i) for i in range(4))
    spread, dropout, mask = normal(heads, 2 * tokens - 1, seed=24), (p, *POSITION), attention_mask(p, tokens, heads)
    dspread = np.ones_like(spread)
    ctx, lse = testing.attention_forward(q, k, v, heads, FEATURES, dropout, spread)
    gradients = testing.attention_backward(dctx, ctx, lse, q, k, v, heads, FEATURES, dropout, (spread, dspread))

    def attend(q: reference.Array, k: reference.Array, v: reference.Array, spread: reference.Array) -> reference.Array:
        places = np.arange(tokens)
        bias = spread[:, tokens - 1 + places[None, :] - places[:, None]] / math.sqrt(width)
        return reference.attention(q, k, v, heads, mask, bias)

    operands = [exact(q), exact(k), exact(v), exact(spread)]
    np.testing.assert_allclose(ctx, attend(*operands), rtol=0, atol=3e-6)  # as without
    for i, gradient in enumerate((*gradients, dspread - 1)):

        def weighted(x: reference.Array, i: int = i) -> float:
            return float((exact(dctx) * attend(*operands[:i], x, *operands[i + 1 :])).sum())

        expected = reference.finite_difference(weighted, operands[i])
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-6, err_msg=f"operand {i}")


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (32, 64), (16, 128), (33, 100), (8, 20), (4, 2)])
def test_buckets_of_distances(buckets: int, distance: int) -> None:
    table = normal(buckets, 3, seed=41)
    for n in (1, 2, 7, 600):
        spread = testing.relative_spread(table, n, distance, 0.5)
        rows = [reference.relative_bucket(offset, buckets, distance) for offset in range(1 - n, n)]
        np.testing.assert_array_equal(spread, (0.5 * table[rows]).T)


def test_exp() -> None:
    """Sixteen keys whose scores are exact and whose values are unit vectors: the context is the softmax itself."""
    q, v = np.zeros((16, 16), np.float32), np.eye(16, dtype=np.float32)
    q[:, 0] = 4.0  # the root of 16, by which scores are divided
    for scores in np.linspace(-87, 0, 16 * 100, dtype=np.float32).reshape(100, 16):
        scores[-1] = 0.0
        k = np.zeros((16, 16), np.float32)
        k[:, 0] = scores
        ctx, lse = testing.attention_forward(q, k, v, 1, FEATURES, NO_DROPOUT)
        # exp to 2e-7 (kd_vec.h), and one rounding each of two probabilities.
        np.testing.assert_allclose(ctx[0] / ctx[0, -1], np.exp(exact(scores)), rtol=3.5e-7)
        # The sum is 1 or more, rounded in its last place (1.2e-7).
        assert lse[0, 0] == pytest.approx(float(np.log(np.exp(exact(scores)).sum())), rel=1e-6, abs=2.5e-7)


def test_attention_whose_scores_are_all_far_below_zero() -> None:
    """The largest score is that of a key, not the zero of an empty place in a register."""
    for keys in (1, 3, 5, 9, 17):
        q, k, v = np.full((keys, 4), 20, np.float32), normal(keys, 4, seed=36) - 20, normal(keys, 4, seed=37)
        ctx, _ = testing.attention_forward(q, k, v, 1, FEATURES, NO_DROPOUT)
        expected = reference.attention(exact(q), exact(k), exact(v), 1)
        # Scores of -800 are rounded by 3e-5 each.
        np.testing.assert_allclose(ctx, expected, rtol=0, atol=3e-4)


def test_attention_with_large_scores() -> None:
    """Scores of thousands: the largest is taken out before exp, so one key gets it all and nothing overflows."""
    q, k, v = normal(4, 8, seed=30, scale=60), normal(4, 8, seed=31, scale=60), normal(4, 8, seed=32)
    ctx, lse = testing.attention_forward(q, k, v, 1, FEATURES, NO_DROPOUT)
    # A score of 5000 is rounded by 2e-4, and so are the probabilities.
    np.testing.assert_allclose(ctx, reference.attention(exact(q), exact(k), exact(v), 1), rtol=0, atol=1e-3)
    assert np.isfinite(lse).all()
    for gradient in testing.attention_backward(v, ctx, lse, q, k, v, 1, FEATURES, NO_DROPOUT):
        assert np.isfinite(gradient).all()


def test_attention_refuses_shapes_that_do_not_fit() -> None:
    q = normal(2, 6)
    with pytest.raises(ValueError, match="k has the wrong shape"):
        testing.attention_forward(q, normal(2, 4), q, 2, FEATURES, NO_DROPOUT)
    with pytest.raises(ValueError, match="k has the wrong shape"):
        testing.attention_forward(normal(1, 6), q, q, 2, FEATURES, NO_DROPOUT)
    with pytest.raises(ValueError, match="v has the wrong shape"):
        testing.attention_forward(q, q, normal(3, 6), 2, FEATURES, NO_DROPOUT)
    with pytest.raises(ValueError, match="spread has the wrong shape"):
        testing.attention_forward(q, q, q, 2, FEATURES, NO_DROPOUT, normal(2, 4))
    for heads, features in ((4, 64), (0, 64), (2, 65)):
        with pytest.raises(ValueError, match="heads must divide the width"):
            testing.attention_forward(q, q, q, heads, features, NO_DROPOUT)


# ---- memory


def test_no_layer_touches_memory_beyond_its_operands() -> None:
    script = SUPPORT / "guard_page.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
