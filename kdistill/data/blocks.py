"""Blocks of rows or tokens: what goes over all of them holds a block at a time, as they may be in files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_UNITS = 1 << 20
"""Rows or tokens that are looked at together where all of a data set are."""


def blocks_of(count: int) -> Iterator[slice]:
    """Yield the places 0 to count - 1 in blocks of at most `BLOCK_UNITS`, in their order."""
    return (slice(first, min(first + BLOCK_UNITS, count)) for first in range(0, count, BLOCK_UNITS))


def blocks_of_rows(starts: NDArray[np.int64], units: int = 0) -> Iterator[slice]:
    """Yield the rows in blocks of at most so many tokens together, or of one row that has more, in their order.

    Args:
        starts: where each row begins and the last one ends, int64 (rows + 1,).
        units: tokens of a block; 0: `BLOCK_UNITS`.
    """
    first = 0
    while first < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[first] + (units or BLOCK_UNITS), "right")) - 1
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)
