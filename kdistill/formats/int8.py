"""Matrices in int8 with a scale for each row: rounded, stored beside their scales, and widened again.

The integers are those that the int8 engines make of float32 weights (csrc/arithmetic/kd_engine_narrow.inc). What
`widened` returns has the same integers and scales when an engine packs it, so that products of a stored matrix have the
bits of the original's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .mapped_tensor import StoredTensor

SCALES = "_scale"
"""What the name of the scales has behind the matrix's, as compressed-tensors names them."""
_LARGEST = np.float32(127)
_LEAST_COUNTED = np.float32(2.0**-110)  # a row below counts as 0: its inverse would be infinite
_BLOCK = 1 << 20  # numbers that are rounded at once

Floats = NDArray[np.float32]
Integers = NDArray[np.int8]


class Int8Rows(NamedTuple):
    """A matrix as int8 (rows, columns), and the float32 scales (rows, 1) that its rows are multiplied with."""

    integers: Integers
    scales: Floats


def rounded(values: Floats) -> Int8Rows:
    """Return a matrix, float32 (rows, columns) of finite numbers, in int8.

    A row's scale is its greatest magnitude over 127, and numbers become the nearest integers, ties to even. As in C,
    what is rounded is the exact product with the inverse of the scale, which float64 holds.
    """
    greatest = np.abs(values).max(axis=1, keepdims=True)
    counted = greatest >= _LEAST_COUNTED
    scales = np.where(counted, greatest / _LARGEST, np.float32(0))
    inverses = np.divide(_LARGEST, greatest, out=np.zeros_like(greatest), where=counted).astype(np.float64)
    integers = np.empty(values.shape, np.int8)
    rows = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        integers[part] = np.rint(values[part] * inverses[part])
    return Int8Rows(integers, scales)


def widened(integers: Integers, scales: Floats) -> Floats:
    """Return a matrix in float32: each integer times its row's scale. Its rounding gives the matrix back.

    For the scale is a 127th of a float32, rounded. Its significand is no odd multiple of 64, of which alone 127 times
    the scale would lie half way between two float32 and its 127th part be another scale.
    """
    values: Floats = integers * scales
    return values


@dataclass(frozen=True)
class Int8Tensor:
    """A matrix in a mapped file, int8 beside its scales, which reads as float32.

    Attributes:
        name: file and tensor, for messages.
        integers: int8 (rows, columns).
        scales: float32 (rows, 1).
    """

    name: str
    integers: StoredTensor
    scales: StoredTensor
    element_type = "I8"
    is_float = True

    @classmethod
    def of(cls, name: str, integers: StoredTensor, scales: StoredTensor) -> Self:
        """Return the tensor; raise ValueError for scales that are not those of the rows."""
        if len(integers.shape) != 2 or scales.shape != (integers.shape[0], 1) or scales.element_type != "F32":
            raise ValueError(
                f"{name} is int8 of shape {integers.shape} with scales {scales.element_type} of shape {scales.shape}; "
                "expected a matrix and a float32 for each of its rows, (rows, 1)"
            )
        return cls(name, integers, scales)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.integers.shape

    def read(self) -> Floats:
        """Return the matrix in float32, see `fill`."""
        values = np.empty(self.shape, np.float32)
        self.fill(values)
        return values

    def fill(self, values: Floats) -> None:
        """Write the matrix in float32, as `widened` returns it, to an array of its shape, without another copy.

        Raises:
            ValueError: it has scales or integers that it cannot have.
        """
        integers, scales = self._checked()
        np.multiply(integers, scales, out=values)

    def rows(self) -> Int8Rows:
        """Return a read-only copy of the matrix as it is stored; raises what `fill` raises."""
        copies = Int8Rows(*map(np.array, self._checked()))
        for array in copies:
            array.flags.writeable = False
        return copies

    def _checked(self) -> Int8Rows:
        integers, scales = self.integers.elements(), self.scales.read()
        if not (np.isfinite(scales).all() and (scales >= 0).all() and integers.min(initial=0) > -128):
            raise ValueError(
                f"{self.name} has scales that are negative or not finite, or integers below -127; the file is damaged, "
                "or kdistill did not write it"
            )
        return Int8Rows(integers, scales)

    def release(self) -> None:
        """Give the mapped file's memory back, see `StoredTensor.release`."""
        self.integers.release()
        self.scales.release()


def with_scales(path: Path, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor | Int8Tensor]:
    """Return the tensors of a file, each matrix of int8 together with its scales.

    Raises:
        ValueError: a matrix has scales of another shape or type; names file and tensor.
    """
    scaled = {name for name in stored if stored[name].element_type == "I8" and name + SCALES in stored}
    return {
        name: Int8Tensor.of(f"{path}: {name!r}", tensor, stored[name + SCALES]) if name in scaled else tensor
        for name, tensor in stored.items()
        if name.removesuffix(SCALES) not in scaled or name in scaled
    }
