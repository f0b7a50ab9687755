"""The gradient of a step is that of its micro-batches, each summed from 0, added in their order, by whomever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_run import small_model
from support.small_texts import language_model

from kdistill.models.model import Model
from kdistill.train.auxiliary import Auxiliary
from kdistill.train.gradient_sum import GradientSum
from kdistill.train.optim import clip_grad_norm_
from kdistill.train.world import ALONE

ROWS = [[[2, 5, 6, 3], [2, 7, 3]], [[2, 9, 9, 5, 3]], [[2, 12, 3], [2, 6, 6, 6, 3]], [[2, 8, 5, 3]]]
"""Four micro-batches, which have some words in common."""


class _Threads:
    """Threads as processes. A `World` for each of them."""

    local_rank, met = 0, True

    def __init__(self, rank: int, given: list[Any], barrier: Barrier) -> None:
        self.rank, self.size, self.leads = rank, len(given), rank == 0
        self._given, self._barrier = given, barrier

    def gather(self, mine: Any) -> list[Any]:
        self._given[self.rank] = mine
        self._barrier.wait(60)
        found = list(self._given)
        self._barrier.wait(60)
        return found

    def slice_of(self, size: int) -> slice:
        return slice(self.rank * size // self.size, (self.rank + 1) * size // self.size)

    def parts_of(self, mine: NDArray[np.float32], givers: int) -> list[NDArray[np.float32]]:
        return [of[self.slice_of(mine.size)] for of in self.gather(mine.copy())[:givers]]

    def joined(self, part: NDArray[np.float32], whole: NDArray[np.float32]) -> None:
        whole[:] = np.concatenate(self.gather(part.copy()))


def learn(model: Model, auxiliary: Auxiliary, index: int) -> None:
    """Add the gradient of a micro-batch, of whatever loss."""
    logits = model.forward(ROWS[index], train=True)
    model.backward(np.sin(np.arange(logits.size, dtype=np.float32)).reshape(logits.shape) * (index + 1) / 7)
    auxiliary.gradients["projection"][:] += np.float32(0.1) * np.float32(index - 1)


def gradient_of_a_step(make: Any, world: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return the gradients of the model and beside it, and their norm, which reads the words in their order."""
    model: Model = make()
    auxiliary = Auxiliary({"projection": np.ones((2, 3), np.float32)})
    total = GradientSum(model, auxiliary, world)
    for _ in range(2):  # a second step begins with nothing of the first
        model.zero_grad()
        auxiliary.zero_grad()
        total.begin()
        learned = []
        for first in range(0, len(ROWS), world.size):
            turn = range(first, min(first + world.size, len(ROWS)))
            mine = first + world.rank if world.rank < len(turn) else None
            if mine is not None:
                learn(model, auxiliary, mine)
            learned += total.add(mine, len(turn))
        assert learned == [*range(len(ROWS))]
        total.hand_over()
    gradients = model.flat_gradients.copy(), auxiliary.flat_gradients.copy()
    return *gradients, clip_grad_norm_(model, 0.01, auxiliary=auxiliary)


@pytest.mark.parametrize("make", [small_model, language_model])
def test_each_micro_batch_is_summed_from_0_and_added_once(make: Any) -> None:
    model, auxiliary = make(), Auxiliary({"projection": np.ones((2, 3), np.float32)})
    expected = np.zeros(model.num_flat, np.float32)
    for index in range(len(ROWS)):
        model.zero_grad()
        learn(model, auxiliary, index)
        expected += model.flat_gradients
    found, beside, norm = gradient_of_a_step(make, ALONE)
    np.testing.assert_array_equal(found, expected)
    together = np.concatenate([expected, beside]).astype(np.float64)
    assert norm == pytest.approx(np.linalg.norm(together), rel=1e-6)


@pytest.mark.parametrize("make", [small_model, language_model])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_several_share_the_micro_batches_with_the_bits_of_one(make: Any, size: int) -> None:
    given: list[Any] = [None] * size
    barrier = Barrier(size)
    worlds = [_Threads(rank, given, barrier) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        everywhere = [*pool.map(lambda world: gradient_of_a_step(make, world), worlds)]
    alone = gradient_of_a_step(make, ALONE)
    for found in everywhere:
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)
