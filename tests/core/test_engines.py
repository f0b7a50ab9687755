"""Products of bfloat16 and int8, by every engine that this CPU can run, against NumPy on rounded operands.

The bounds are derived in docs/numerics.md.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.engines import ENGINES, Engine, Floats, new_bytes, to_bfloat16, to_int8
from support.paths import SUPPORT

from kdistill import _core
from kdistill._core import testing

# Blocks have 3, 4, 6, 12, 16 and 32 rows, and 32 columns; lines 32 and 64 numbers; registers 4, 8 and 16.
EDGES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 97, 127, 128, 129]
SHAPES = [
    *((m, 33, 65) for m in EDGES),
    *((5, n, 33) for n in EDGES),
    *((5, 33, k) for k in EDGES),
    *((m, 32, 64) for m in (1, 3, 16, 33)),
    (1, 1, 1),
    (40, 97, 4100),  # the panels of few columns fill L2: several cuts
    (193, 64, 5),  # rows of `next` wait in three parts
    (33, 64, 16500),  # rows of more bytes than stay in L2: several slabs
]
UNIT = 2.0**-24
BFLOAT16 = [engine for engine in ENGINES if not engine.integers]
INT8 = [engine for engine in ENGINES if engine.integers]
ACTIVATIONS = {
    "gelu": reference.gelu,
    "gelu_new": reference.gelu_new,
    "relu": reference.relu,
    "silu": reference.silu,
    "quick_gelu": reference.quick_gelu,
    "tanh": np.tanh,
}
every_engine = pytest.mark.parametrize("engine", ENGINES, ids="-".join)
every_bfloat16 = pytest.mark.parametrize("engine", BFLOAT16, ids="-".join)
every_int8 = pytest.mark.parametrize("engine", INT8, ids="-".join)


def operands(m: int, n: int, k: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return a (M, K), w (K, N) and a bias (N), rows of very different size among them."""
    rng = np.random.default_rng(seed + 1000 * m + 100 * n + k)
    a, w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), n))
    return a * np.exp2(rng.integers(-9, 9, (m, 1))).astype(np.float32), w, bias


