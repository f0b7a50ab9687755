"""The order of an epoch in pieces: that of all its numbers sorted at once, from any step on."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.data import sampler
from kdistill.data.sampler import RandomSampler
from kdistill.train.plan import EpochPlan


def sorted_at_once(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n), kind="stable")


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100, 1000])
def test_pieces_are_the_order_of_all_numbers(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(sampler, "_BUCKET_ROWS", 16)
    np.testing.assert_array_equal(RandomSampler(n, 7).permutation(3), sorted_at_once(n, 7, 3))
    pieces = list(RandomSampler(n, 7).pieces(3))
    assert max(map(len, pieces)) < 48


@pytest.mark.parametrize(("accumulation", "drop_last"), [(1, False), (3, False), (1, True)])
def test_steps_read_the_same_rows_from_any_step_on(
    monkeypatch: pytest.MonkeyPatch, accumulation: int, drop_last: bool
) -> None:
    monkeypatch.setattr(sampler, "_BUCKET_ROWS", 16)
    plan = EpochPlan(300, batch_size=7, accumulation=accumulation, drop_last=drop_last, seed=5)
    order, size = sorted_at_once(300, 5, 2)[: plan.rows_per_epoch], 7 * accumulation
    for first in (0, 1, 5, plan.steps_per_epoch - 1, plan.steps_per_epoch):
        steps = list(plan.rows_of_epoch(2, first))
        assert len(steps) == plan.steps_per_epoch - first
        expected = order[first * size :]
        np.testing.assert_array_equal(np.concatenate([np.zeros(0, np.int64), *steps]), expected)
        assert all(len(step) == size for step in steps[:-1])
