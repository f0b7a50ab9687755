"""Matrix products against float64, over sizes around every tile, register and block of the kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill._core import testing

# The kernels' tiles are 4, 6, 12, 16 and 32 wide and registers 4, 8 and 16; each with its neighbours.
AWKWARD = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 64, 65, 70]
# k is cut at 256, 384 or 768, depending on product and level; longer runs are added to what is there.
LONG = [255, 256, 257, 383, 384, 385, 511, 512, 513, 767, 768, 769, 1030]
UNIT_ROUNDOFF = 2.0**-24


def operands(m: int, k: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng([m, k, n])
    return rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)


def is_product(
    c: NDArray[np.float32], start: float | NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]
) -> bool:
    """Whether every element of c is start + a b, each within its own bound.

    Whatever the order of the sum, and with or without fused multiply-add, the error of k products added to c is
    at most g (|c| + |a| |b|) with g = (k + 1) u / (1 - (k + 1) u)  (Higham, Accuracy and Stability, 3.1 and 3.5).
    """
    k = a.shape[1]
    exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    bound = (k + 1) * UNIT_ROUNDOFF / (1 - (k + 1) * UNIT_ROUNDOFF)
    error = np.abs(c - (start + exact_a @ exact_b))
    return bool((error <= bound * (np.abs(start) + np.abs(exact_a) @ np.abs(exact_b))).all())


def check(m: int, k: int, n: int, *, transposed: bool, start: float = 0.0) -> None:
    """Compare c + a b, or c + a^T b, with float64."""
    a, b = operands(m, k, n)
    c = np.full((m, n), start, np.float32)
    testing.product(c, np.ascontiguousarray(a.T) if transposed else a, b, transposed)
    assert is_product(c, start, a, b), (m, k, n)


@pytest.mark.parametrize("transposed", [False, True])
def test_every_size_up_to_70(transposed: bool) -> None:
    for size in range(1, 71):
        for m, k, n in ((size, 9, 10), (9, size, 10), (9, 10, size), (size, size, size), (1, size, 1)):
            check(m, k, n, transposed=transposed)


@pytest.mark.parametrize("transposed", [False, True])
def test_awkward_sizes_together(transposed: bool) -> None:
    for m, k, n in itertools.product(AWKWARD, AWKWARD[::3], AWKWARD):
        check(m, k, n, transposed=transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", LONG)
def test_long_sums_are_cut_and_added(k: int, transposed: bool) -> None:
    for m, n in ((1, 1), (5, 7), (13, 33), (50, 35)):
        check(m, k, n, transposed=transposed)


@pytest.mark.parametrize("size", [256, 300, 513, 1008, 1024, 1040])
def test_wide_and_tall(size: int) -> None:
    """More features than a block of panels holds; from 1024 on, a weight gradient's operands are packed."""
    for transposed in (False, True):
        check(7, 33, size, transposed=transposed)
        check(size, 33, 7, transposed=transposed)
    check(65, 520, size, transposed=False)


@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_added_to_c(transposed: bool) -> None:
    for m, k, n in ((1, 1, 1), (6, 16, 16), (7, 300, 17), (33, 5, 35), (13, 1030, 33)):
        check(m, k, n, transposed=transposed, start=3.0)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_has_the_same_bits_in_any_product(transposed: bool) -> None:
    """This makes a sentence's logits the same alone and in any batch."""
    a, b = operands(65, 300, 37)
    whole = np.zeros((65, 37), np.float32)
    testing.product(whole, np.ascontiguousarray(a.T) if transposed else a, b, transposed)
    for first, last in ((0, 1), (3, 9), (40, 65), (64, 65)):
        part, rows = np.zeros((last - first, 37), np.float32), a[first:last]
        testing.product(part, np.ascontiguousarray(rows.T if transposed else rows), b, transposed)
        np.testing.assert_array_equal(part, whole[first:last])


@pytest.mark.parametrize("transposed", [False, True])
def test_part_of_a_packed_operand(transposed: bool) -> None:
    """The part of a weight that a head takes: rows and columns that begin and end anywhere in its panels."""
    for m, k, n, row, first in itertools.product((1, 5, 13), (1, 9), (1, 12, 20, 40), (0, 3), (0, 1, 12, 31, 33)):
        a, _ = operands(m, k, n)
        _, whole = operands(m, row + k + 2, first + n + 7)
        packed = testing.pack_right(np.ascontiguousarray(whole.T) if transposed else whole, transposed)
        part, bias = whole[row : row + k, first : first + n], np.arange(n, dtype=np.float32)
        for start in (None, bias):
            c = np.full((m, n), 3, np.float32)
            testing.packed_product(c, a, packed, len(whole), row, first, start, None, None)
            assert is_product(c, np.float32(3) if start is None else bias, a, part), (m, k, n, row, first)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu", "tanh", "silu", "quick_gelu"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (7, 9, 33), (13, 768, 64), (13, 800, 70), (3, 1600, 35)])
