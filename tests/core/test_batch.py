"""Taking rows of a packed data set: what Python's data room relies on not to crash."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill import _core
from kdistill.data.batch import pack

IDS = np.arange(10, dtype=np.int32)
TYPES = IDS % 2
STARTS = np.array([0, 3, 4, 10])


def take(
    starts: NDArray[np.int64], rows: list[int], types: NDArray[np.int32] = TYPES
) -> tuple[list[int], list[int], list[int]]:
    taken = _core.take_rows(IDS, types, starts, np.array(rows, np.int64))
    assert [array.dtype for array in taken] == [np.int32, np.int32, np.int64]
    return taken[0].tolist(), taken[1].tolist(), taken[2].tolist()


def test_rows_come_in_the_order_asked_for() -> None:
    assert take(STARTS, [2, 0, 0]) == ([4, 5, 6, 7, 8, 9, 0, 1, 2, 0, 1, 2], [0, 1] * 3 + [0, 1, 0] * 2, [0, 6, 9, 12])
    assert take(STARTS, []) == ([], [], [0])


@pytest.mark.parametrize("row", [-1, 3, 2**62, -(2**62)])
def test_a_row_that_does_not_exist(row: int) -> None:
    with pytest.raises(IndexError, match=rf"indices\[1\] is {row}; the data set has 3 rows"):
        take(STARTS, [0, row])


@pytest.mark.parametrize("starts", [[0, 3, 4, 11], [-1, 3, 4, 10], [0, 3, 2, 10], [0, 2**62, 4, 10]])
def test_starts_that_lead_outside(starts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"starts\[\d\] is .*; there are 10 tokens"):
        take(np.array(starts), [0, 1, 2])


def test_arrays_of_other_types_and_lengths() -> None:
    with pytest.raises(ValueError, match="types has 4 elements; ids has 10"):
        take(STARTS, [0], TYPES[:4])
    with pytest.raises(TypeError, match="indices must be an array of int64"):
        _core.take_rows(IDS, TYPES, STARTS, np.array([0], np.int32))  # type: ignore[arg-type]


def test_lists_of_ids_are_packed_as_the_long_way_does() -> None:
    rows = [[5, 2**31 - 1], [-(2**31)], [7, 8, 9]]
    packed = _core.pack_lists(rows)
    long_way = pack({"input_ids": rows, "token_type_ids": [[0] * len(row) for row in rows]})
    assert packed is not None
    for one, other in zip(packed, long_way, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[]],
        [[1], []],
        [[1], (2,)],
        ([1],),
        [1, 2],
        [[2**31]],
        [[2**70]],
        [[True]],
        [[1.0]],
        [["1"]],
        [[None]],
        None,
    ],
)
def test_anything_else_is_left_to_python(rows: object) -> None:
    assert _core.pack_lists(rows) is None
