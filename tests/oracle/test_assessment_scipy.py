"""Intervals and McNemar's test beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.report.assessment import mcnemar, pearson_interval, wilson_interval

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (50, 100), (723, 872), (872, 872)])
def test_wilson_interval(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 9), (3, 4), (12, 12), (6, 18), (10, 15), (30, 31), (20, 90)])
def test_mcnemar(b: int, c: int) -> None:
    first = np.array([True] * b + [False] * c)
    test = mcnemar(first, ~first)
    chi_square = (abs(b - c) - 1) ** 2 / (b + c)
    expected = stats.binomtest(b, b + c).pvalue if b + c < 25 else stats.chi2.sf(chi_square, 1)
    assert test.p_value == pytest.approx(expected, rel=1e-10)


def test_interval_of_pearson_s_correlation() -> None:
    x, noise = np.random.default_rng(0).normal(size=(2, 40))
    for weight in (0.1, 1, 10):
        expected = stats.pearsonr(x, x + weight * noise)
        found = pearson_interval(float(expected.statistic), 40)
        assert found == pytest.approx(expected.confidence_interval(0.95), rel=1e-9)
