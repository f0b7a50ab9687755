"""Run every engine on operands that end where memory ends: one byte read or written beyond is a segmentation fault.

A program of its own, since the fault would end the tests.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from kdistill._core import testing

PROT_NONE, PROT_READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
LIBC = ctypes.CDLL(None, use_errno=True)


class Edge:
    """Memory for one operand, between two pages that may not be touched; its end is the operand's."""

    def __init__(self, pages: int = 160) -> None:
        self.memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.end = (pages + 1) * mmap.PAGESIZE
        for page in (0, self.end):
            if LIBC.mprotect(ctypes.c_void_p(self.address + page), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")

    def floats(self, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        size = int(np.prod(shape))
        array = np.frombuffer(self.memory, np.float32, size, self.end - 4 * size).reshape(shape)
        array[...] = 1
        return array

    def bytes(self, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        array = np.frombuffer(self.memory, np.uint8, size, self.end - size)
        array[:] = 0xFF  # NaN in bfloat16: whoever uses what nobody wrote shows it
        return array


A, W, C, BIAS, SLOPE, LEFT, RIGHT, NEXT, CONTEXT = (Edge() for _ in range(9))
SCRATCH = Edge(400)


def products(name: tuple[str, str], m: int, n: int, k: int) -> None:
    operand_bytes, packed_bytes = testing.engine_bytes(*name, m, n, k)
    a, c, bias, slope = A.floats(m, k), C.floats(m, n), BIAS.floats(n), SLOPE.floats(m, n)
    left, right = LEFT.bytes(operand_bytes), RIGHT.bytes(packed_bytes)
    following = NEXT.bytes(testing.engine_bytes(*name, m, 1, n)[0])
    testing.engine_convert(*name, left, a)
    for transposed in (True, False):
        testing.engine_pack(*name, right, W.floats(*(n, k) if transposed else (k, n)), transposed)
        testing.engine_product(*name, c, left, right, k, bias, None, slope, None, 1)
        assert np.allclose(c, 1 + k, rtol=1e-6), (name, m, n, k)
        assert np.allclose(slope, c if transposed else c * c, rtol=1e-6), (name, m, n, k)
        testing.engine_product(*name, c, left, right, k, None, None, None, None, 1)
        assert np.allclose(c, 1 + 2 * k, rtol=1e-6), (name, m, n, k)
    for activation in ("gelu", "relu"):
        testing.engine_product(*name, c, left, right, k, bias, activation, slope, None, 1)
        testing.engine_product(*name, c, left, right, k, bias, activation, None, following, 1)
    testing.engine_product(*name, c, left, right, k, bias, None, None, following, 1)


def outer(name: tuple[str, str], m: int, n: int, k: int) -> None:
    c, a, b = C.floats(m, n), A.floats(k, m), W.floats(k, n)
    testing.engine_outer(*name, c, a, b, m, n, SCRATCH.bytes(testing.engine_outer_bytes(*name, m, n)))
    assert (c == 1 + k).all(), (name, m, n, k)


def attend(name: tuple[str, str], n: int, heads: int, width: int) -> None:
    size = testing.engine_bytes(*name, n, 1, heads * width)[0]
    ones, scores = A.floats(n, heads * width), C.floats(heads, n, n)
    for operand in (LEFT, RIGHT, NEXT):
        testing.engine_convert(*name, operand.bytes(size), ones)
    q, k, v = (np.frombuffer(o.memory, np.uint8, size, o.end - size) for o in (LEFT, RIGHT, NEXT))
    ctx, scratch = CONTEXT.bytes(size), SCRATCH.bytes(testing.engine_attend_bytes(*name, n, heads, width))
    testing.engine_attend(*name, ctx, scores, q, k, v, n, 0, n, heads, width, 0, heads, scratch)
    testing.engine_widen(*name, ones, ctx)
    assert (ones == 1).all(), (name, n, heads, width)
    assert np.allclose(scores, width**0.5), (name, n, heads, width)


def main() -> None:
    for name in testing.engines():
        for size in (1, 2, 3, 5, 7, 12, 13, 16, 17, 31, 32, 33, 48, 63, 64, 65, 97):
            print(*name, size, flush=True)
            products(name, size, size, size + 1)
            products(name, 1, size, 33)
            products(name, size, 33, 2)
            if name[0] == "bfloat16":
                outer(name, size, size, size + 1)
                outer(name, 33, size, 1)
                outer(name, size, 17, 600)
                for heads, width in ((3, 10), (5, 32), (2, 64)):
                    attend(name, size, heads, width)


if __name__ == "__main__":
    main()
