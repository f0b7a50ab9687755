"""Attention of bfloat16, by every engine that this CPU can run, against float64 on the rounded operands.

The bounds are derived in docs/numerics.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support.engines import ENGINES, Bytes, Engine, Floats, new_bytes, to_bfloat16

from kdistill._core import testing

# Registers hold 4, 8 and 16 keys, blocks 32; blocks have 4, 12, 16 or 32 queries; beyond 64 keys heads go one by one.
LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100]
SHAPES = [
    *((n, 5, 32) for n in LENGTHS),
    *((n, 2, 64) for n in LENGTHS),
    *((n, 3, 10) for n in LENGTHS),
    *((6, heads, width) for heads in (1, 2, 7) for width in (1, 2, 3, 15, 16, 17, 31, 33, 48, 96)),
    (300, 2, 32),
    (7, 13, 32),
]
UNIT = 2.0**-24
BFLOAT16 = [engine for engine in ENGINES if not engine.integers]
every_bfloat16 = pytest.mark.parametrize("engine", BFLOAT16, ids="-".join)
Doubles = NDArray[np.float64]


class Case(NamedTuple):
    """Rows of several sequences, of which one is attended to."""

    q: Floats
    k: Floats
    v: Floats
    first: int
    n: int
    heads: int

    @property
    def width(self) -> int:
        return self.q.shape[1] // self.heads

    def by_heads(self, x: Floats) -> Doubles:
        """Return the sequence's rounded rows as (heads, n, width)."""
        rows = to_bfloat16(x[self.first : self.first + self.n]).astype(np.float64)
        return rows.reshape(self.n, self.heads, self.width).transpose(1, 0, 2)


def case_of(n: int, heads: int, width: int, first: int = 3, behind: int = 2) -> Case:
    rng = np.random.default_rng(1000 * n + 10 * heads + width)
    q, k, v = (rng.standard_normal((first + n + behind, heads * width)).astype(np.float32) for _ in range(3))
    return Case(2 * q, k, v * np.exp2(rng.integers(-6, 6, (len(v), 1))).astype(np.float32), first, n, heads)


def attend(engine: Engine, case: Case) -> tuple[Floats, Floats, Bytes]:
    """Return ctx (n, heads * width), scores (heads, n, n) and the bytes of the operand with ctx."""
    m, a = case.q.shape
    scores = np.zeros((case.heads, case.n, case.n), np.float32)
    ctx = new_bytes(engine.sizes(m, 1, a)[0])
    operands = (engine.convert(x) for x in (case.q, case.k, case.v))
    engine.attend(ctx, *operands, m, case.first, scores, width=case.width)
    return engine.widen(ctx, m, a)[case.first : case.first + case.n], scores, ctx