def bfloat16_bound(engine: Engine, a: Floats, w: Floats, bias: Floats) -> NDArray[np.float64]:
    """Return how far float32 sums may be from a w + bias: the roundings an element passes, times its terms."""
    k = a.shape[1]
    roundings = k + 1
    if engine.isa.startswith("amx"):
        roundings = min(16, -(-k // 2)) + 1 + -(-k // 32) + 1
    terms = np.abs(a).astype(np.float64) @ np.abs(w).astype(np.float64) + np.abs(bias)
    return np.asarray(roundings * UNIT / (1 - roundings * UNIT) * terms + 2.0**-126 * (k + 1))


def int8_product(a: Floats, w: Floats, bias: Floats) -> Floats:
    """Return fma(float32(sum), scale of a * scale of w, bias), which float64 computes but for its own rounding."""
    (qa, scale_a), (qw, scale_w) = to_int8(a, 1), to_int8(w, 0)
    sums = (qa @ qw).astype(np.float32)
    return (sums.astype(np.float64) * (scale_a * scale_w) + bias).astype(np.float32)


# ---- products


@every_bfloat16
@pytest.mark.parametrize("transposed", [False, True])
def test_a_bfloat16_product_is_that_of_the_rounded_operands(engine: Engine, transposed: bool) -> None:
    for m, n, k in SHAPES:
        a, w, bias = operands(m, n, k)
        c = engine.product(a, np.ascontiguousarray(w.T) if transposed else w, bias, transposed=transposed)
        rounded_a, rounded_w = to_bfloat16(a), to_bfloat16(w)
        error = np.abs(rounded_a.astype(np.float64) @ rounded_w + bias - c)
        assert (error <= bfloat16_bound(engine, rounded_a, rounded_w, bias)).all(), (m, n, k)


@every_int8
@pytest.mark.parametrize("transposed", [False, True])
def test_an_int8_product_has_the_same_bits_everywhere(engine: Engine, transposed: bool) -> None:
    for m, n, k in SHAPES:
        a, w, bias = operands(m, n, k)
        c = engine.product(a, np.ascontiguousarray(w.T) if transposed else w, bias, transposed=transposed)
        np.testing.assert_array_equal(c, int8_product(a, w, bias), err_msg=str((m, n, k)))


@every_int8
@pytest.mark.parametrize("k", [1, 64, 768, 8192])
def test_the_greatest_int8_sums_neither_saturate_nor_overflow(engine: Engine, k: int) -> None:
    signs = np.array([[1.0], [-1.0]], np.float32)
    a, w = np.repeat(signs, k, axis=1), np.repeat(signs.T, k, axis=0)
    w = np.concatenate([w, np.where(np.arange(k) % 2, 1.0, -1.0).astype(np.float32)[:, None]], axis=1)
    exact = (127 * a.astype(np.int64)) @ (127 * w.astype(np.int64))
    unit = np.float32(1) / np.float32(127)
    np.testing.assert_array_equal(engine.product(a, w), exact.astype(np.float32) * (unit * unit))


@every_engine
def test_a_row_has_the_same_bits_in_any_product(engine: Engine) -> None:
    a, w, bias = operands(67, 37, 70)
    right, whole = engine.pack(w), engine.product(a, w, bias, "gelu")
    for rows in (*(slice(0, m) for m in EDGES if m < 67), slice(3, 4), slice(5, 40), slice(66, 67)):
        part = np.ascontiguousarray(a[rows])
        c = np.zeros((len(part), 37), np.float32)
        engine.multiply(c, engine.convert(part), right, 70, bias, "gelu")
        np.testing.assert_array_equal(c, whole[rows])


@every_engine
def test_columns_alone_and_among_others(engine: Engine) -> None:
    """A whole block of columns goes another way than a part of one."""
    a, w, bias = operands(20, 64, 40)
    for activation in (None, *ACTIVATIONS):
        whole = engine.product(a, w, bias, activation)
        for n in (1, 17, 32, 33, 63):
            part = engine.product(a, np.ascontiguousarray(w[:, :n]), bias[:n].copy(), activation)
            np.testing.assert_array_equal(part, whole[:, :n])


# ---- what follows a product


@every_engine
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (33, 32, 64), (35, 45, 40)])
def test_a_product_is_added_or_multiplied(engine: Engine, m: int, n: int, k: int) -> None:
    a, w, bias = operands(m, n, k)
    left, right, plain = engine.convert(a), engine.pack(w), engine.product(a, w)
    before = operands(m, n, 1, seed=1)[0] * np.ones((1, n), np.float32)
    c = before.copy()
    engine.multiply(c, left, right, k)
    np.testing.assert_array_equal(c, plain + before)
    factor = before.copy()
    engine.multiply(c, left, right, k, bias, None, factor)
    np.testing.assert_array_equal(c, engine.product(a, w, bias))
    np.testing.assert_array_equal(factor, before * c)


@every_engine
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_follow(engine: Engine, name: str) -> None:
    """Against float64 at the sums that the same engine gives: x g(x), where g has an absolute error of 1e-6."""
    a, w, bias = operands(33, 45, 40)
    a = np.clip(a, -2, 2)
    x, left, right = engine.product(a, w, bias).astype(np.float64), engine.convert(a), engine.pack(w)
    c, slope, alone = (np.zeros((33, 45), np.float32) for _ in range(3))
    engine.multiply(c, left, right, 40, bias, name, slope)
    engine.multiply(alone, left, right, 40, bias, name)
    np.testing.assert_array_equal(alone, c)
    activation, step = ACTIVATIONS[name], 1e-6
    tolerance = 1e-6 * np.maximum(1, np.abs(x))
    assert (np.abs(c - activation(x)) <= tolerance).all()
    if name == "relu":
        np.testing.assert_array_equal(slope, x > 0)
    else:
        difference = (activation(x + step) - activation(x - step)) / (2 * step)
        assert (np.abs(slope - difference) <= 4 * tolerance).all()


