"""The assignment problem, as SciPy solves it."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.metrics.assignment import best_assignment

scipy_optimize = pytest.importorskip("scipy.optimize")


@pytest.mark.parametrize("size", [1, 2, 28, 77, 150])
def test_sum_is_that_of_scipy(size: int) -> None:
    gains = np.random.default_rng(size).integers(0, 40, (size, size))
    rows, columns = scipy_optimize.linear_sum_assignment(gains, maximize=True)
    assert gains[best_assignment(gains), np.arange(size)].sum() == gains[rows, columns].sum()