def roundings_of(engine: Engine, k: int) -> int:
    """Return how many additions a term of a sum of k passes; none of them is a bias."""
    return min(16, -(-k // 2)) + 1 + -(-k // 32) if engine.isa.startswith("amx") else k


def scores_and_bound(engine: Engine, case: Case) -> tuple[Doubles, Doubles]:
    q, k = case.by_heads(case.q), case.by_heads(case.k)
    scale, r = case.width**-0.5, roundings_of(engine, case.width) * UNIT
    exact, terms = q @ k.transpose(0, 2, 1), np.abs(q) @ np.abs(k).transpose(0, 2, 1)
    return scale * exact, scale * (r / (1 - r) + 2 * UNIT) * terms


@every_bfloat16
def test_attention_is_that_of_the_rounded_operands(engine: Engine) -> None:
    for n, heads, width in SHAPES:
        case = case_of(n, heads, width)
        ctx, scores, _ = attend(engine, case)
        exact, bound = scores_and_bound(engine, case)
        assert (np.abs(scores - exact) <= bound).all(), (n, heads, width)
        e = np.exp(exact - exact.max(axis=2, keepdims=True))
        p, v = e / e.sum(axis=2, keepdims=True), case.by_heads(case.v)
        # An exponential is off by its argument's error, by that of exp, and by rounding to bfloat16, the sum by n more.
        argument = bound.max(axis=2, keepdims=True) + 4 * UNIT * np.abs(exact).max(axis=2, keepdims=True)
        off = 2.0**-8 + 2 * (argument + 2e-7) + (roundings_of(engine, n) + n + 4) * UNIT
        error = np.abs(p @ v - ctx.reshape(n, heads, width).transpose(1, 0, 2))
        allowed = (1 + 2.0**-8) * 1.01 * off * (p @ np.abs(v)) + 2.0**-8 * np.abs(p @ v) + 2.0**-120
        assert (error <= allowed).all(), (n, heads, width)


@every_bfloat16
def test_rounding_the_exponentials_is_the_greatest_error(engine: Engine) -> None:
    """With the exponentials rounded in float64, too, all but a few results have the same bits."""
    for n, heads, width in ((13, 5, 32), (40, 2, 64), (20, 3, 10)):
        case = case_of(n, heads, width)
        exact, v = scores_and_bound(engine, case)[0], case.by_heads(case.v)
        e = np.exp(exact - exact.max(axis=2, keepdims=True))
        rounded = to_bfloat16(e.astype(np.float32)).astype(np.float64)
        ctx = (rounded @ v / e.sum(axis=2, keepdims=True)).transpose(1, 0, 2).reshape(n, -1)
        found = attend(engine, case)[0]
        assert (found == to_bfloat16(ctx.astype(np.float32))).mean() > 0.98


@every_bfloat16
def test_a_sequence_has_the_same_bits_wherever_it_lies(engine: Engine) -> None:
    for n, heads, width in ((1, 5, 32), (13, 5, 32), (40, 2, 64), (70, 2, 32), (9, 3, 10)):
        case, m = case_of(n, heads, width), n + 5
        ctx, scores, written = attend(engine, case)
        alone = case._replace(**{x: np.ascontiguousarray(getattr(case, x)[3 : 3 + n]) for x in "qkv"}, first=0)
        for one, two in zip((ctx, scores), attend(engine, alone), strict=False):
            np.testing.assert_array_equal(one, two)
        untold = new_bytes(written.size)
        operands = (engine.convert(x) for x in (case.q, case.k, case.v))
        scratch = new_bytes(testing.engine_attend_bytes(*engine, n, heads, width))
        testing.engine_attend(*engine, untold, None, *operands, m, 3, n, heads, width, 0, heads, scratch)
        np.testing.assert_array_equal(engine.widen(untold, m, heads * width)[3 : 3 + n], ctx)
        stride = written.size // (m + 32)
        others = np.r_[0:3, 3 + n : m + 32]
        assert (written.reshape(m + 32, stride)[others] == 0xA5).all()


@every_bfloat16
def test_heads_by_themselves_have_the_bits_of_all(engine: Engine) -> None:
    """In any order: a head's results end where the next head's begin."""
    for n, heads, width in ((13, 5, 32), (70, 3, 64), (9, 3, 10), (6, 7, 1), (6, 7, 33), (300, 2, 32)):
        case = case_of(n, heads, width)
        _, scores, written = attend(engine, case)
        ctx, others = new_bytes(written.size), np.zeros_like(scores)
        operands = (engine.convert(x) for x in (case.q, case.k, case.v))
        parts = [(heads - 1, heads), (0, 1), *([(1, heads - 1)] if heads > 2 else [])]
        engine.attend(ctx, *operands, len(case.q), 3, others, width=width, parts=parts)
        np.testing.assert_array_equal(others, scores)
        np.testing.assert_array_equal(ctx, written)


@every_bfloat16
def test_ctx_is_an_operand_with_zeros_behind_its_numbers(engine: Engine) -> None:
    for n, heads, width in ((5, 3, 10), (5, 7, 33), (5, 1, 1), (5, 2, 64)):
        case = case_of(n, heads, width, first=0, behind=0)
        found = engine.left_numbers(attend(engine, case)[2], n, heads * width)[0]
        assert not found[:, heads * width :].any()
        assert found[:, : heads * width].all()


@every_bfloat16
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("heads", "width"), [(3, 32), (3, 10)])
def test_what_is_not_finite_stays_in_its_head(engine: Engine, heads: int, width: int, bad: float) -> None:
    for name, row in (("q", 7), ("k", 9), ("v", 11)):
        case = case_of(14, heads, width)
        good = attend(engine, case)[0]
        getattr(case, name)[row + 3, width + 1] = bad
        ctx = attend(engine, case)[0]
        kept = np.ones(ctx.shape, bool)
        kept[7 if name == "q" else slice(None), width : 2 * width] = False
        np.testing.assert_array_equal(ctx[kept], good[kept])
        changed = ctx[7, width : 2 * width] if name != "v" else ctx[:, width + 1]
        assert not np.isfinite(changed).any() or name == "k"
        assert name != "k" or not np.isfinite(ctx[:, width : 2 * width]).all()


@pytest.mark.parametrize(("isa", "twin"), [("amx", "amx_twin"), ("avx512_bf16", "plain"), ("avx2", "plain")])
def test_scores_of_an_instruction_and_of_its_twin_have_the_same_bits(isa: str, twin: str) -> None:
    """What follows them is float32 in registers of another width, whose sums have another order."""
    engines = [Engine("bfloat16", isa), Engine("bfloat16", twin)]
    if missing := [engine.isa for engine in engines if engine not in ENGINES]:
        pytest.skip(f"this CPU or build lacks {', '.join(missing)}")
    for n, heads, width in ((13, 5, 32), (70, 2, 64), (20, 3, 10)):
        case = case_of(n, heads, width)
        (one, scores, _), (two, others, _) = (attend(engine, case) for engine in engines)
        np.testing.assert_array_equal(scores, others)
        assert (one == two).mean() > 0.98


@every_bfloat16
def test_an_operand_is_widened_to_its_numbers(engine: Engine) -> None:
    x = case_of(9, 3, 11).q
    np.testing.assert_array_equal(engine.widen(engine.convert(x), *x.shape), to_bfloat16(x))


def test_mistakes_are_named() -> None:
    engine = Engine("bfloat16", "plain")
    x, scores = np.ones((4, 6), np.float32), np.zeros((2, 4, 4), np.float32)
    operand, ctx = engine.convert(x), new_bytes(engine.sizes(4, 1, 6)[0])
    with pytest.raises(ValueError, match="the engine plain of int8 computes no attention"):
        Engine("int8", "plain").widen(operand, 4, 6)
    with pytest.raises(ValueError, match="first, n, heads and their width are no part of m rows"):
        engine.attend(ctx, operand, operand, operand, 4, 1, scores, width=3)
    with pytest.raises(ValueError, match="from_head and to_head are no part of the heads"):
        engine.attend(ctx, operand, operand, operand, 4, 0, scores, width=3, parts=[(1, 3)])
    with pytest.raises(ValueError, match=r"k has .* elements; expected"):
        engine.attend(ctx, operand, operand[:-64], operand, 4, 0, scores, width=3)
    with pytest.raises(ValueError, match="n, heads and their width must be positive"):
        testing.engine_attend_bytes(*engine, 0, 1, 1)
