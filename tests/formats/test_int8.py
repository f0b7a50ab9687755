"""Matrices in int8 with a scale for each row: what is rounded, and that it is the same when it is rounded again."""

from __future__ import annotations

import numpy as np

from kdistill.formats.int8 import rounded, widened


def test_a_scale_is_the_same_for_each_significand_of_a_quotient() -> None:
    greatest = np.arange(1 << 23, 1 << 24, dtype=np.uint32).astype(np.float32)
    scales = greatest / np.float32(127)
    np.testing.assert_array_equal(np.float32(127) * scales / np.float32(127), scales)


def test_rounding_what_was_widened_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((200, 33)) * np.exp(8 * rng.standard_normal((200, 1)))).astype(np.float32)
    values[3], values[4], values[5, 7] = 0, 1e-37, 1e30
    matrix = rounded(values)
    again = rounded(widened(*matrix))
    np.testing.assert_array_equal(again.integers, matrix.integers)
    np.testing.assert_array_equal(again.scales, matrix.scales)


def test_numbers_half_way_between_two_integers_become_the_even_one() -> None:
    matrix = rounded(np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32))
    np.testing.assert_array_equal(matrix.integers, [[127, 0, 2, 2, 0, -2]])
    np.testing.assert_array_equal(matrix.scales, [[1]])


def test_a_row_below_the_smallest_scale_counts_as_zero() -> None:
    tiny, least = np.float32(2.0**-111), np.float32(2.0**-110)
    matrix = rounded(np.array([[tiny, -tiny], [least, 0]], np.float32))
    np.testing.assert_array_equal(matrix.integers, [[0, 0], [127, 0]])
    assert matrix.scales[0] == 0
