"""McNemar's test: whether two models differ in accuracy on the same rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Below this many discordant pairs the chi-square approximation of McNemar's test is poor (Dietterich, 1998, and most
# textbooks), and the exact test is taken.
FEW_DISCORDANT_PAIRS = 25


class McNemar(NamedTuple):
    """McNemar's test.

    Attributes:
        only_first: rows that the first model alone has right.
        only_second: rows that the second model alone has right.
        p_value: two-sided.
        exact: whether the p-value is that of the binomial distribution.
    """

    only_first: int
    only_second: int
    p_value: float
    exact: bool


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Test whether two models differ in accuracy on the same rows (McNemar, 1947, doi:10.1007/BF02295996).

    With b and c rows that one of them alone has right: for b + c < 25 the exact test, p = min(1, 2 P(X <= min(b, c)))
    with X binomial(b + c, 1/2); else the chi-square test with one degree of freedom on (|b - c| - 1)^2 / (b + c), which
    has the continuity correction of Edwards (1948, doi:10.1007/BF02289261).

    Args:
        first: the rows that the first model has right, bool (n,).
        second: the rows that the second model has right, bool (n,).
    """
    if first.shape != second.shape:
        raise ValueError(f"first has {first.shape} rows and second {second.shape}; expected the same rows for both")
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    pairs = b + c
    if pairs < FEW_DISCORDANT_PAIRS:
        tail = sum(math.comb(pairs, k) for k in range(min(b, c) + 1)) / 2**pairs
        return McNemar(b, c, min(1.0, 2 * tail), True)
    chi_square = max(abs(b - c) - 1, 0) ** 2 / pairs
    return McNemar(b, c, math.erfc(math.sqrt(chi_square / 2)), False)
