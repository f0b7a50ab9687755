"""Metrics of regression, from float64 (n,): the numbers predicted and the true ones."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .ranking import ranks

Numbers = NDArray[np.float64]
"""Numbers, float64 (n,)."""


def mse(x: Numbers, y: Numbers) -> float:
    """Return the mean squared difference of x and y."""
    return float(((x - y) ** 2).mean())


def pearson(x: Numbers, y: Numbers) -> float:
    """Return Pearson's correlation of x and y; NaN when either is constant."""
    if x.min() == x.max() or y.min() == y.max():  # their means may be a rounding error off
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def spearmanr(x: Numbers, y: Numbers) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(ranks(x), ranks(y))
