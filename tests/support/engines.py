"""The engines of bfloat16 and int8 on plain arrays, and their operands read by the layout of kd_engine_narrow.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdistill._core import testing
from kdistill.system.threads import aligned_zeros

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LINE, PANEL, BLOCK_COLUMNS = 64, 16, 32
_LEFT_KINDS = {("int8", "avx2"): np.dtype(np.int16)}
_UNSIGNED = {("int8", "avx512_vnni"), ("int8", "avx_vnni")}  # 128 is added to their left numbers
_WIDENED = {("bfloat16", "avx2"), ("bfloat16", "plain")}  # their left numbers are kept in 32 bits


class Engine(NamedTuple):
    """One engine: a compute type and the instruction set that multiplies it."""

    compute: str
    isa: str

    @property
    def integers(self) -> bool:
        return self.compute == "int8"

    @property
    def line_numbers(self) -> int:
        return 64 if self.integers else 32

    def sizes(self, m: int, n: int, k: int) -> tuple[int, int]:
        return testing.engine_bytes(self.compute, self.isa, m, n, k)

    def convert(self, a: Floats) -> Bytes:
        left = new_bytes(self.sizes(a.shape[0], 1, a.shape[1])[0])
        testing.engine_convert(self.compute, self.isa, left, a)
        return left

    def pack(self, w: Floats, *, transposed: bool = False) -> Bytes:
        k, n = w.shape[::-1] if transposed else w.shape
        right = new_bytes(self.sizes(1, n, k)[1])
        testing.engine_pack(self.compute, self.isa, right, w, transposed)
        return right

    def multiply(
        self,
        c: Floats,
        left: Bytes,
        right: Bytes,
        k: int,
        bias: Floats | None = None,
        activation: str | None = None,
        slope: Floats | None = None,
        following: Bytes | None = None,
        threads: int = 1,
    ) -> None:
        testing.engine_product(self.compute, self.isa, c, left, right, k, bias, activation, slope, following, threads)

    def product(
        self,
        a: Floats,
        w: Floats,
        bias: Floats | None = None,
        activation: str | None = None,
        *,
        transposed: bool = False,
    ) -> Floats:
        """Return activation(a w + bias) for a (M, K) and w (K, N), or with `transposed` w (N, K)."""
        n = w.shape[0 if transposed else 1]
        c = np.zeros((a.shape[0], n), np.float32)
        zero = np.zeros(n, np.float32)
        self.multiply(
            c,
            self.convert(a),
            self.pack(w, transposed=transposed),
            a.shape[1],
            zero if bias is None else bias,
            activation,
        )
        return c

    def outer(self, c: Floats, a: Floats, b: Floats, m: int, n: int) -> None:
        """Add the transpose of a[:, :m] times b[:, :n] to c[:m, :n]."""
        scratch = new_bytes(testing.engine_outer_bytes(self.compute, self.isa, m, n))
        testing.engine_outer(self.compute, self.isa, c, a, b, m, n, scratch)

    def widen(self, operand: Bytes, m: int, k: int) -> Floats:
        """Return the numbers (M, K) of a left operand of bfloat16."""
        a = np.zeros((m, k), np.float32)
        testing.engine_widen(self.compute, self.isa, a, operand)
        return a

    def attend(
        self,
        ctx: Bytes,
        q: Bytes,
        k: Bytes,
        v: Bytes,
        m: int,
        first: int,
        scores: Floats,
        *,
        width: int,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Write the attention of rows from `first` on to ctx, and scores (heads, n, n), whose shape decides.

        Parts are the heads, (from, to), of each call; by default one has all.
        """
        heads, n, _ = scores.shape
        scratch = new_bytes(testing.engine_attend_bytes(self.compute, self.isa, n, heads, width))
        operands = (ctx, scores, q, k, v)
        for part in parts or [(0, heads)]:
            testing.engine_attend(self.compute, self.isa, *operands, m, first, n, heads, width, *part, scratch)

    def left_numbers(self, left: Bytes, m: int, k: int) -> tuple[Floats, Floats]:
        """Return the numbers (M, whole lines) of a left operand, and the scale of each row (1 in bfloat16)."""
        lines = -(-k // self.line_numbers)
        kind = _LEFT_KINDS.get(self, np.dtype(np.int8))
        if not self.integers:
            kind = np.dtype(np.uint32 if self in _WIDENED else np.uint16)
        elif self in _UNSIGNED:
            kind = np.dtype(np.uint8)
        used = lines * self.line_numbers * kind.itemsize
        rows = left.reshape(-1, row_bytes(used))[:m]
        numbers = np.ascontiguousarray(rows[:, :used]).view(kind)
        if self.integers:
            scales = np.ascontiguousarray(rows[:, used : used + 4]).view(np.float32)[:, 0]
            return numbers.astype(np.float32) - (128 if self in _UNSIGNED else 0), scales
        bits = numbers if self in _WIDENED else numbers.astype(np.uint32) << 16
        return np.ascontiguousarray(bits).view(np.float32), np.ones(m, np.float32)

    def right_numbers(self, right: Bytes, k: int, n: int) -> tuple[Floats, Floats]:
        """Return the numbers (whole lines, whole blocks) of a right operand, and the scale of each column."""
        lines, columns = -(-k // self.line_numbers), -(-n // BLOCK_COLUMNS) * BLOCK_COLUMNS
        group = 4 if self.integers else 2
        used = lines * LINE * PANEL * columns // PANEL
        kind = np.int8 if self.integers else np.uint16
        panels = right[:used].view(kind).reshape(columns // PANEL, lines * 16, PANEL, group)
        numbers = panels.transpose(1, 3, 0, 2).reshape(lines * self.line_numbers, columns)
        if not self.integers:
            return (numbers.astype(np.uint32) << 16).view(np.float32), np.ones(columns, np.float32)
        scales, sums = right[used:].view(np.float32).reshape(2, columns)
        np.testing.assert_array_equal(sums.view(np.int32), numbers.sum(axis=0, dtype=np.int64))
        return numbers.astype(np.float32), scales


ENGINES = [Engine(*name) for name in testing.engines()]


def new_bytes(size: int) -> Bytes:
    """Return `size` aligned bytes in which nothing is 0 that nobody wrote."""
    memory = aligned_zeros(size // 4).view(np.uint8)
    memory[:] = 0xA5
    return memory


def row_bytes(used: int) -> int:
    """Return the bytes between rows of a left operand with `used` bytes of numbers: an odd number of lines."""
    lines = -(-used // LINE) + 1
    return (lines + (lines % 2 == 0)) * LINE


def to_bfloat16(x: Floats) -> Floats:
    """Return the nearest bfloat16, ties to even; NaN stays NaN and subnormal numbers become 0 of their sign."""
    bits = x.view(np.uint32).astype(np.uint64)
    near = (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16) & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    near = np.where(np.isnan(x), x, near)
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), near).astype(np.float32)


def to_int8(x: Floats, axis: int) -> tuple[NDArray[np.int64], Floats]:
    """Return integers and scales along an axis: the greatest magnitude becomes 127, ties go to even integers."""
    greatest = np.abs(x).max(axis=axis, keepdims=True)
    inverse = np.where(greatest < 2.0**-110, 0, np.float32(127) / np.where(greatest > 0, greatest, 1)).astype(
        np.float32
    )
    scale = np.where(inverse > 0, greatest / np.float32(127), 0).astype(np.float32)
    # float64 holds the product of two float32 exactly, so this rounds once.
    return np.rint(x.astype(np.float64) * inverse).astype(np.int64), scale
