"""Metrics of embeddings beside their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.metrics.embeddings import cosines, mean_squared_error


def test_the_squared_error_and_the_cosine() -> None:
    ours, theirs = np.float32([[3, 4], [0, 2], [0, 0]]), np.float32([[4, 3], [0, -1], [1, 1]])
    assert mean_squared_error(ours, theirs) == pytest.approx((1 + 1 + 0 + 9 + 1 + 1) / 6)
    np.testing.assert_allclose(cosines(ours, theirs), [24 / 25, -1, 0], rtol=1e-15)
