"""Run every layer on operands that end where memory ends: one float read or written beyond is a segmentation fault.

A program of its own, since the fault would end the tests.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from numpy.typing import NDArray

from kdistill import _core
from kdistill._core import testing

NO_DROPOUT = (0.0, 0, 0, 0, 0)
PROT_NONE = 0
keep: list[mmap.mmap] = []


def at_the_edge(*shape: int) -> NDArray[np.float32]:
    """Ones whose last element is followed by a page that may not be touched."""
    size = 4 * int(np.prod(shape))
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    keep.append(memory)
    edge = pages * mmap.PAGESIZE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address + edge), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    array = np.frombuffer(memory, np.float32, size // 4, edge - size).reshape(shape)
    array[...] = 1
    return array


def products(m: int, k: int, n: int) -> None:
    c = at_the_edge(m, n)
    testing.product(c, at_the_edge(m, k), at_the_edge(k, n), False)
    testing.product(c, at_the_edge(k, m), at_the_edge(k, n), True)
    assert (c == 1 + 2 * k).all()


def packed_products(m: int, k: int, n: int) -> None:
    """A head's rows or columns of a weight, which begin and end within panels, with all that may follow a product."""
    a, bias = at_the_edge(m, k), at_the_edge(n)
    for row, first in ((0, 0), (k, 0), (0, n), (k, n), (1, 1)):
        height, width = row + k, first + n
        for transposed in (False, True):
            packed = testing.pack_right(at_the_edge(*(width, height) if transposed else (height, width)), transposed)
            right = at_the_edge(packed.size)
            right[:] = packed
            place = (height, row, first)
            c, other = at_the_edge(m, n), at_the_edge(m, n)
            testing.packed_product(c, a, right, *place, None, None, None)
            testing.packed_product(c, a, right, *place, bias, None, other)
            assert (c == 1 + k).all()
            assert (other == 1 + k).all()
            for name in ("gelu", "gelu_new", "relu", "tanh", "silu", "quick_gelu"):
                testing.packed_product(c, a, right, *place, bias, name, None)
                testing.packed_product(c, a, right, *place, bias, name, other)


def few_rows(m: int, k: int, n: int) -> None:
    c, flat = at_the_edge(m, n), at_the_edge(n)
    testing.dots(c, at_the_edge(m), at_the_edge(m, k), at_the_edge(n, k))
    assert (c == 1 + k).all()
    testing.add_scaled(flat, at_the_edge(n), 2.0)
    assert (flat == 3).all()


def rows(m: int, n: int) -> None:
    x, gamma, flat = at_the_edge(m, n), at_the_edge(n), at_the_edge(m * n)
    _, stats = testing.norm_forward(x, gamma, gamma, 1e-12)
    testing.norm_backward(x, x, stats, gamma)
    for name in ("gelu", "gelu_new", "relu", "tanh", "silu", "quick_gelu"):
        testing.activation(flat, flat, name)
    testing.dropout(x, (0.5, 1, 2, 3, 4))
    moments = at_the_edge(m * n), at_the_edge(m * n)
    _core.adamw(flat, at_the_edge(m * n), *moments, (1e-3, 0.9, 0.999, 1e-8, 0.1), 1, 2)


def attention(n: int, heads: int, width: int) -> None:
    q, k, v = (at_the_edge(n, heads * width) for _ in "qkv")
    ctx, lse = testing.attention_forward(q, k, v, heads, 64, NO_DROPOUT)
    assert np.abs(ctx - 1).max() < 1e-6
    edge = at_the_edge(n, heads * width)
    edge[...] = ctx
    testing.attention_backward(edge, edge, lse, q, k, v, heads, 64, (0.5, 1, 2, 3, 4))
    spread, dspread = at_the_edge(heads, 2 * n - 1), at_the_edge(heads, 2 * n - 1)
    testing.attention_forward(q, k, v, heads, 64, NO_DROPOUT, spread)
    testing.attention_backward(edge, edge, lse, q, k, v, heads, 64, NO_DROPOUT, (spread, dspread))
    testing.relative_spread(at_the_edge(32, heads), n, 128, 1.0)


def main() -> None:
    for size in (1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 31, 32, 33, 48):
        products(size, size + 1, size)
        products(1, size, 33)
        packed_products(size, size + 1, size)
        packed_products(1, size, 33)
        few_rows(3, size, size + 1)
        rows(3, size)
        attention(size, 2, 3)
        attention(size, 3, size)


if __name__ == "__main__":
    main()
