"""The meter of the CPU's peak: how many operations it counts."""

from __future__ import annotations

import pytest

from kdistill import _core


def test_multiply_adds_are_counted() -> None:
    """Twice the rounds or threads, twice the operations: a multiply-add counts two for each lane."""
    one = _core.multiply_adds(100, 1)
    assert one % (2 * 12 * 100) == 0
    assert one / (2 * 12 * 100) in (4, 8, 16)  # floats in a register
    assert _core.multiply_adds(200, 1) == _core.multiply_adds(100, 2) == 2 * one
    with pytest.raises(ValueError, match="threads is 0"):
        _core.multiply_adds(1, 0)
