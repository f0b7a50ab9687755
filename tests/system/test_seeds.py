"""`set_seed`."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from support.small_run import small_config, small_model, weights

import kdistill as kd
from kdistill.system import seeds


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    state, numpy_state, default = random.getstate(), np.random.get_state(), seeds._default
    yield
    random.setstate(state)
    np.random.set_state(numpy_state)
    seeds._default = default


def test_the_same_seed_gives_the_same_numbers() -> None:
    drawn = []
    for seed in (7, 7, np.int64(8)):
        kd.set_seed(seed)
        drawn.append((random.random(), float(np.random.random())))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == (random.Random(7).random(), np.random.RandomState(7).random())


def test_new_models_are_drawn_from_it_unless_they_have_their_own() -> None:
    def drawn(**seed: int) -> np.ndarray:
        return weights(kd.BertForSequenceClassification(small_config(), **seed))

    np.testing.assert_array_equal(drawn(), drawn(seed=0))
    kd.set_seed(7)
    np.testing.assert_array_equal(drawn(), drawn(seed=7))
    assert (drawn() != drawn(seed=0)).any()
    np.testing.assert_array_equal(weights(small_model(3)), weights(small_model(3)))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "7", True, None])
def test_a_seed_that_is_none(seed: object) -> None:
    with pytest.raises(ValueError, match=r"^seed is .*; expected a whole number from 0"):
        kd.set_seed(seed)  # type: ignore[arg-type]