@every_engine
def test_the_error_of_gelu_with_its_quick_quotient(engine: Engine) -> None:
    """erf is off by 4e-7, and with the estimated quotient by 2^-22 of itself: gelu by half of both times x."""
    x = to_bfloat16(np.linspace(-9, 9, 2001, dtype=np.float32))[:, None]
    c = engine.product(x, np.ones((1, 32), np.float32), None, "gelu")
    exact = reference.gelu(engine.product(x, np.ones((1, 32), np.float32)).astype(np.float64))
    assert (np.abs(c - exact) <= np.abs(x) * ((4e-7 + 2.0**-22) / 2 + 2 * UNIT)).all()


@every_engine
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 32, 33), (35, 45, 70), (200, 97, 5)])
def test_results_for_the_next_product_are_those_converted(
    engine: Engine, m: int, n: int, k: int, activation: str | None
) -> None:
    """An operand's gaps are not compared: nobody reads them."""
    a, w, bias = operands(m, n, k)
    a[m // 2, 0] = np.inf  # must stay in its row, and out of the zeros behind its numbers
    w[0] = np.where(w[0] == 0, 1, w[0])
    following = new_bytes(engine.sizes(m, 1, n)[0])
    c = np.zeros((m, n), np.float32)
    engine.multiply(c, engine.convert(a), engine.pack(w), k, bias, activation, None, following)
    found = engine.left_numbers(following, m, n)
    expected = engine.left_numbers(engine.convert(engine.product(a, w, bias, activation)), m, n)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@every_engine
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 129, 70), (35, 64, 40), (35, 97, 70), (101, 300, 33)])
def test_threads_share_a_products_columns(engine: Engine, m: int, n: int, k: int, activation: str | None) -> None:
    """Three threads, in parts of 64 columns; what follows may need whole rows, which they share afterwards."""
    a, w, bias = operands(m, n, k)
    left, right = engine.convert(a), engine.pack(w)
    c = np.full((m, n), np.nan, np.float32)
    engine.multiply(c, left, right, k, bias, activation, threads=3)
    np.testing.assert_array_equal(c, engine.product(a, w, bias, activation))
    alone, shared = (new_bytes(engine.sizes(m, 1, n)[0]) for _ in range(2))
    for following, threads in ((alone, 1), (shared, 3)):
        engine.multiply(c, left, right, k, bias, activation, None, following, threads)
    for expected, found in zip(*(engine.left_numbers(x, m, n) for x in (alone, shared)), strict=True):
        np.testing.assert_array_equal(found, expected)


# ---- gradients of weights

RUN = 512  # rows after which sums are added to the gradient


