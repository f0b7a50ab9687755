"""The assignment problem, against all permutations and against solutions that are known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from kdistill.metrics.assignment import best_assignment


@pytest.mark.parametrize("size", range(1, 7))
def test_assignment_has_the_largest_sum_of_all_permutations(size: int) -> None:
    random, columns = np.random.default_rng(size), np.arange(size)
    for _ in range(20):
        gains = random.integers(0, 5, (size, size))
        found = best_assignment(gains)
        assert sorted(found) == list(columns)
        assert gains[found, columns].sum() == max(gains[list(rows), columns].sum() for rows in permutations(columns))


def test_permutation_of_150_labels_is_found_below_noise() -> None:
    random = np.random.default_rng(0)
    hidden = random.permutation(150)
    gains = random.integers(0, 3, (150, 150))
    gains[hidden, np.arange(150)] += 3
    np.testing.assert_array_equal(best_assignment(gains), hidden)


@pytest.mark.parametrize("seed", range(30))
def test_ties_leave_columns_in_their_own_rows(seed: int) -> None:
    gains, columns = np.random.default_rng(seed).integers(0, 2, (5, 5)), np.arange(5)
    orders = [np.array(rows) for rows in permutations(columns)]
    best = max(gains[rows, columns].sum() for rows in orders)
    most = max((rows == columns).sum() for rows in orders if gains[rows, columns].sum() == best)
    assert (best_assignment(gains) == columns).sum() == most