def test_what_follows_a_product_sees_complete_sums(m: int, k: int, n: int, name: str) -> None:
    """k beyond 768 is summed in several runs, as in BERT-large; only the last may be followed by the activation."""
    a, b = operands(m, k, n)
    packed, bias = testing.pack_right(b, False), np.linspace(-1, 1, n, dtype=np.float32)
    plain, c, alone = (np.zeros((m, n), np.float32) for _ in range(3))
    slope, factor = np.full((m, n), 9, np.float32), np.full((m, n), 3, np.float32)
    testing.packed_product(plain, a, packed, k, 0, 0, bias, None, factor)
    assert is_product(plain, bias, a, b)
    np.testing.assert_array_equal(factor, 3 * plain)
    testing.packed_product(c, a, packed, k, 0, 0, bias, name, slope)
    testing.packed_product(alone, a, packed, k, 0, 0, bias, name, None)
    value, derivative = testing.activation(plain.ravel(), np.ones(m * n, np.float32), name)
    np.testing.assert_array_equal(c.ravel(), value)
    np.testing.assert_array_equal(alone, c)
    np.testing.assert_array_equal(slope.ravel(), derivative)


def test_dots_of_few_rows() -> None:
    for m, k, n in itertools.product((1, 2, 5), AWKWARD, (1, 3, 4, 5, 9, 16)):
        a, b = operands(m, k, n)
        start, c = np.arange(m, dtype=np.float32), np.zeros((m, n), np.float32)
        testing.dots(c, start, a, np.ascontiguousarray(b.T))
        assert is_product(c, start[:, None], a, b), (m, k, n)


def test_add_scaled() -> None:
    for size in AWKWARD:
        x, y = operands(1, 1, size)[1][0], np.arange(size, dtype=np.float32)
        testing.add_scaled(y, x, -0.75)
        assert is_product(y[None], np.arange(size, dtype=np.float32), np.full((1, 1), -0.75, np.float32), x[None])


def test_subnormal_numbers_are_not_flushed() -> None:
    tiny = np.full((1, 1), 1e-39, np.float32)
    c = np.zeros((1, 1), np.float32)
    testing.product(c, tiny, np.full((1, 1), 0.5, np.float32), False)
    assert c[0, 0] == tiny[0, 0] * np.float32(0.5) > 0


def test_infinity_and_nan_come_through() -> None:
    a = np.ones((3, 5), np.float32)
    a[1, 4], a[2, 0] = np.inf, np.nan
    c = np.zeros((3, 2), np.float32)
    testing.product(c, a, np.ones((5, 2), np.float32), False)
    np.testing.assert_array_equal(c, [[5, 5], [np.inf, np.inf], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("c", "a", "b", "transposed", "message"),
    [
        ((2, 3), (2, 4), (5, 3), False, "a has the wrong shape; expected 2 x 5"),
        ((2, 4), (2, 5), (5, 3), False, "c has the wrong shape; expected 2 x 3"),
        ((3, 2), (2, 5), (5, 3), False, "c has the wrong shape; expected 2 x 3"),
        ((2, 3), (4, 2), (5, 3), True, "a has the wrong shape; expected 5 x 2"),
        ((2, 3), (2, 0), (0, 3), False, "a is empty"),
    ],
)
def test_shapes_that_do_not_fit(
    c: tuple[int, int], a: tuple[int, int], b: tuple[int, int], transposed: bool, message: str
) -> None:
    arrays = [np.zeros(shape, np.float32) for shape in (c, a, b)]
    with pytest.raises(ValueError, match=message):
        testing.product(*arrays, transposed)


def test_parts_that_do_not_exist() -> None:
    a, c = np.zeros((2, 5), np.float32), np.zeros((2, 3), np.float32)
    packed = testing.pack_right(np.zeros((6, 4), np.float32), False)
    columns = packed.size // 6
    for rows, row, first in ((6, 2, 0), (6, -1, 0), (6, 0, -1), (6, 0, columns - 2), (0, 0, 0), (4, 0, 0), (7, 0, 0)):
        with pytest.raises(ValueError, match="right lacks some of these rows and columns"):
            testing.packed_product(c, a, packed, rows, row, first, None, None, None)
    with pytest.raises(ValueError, match="a is empty"):
        testing.packed_product(c, np.zeros((2, 0), np.float32), packed, 6, 0, 0, None, None, None)
    with pytest.raises(ValueError, match="bias has the wrong shape"):
        testing.packed_product(c, a, packed, 6, 0, 0, np.zeros(4, np.float32), None, None)
    with pytest.raises(ValueError, match="slope has the wrong shape; expected 2 x 3"):
        testing.packed_product(c, a, packed, 6, 0, 0, None, None, np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="b has the wrong shape; expected 3 x 5"):
        testing.dots(c, np.zeros(2, np.float32), a, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="y has 2 elements; expected 3"):
        testing.add_scaled(np.zeros(2, np.float32), np.zeros(3, np.float32), 1.0)


def test_other_types_and_strides_are_refused() -> None:
    good = np.zeros((4, 4), np.float32)
    with pytest.raises(TypeError, match="a must be an array of float32, not of float64"):
        testing.product(good, np.zeros((4, 4)), good, False)
    with pytest.raises(TypeError, match="b must be a NumPy array of float32"):
        testing.product(good, good, [[0.0] * 4] * 4, False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a is not C-contiguous"):
        testing.product(good, np.zeros((4, 8), np.float32)[:, ::2], good, False)
    locked = np.zeros((4, 4), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="c is read-only"):
        testing.product(locked, good, good, False)