def gradient_bound(engine: Engine, a: Floats, b: Floats, c: Floats) -> NDArray[np.float64]:
    """Return how far float32 sums may be from c + a^T b: the roundings a term of any run passes, times all terms."""
    k, runs = min(len(a), RUN), -(-len(a) // RUN)
    roundings = k + runs
    if engine.isa.startswith("amx"):
        roundings = min(16, -(-k // 2)) + 1 + -(-k // 32) + runs
    terms = np.abs(a).astype(np.float64).T @ np.abs(b).astype(np.float64) + np.abs(c)
    return np.asarray(roundings * UNIT / (1 - roundings * UNIT) * terms + 2.0**-126 * (len(a) + 1))


@every_bfloat16
def test_a_gradient_is_added_to_a_tile(engine: Engine) -> None:
    """Tiles of wider arrays, for sums of one row, of a part of a run, and of several."""
    sizes = [*((m, 33, 65) for m in EDGES), *((33, n, 65) for n in EDGES), *((17, 35, k) for k in EDGES)]
    for m, n, k in (*sizes, (128, 256, 33), (5, 7, 511), (5, 7, 512), (5, 7, 513), (33, 17, 1600)):
        a, b = operands(k, 1, m + 3)[0], operands(k, 1, n + 5, seed=1)[0]
        before = np.random.default_rng(m + n + k).standard_normal((m + 2, n + 4)).astype(np.float32)
        c = before.copy()
        engine.outer(c, a, b, m, n)
        rounded_a, rounded_b = to_bfloat16(a[:, :m]), to_bfloat16(b[:, :n])
        tile = before[:m, :n]
        error = np.abs(rounded_a.astype(np.float64).T @ rounded_b + tile - c[:m, :n])
        assert (error <= gradient_bound(engine, rounded_a, rounded_b, tile)).all(), (m, n, k)
        np.testing.assert_array_equal(c[m:], before[m:])
        np.testing.assert_array_equal(c[:, n:], before[:, n:])


@every_bfloat16
def test_an_element_of_a_gradient_has_the_same_bits_in_any_tile(engine: Engine) -> None:
    a, b = operands(700, 1, 45)[0], operands(700, 1, 70, seed=1)[0]
    whole = np.zeros((45, 70), np.float32)
    engine.outer(whole, a, b, 45, 70)
    for rows in (slice(0, 1), slice(3, 45), slice(16, 33), slice(44, 45)):
        for columns in (slice(0, 70), slice(0, 1), slice(5, 38), slice(69, 70)):
            part = np.zeros(whole[rows, columns].shape, np.float32)
            engine.outer(part, a[:, rows].copy(), b[:, columns].copy(), *part.shape)
            np.testing.assert_array_equal(part, whole[rows, columns])


@every_bfloat16
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row_or_column_of_a_gradient(engine: Engine, bad: float) -> None:
    a, b = operands(70, 1, 37)[0], operands(70, 1, 40, seed=1)[0]
    good = np.zeros((37, 40), np.float32)
    engine.outer(good, a, b, 37, 40)
    for at in (0, 63, 69):
        for side, (row, column) in ((a, (33, slice(None))), (b, (slice(None), 35))):
            changed, kept = side[at].copy(), np.ones(good.shape, bool)
            side[at, row if side is a else column] = bad
            kept[row, column] = False
            c = np.zeros((37, 40), np.float32)
            engine.outer(c, a, b, 37, 40)
            side[at] = changed
            assert np.isnan(c[row, column]).all() if np.isnan(bad) else not np.isfinite(c[row, column]).any()
            np.testing.assert_array_equal(c[kept], good[kept])


# ---- conversion


def awkward_numbers() -> Floats:
    """Return ties of bfloat16 on both sides, subnormal numbers, zeros, the least and the greatest numbers."""
    bits = np.array(
        [
            *(0, 1, 0x7FFF, 0x8000, 0x007FFFFF, 0x00800000, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3F818001),
            *(0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F800000, 0x00808000, 0x00818000),
        ],
        np.uint32,
    )
    return np.concatenate([bits, bits | 0x80000000]).view(np.float32)


@every_bfloat16
def test_numbers_are_rounded_to_the_nearest_bfloat16(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate([awkward_numbers(), rng.integers(0, 2**32, 4000, np.uint32).view(np.float32)])
    numbers = numbers[~np.isnan(numbers)]
    for x in (numbers[None, :], numbers[:, None].copy()):
        m, k = x.shape
        found, _ = engine.left_numbers(engine.convert(x), m, k)
        np.testing.assert_array_equal(found[:, :k].view(np.uint32), to_bfloat16(x).view(np.uint32))
        assert not found[:, k:].any()
        for transposed in (False, True):
            right = engine.pack(x.T.copy() if transposed else x, transposed=transposed)
            found, _ = engine.right_numbers(right, m, k)
            np.testing.assert_array_equal(found[:m, :k].view(np.uint32), to_bfloat16(x).view(np.uint32))
            assert not found[m:].any()
            assert not found[:, k:].any()


@every_bfloat16
@pytest.mark.parametrize("payload", [0x7F800001, 0x7FC00000, 0xFF80FFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_nan_stays_nan_in_bfloat16(engine: Engine, payload: int) -> None:
    x = np.array([[1, 2]], np.float32)
    x.view(np.uint32)[0, 1] = payload
    assert np.isnan(engine.left_numbers(engine.convert(x), 1, 2)[0][0, 1])
    assert np.isnan(engine.right_numbers(engine.pack(x), 1, 2)[0][0, 1])


@every_int8
@pytest.mark.parametrize(("m", "k"), [(1, 1), (3, 4), (17, 33), (40, 65), (5, 130)])
def test_numbers_become_the_nearest_integers(engine: Engine, m: int, k: int) -> None:
    x = operands(m, 1, k)[0]
    x[-1] = 0
    expected, scales = to_int8(x, 1)
    found, found_scales = engine.left_numbers(engine.convert(x), m, k)
    np.testing.assert_array_equal(found[:, :k], expected)
    np.testing.assert_array_equal(found_scales, scales[:, 0])
    assert not found[:, k:].any()
    assert (np.abs(found[:, :k] * scales - x) <= scales * (0.5 + 127 * 4 * UNIT)).all()
    for transposed in (False, True):
        right = engine.pack(x if transposed else x.T.copy(), transposed=transposed)
        found, found_scales = engine.right_numbers(right, k, m)
        np.testing.assert_array_equal(found[:k, :m], expected.T)
        np.testing.assert_array_equal(found_scales[:m], scales[:, 0])
        assert not found[k:].any()
        assert not found[:, m:].any()
        assert not found_scales[m:].any()


@every_int8
def test_ties_go_to_even_integers(engine: Engine) -> None:
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 125.5, 126.5, -126.5, -127]], np.float32)
    expected = [127, 0, 2, 2, 0, -2, 126, 126, -126, -127]
    assert engine.left_numbers(engine.convert(x), 1, 10)[0][0, :10].tolist() == expected
    assert engine.right_numbers(engine.pack(x, transposed=True), 10, 1)[0][:10, 0].tolist() == expected


@every_int8
def test_rows_of_zeros_tiny_and_huge_numbers(engine: Engine) -> None:
    """Below 2^-110 the inverse of the scale would not be finite soon: such a row counts as 0."""
    sizes = np.array([0, 2.0**-149, 2.0**-111, 2.0**-110, 2.0**-100, 2.0**127], np.float32)
    a = sizes[:, None] * np.array([1, -0.5, 0.25], np.float32)
    c = engine.product(a, np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(c[:3], 0)
    assert (np.abs(c[3:] - a[3:]) <= sizes[3:, None] / 127 * 0.501).all()


@every_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_or_column_that_is_not_finite_stays_alone(engine: Engine, bad: float) -> None:
    """In int8 infinity, too, makes NaN: no scale holds it beside other numbers."""
    a, w, bias = operands(37, 40, 70)
    good = engine.product(a, w, bias)
    for at in (0, 63, 69):
        broken = a.copy()
        broken[33, at] = bad
        c = engine.product(broken, w, bias)
        assert np.isnan(c[33]).all() if engine.integers or np.isnan(bad) else not np.isfinite(c[33]).any()
        np.testing.assert_array_equal(np.delete(c, 33, 0), np.delete(good, 33, 0))
        broken = w.copy()
        broken[at, 35] = bad
        c = engine.product(a, broken, bias)
        assert np.isnan(c[:, 35]).all() if engine.integers or np.isnan(bad) else not np.isfinite(c[:, 35]).any()
        np.testing.assert_array_equal(np.delete(c, 35, 1), np.delete(good, 35, 1))


# ---- twins


@pytest.mark.parametrize(
    ("isa", "twin"), [("amx", "amx_twin"), ("avx512_bf16", "plain"), ("avx512_bf16", "avx2"), ("avx2", "plain")]
)
def test_an_instruction_of_bfloat16_and_its_twin_have_the_same_bits(isa: str, twin: str) -> None:
    """So what is tested of the twin, on any CPU, holds for the instruction."""
    engines = [Engine("bfloat16", isa), Engine("bfloat16", twin)]
    if missing := [engine.isa for engine in engines if engine not in ENGINES]:
        pytest.skip(f"this CPU or build lacks {', '.join(missing)}")
    for m, n, k in ((33, 40, 1), (33, 40, 70), (17, 33, 129), (5, 33, 2000)):
        a, w, bias = operands(m, n, k)
        np.testing.assert_array_equal(*(engine.product(a, w, bias) for engine in engines))
    for m, n, k in ((33, 40, 1), (33, 40, 70), (17, 33, 600)):
        a, b, results = operands(k, 1, m)[0], operands(k, 1, n, seed=1)[0], []
        for engine in engines:
            results.append(np.ones((m, n), np.float32))
            engine.outer(results[-1], a, b, m, n)
        np.testing.assert_array_equal(*results)


@every_bfloat16
def test_products_too_small_for_float32_are_lost_or_kept_by_all(engine: Engine) -> None:
    """Instructions of bfloat16 make 0 of results below 2^-126; nobody sees more than that."""
    a = np.array([[2.0**-64], [2.0**-100]], np.float32)
    c = engine.product(a, np.array([[2.0**-64, 2.0**-20]], np.float32))
    assert (np.abs(c - a.astype(np.float64) * [2.0**-64, 2.0**-20]) <= 2.0**-126).all()


# ---- memory and mistakes


def test_no_engine_touches_memory_beyond_its_operands() -> None:
    script = SUPPORT / "engines_guard_page.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout[-300:] + run.stderr


def test_the_best_engine_is_the_one_that_models_use() -> None:
    for compute in ("bfloat16", "int8"):
        first = next(isa for name, isa in testing.engines() if name == compute)
        assert _core.COMPUTE[compute] in (first, None)


def test_engines_and_operands_that_do_not_fit() -> None:
    engine = Engine("int8", "plain")
    a, w, bias = operands(2, 3, 5)
    left, right, c = engine.convert(a), engine.pack(w), np.zeros((2, 3), np.float32)
    for name in (("float32", "plain"), ("int8", "sse9"), ("int4", "plain")):
        with pytest.raises(ValueError, match=f"no engine here is called {name[1]} of {name[0]}"):
            testing.engine_bytes(*name, 1, 1, 1)
    with pytest.raises(ValueError, match="M, N and K must be positive"):
        engine.sizes(1, 0, 1)
    with pytest.raises(ValueError, match=r"left has .* elements; expected"):
        testing.engine_convert(*engine, left[:-64], a)
    with pytest.raises(ValueError, match="right does not lie at a multiple of 64 bytes"):
        testing.engine_pack(*engine, new_bytes(right.size + 64)[4 : 4 + right.size], w, False)
    with pytest.raises(ValueError, match=r"right has .* elements; expected"):
        engine.multiply(c, left, right[:-64], 5)
    with pytest.raises(ValueError, match="no gradients are summed in int8; expected bfloat16"):
        engine.outer(c, w, w, 2, 3)
    with pytest.raises(ValueError, match=r"c, a and b do not hold \(M, N\), \(K, M\) and \(K, N\)"):
        Engine("bfloat16", "plain").outer(c, w, w, 2, 4)
    for threads in (0, 257):
        with pytest.raises(ValueError, match=f"threads is {threads}; expected 1 to 256"):
            engine.multiply(c, left, right, 5, threads=threads)
    with pytest.raises(ValueError, match="K must be positive"):
        engine.multiply(c, left, right, 0)
    with pytest.raises(ValueError, match="bias has the wrong shape"):
        engine.multiply(c, left, right, 5, bias[:2].copy())
