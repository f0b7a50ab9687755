"""Matrices in int8 with a scale for each row: what is rounded, and that it is the same when it is rounded again."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.formats import int8
from kdistill.formats.int8 import Int8Tensor, rounded, widened
from kdistill.formats.mapped_tensor import StoredTensor, contiguous_strides


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


def test_a_matrix_is_rounded_in_parts_of_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    expected = np.rint(values / (np.abs(values).max(axis=1, keepdims=True) / 127))
    for block in (1, 6, 15, 100):
        monkeypatch.setattr(int8, "_BLOCK", block)
        np.testing.assert_array_equal(rounded(values).integers, expected)


def stored(values: np.ndarray, element_type: str) -> StoredTensor:
    return StoredTensor(element_type, values.shape, contiguous_strides(values.shape), 0, values.view(np.uint8).ravel())


def tensor(scales: np.ndarray, element_type: str = "F32") -> Int8Tensor:
    integers = np.array([[1, -2, 127], [0, 3, -127]], np.int8)
    return Int8Tensor.of("file: 'w'", stored(integers, "I8"), stored(scales, element_type))


def test_a_stored_matrix_reads_as_its_integers_times_their_scales() -> None:
    read = tensor(np.array([[0.5], [0]], np.float32))
    np.testing.assert_array_equal(read.read(), [[0.5, -1, 63.5], [0, 0, 0]])
    np.testing.assert_array_equal(read.rows().integers, [[1, -2, 127], [0, 3, -127]])
    assert not any(array.flags.writeable for array in read.rows())


@pytest.mark.parametrize("scale", [np.inf, np.nan, -0.5])
def test_scales_are_finite_and_not_negative(scale: float) -> None:
    damaged = tensor(np.array([[0.5], [scale]], np.float32))
    for read in (damaged.read, damaged.rows):
        with pytest.raises(ValueError, match="file: 'w' has scales that are negative or not finite"):
            read()


def test_scales_are_a_float32_for_each_row() -> None:
    for scales, element_type in (
        (np.ones((2, 1), np.float64), "F64"),
        (np.ones((2, 1), np.float16), "F16"),
        (np.ones((1, 2), np.float32), "F32"),
        (np.ones(2, np.float32), "F32"),
    ):
        with pytest.raises(ValueError, match=rf"with scales {element_type} of shape .* a float32 for each of its rows"):
            tensor(scales, element_type)
