"""Correlations beside SciPy's, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.metrics.regression import pearson, spearmanr

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("n", [3, 10, 200])
def test_correlations(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.integers(0, max(3, n // 3), n).astype(np.float64)
    y = x + rng.normal(size=n)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, rel=1e-12)
    assert spearmanr(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-12)
