"""Locks and values that are made once, in objects that go to other processes."""

from __future__ import annotations

import pickle

import pytest

from kdistill.system.pickling import Lock, Once


def test_a_lock_comes_out_of_pickle_as_another_one_that_is_free() -> None:
    lock = Lock()
    with lock:
        other = pickle.loads(pickle.dumps(lock))
        with other:
            pass


def test_a_value_is_made_once_and_goes_along() -> None:
    made: list[int] = []

    def make() -> int:  # which pickle does not take
        made.append(7)
        return 7

    value = Once(make)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(make)
    assert not made
    assert [value(), value(), pickle.loads(pickle.dumps(value))()] == [7, 7, 7]
    assert made == [7]
