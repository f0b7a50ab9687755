"""Shared text, beside a search with Python's own strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdistill.data import overlap
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.data.overlap import find_overlap
from kdistill.text.classes import AutoTokenizer


def dataset(rows: list[list[int]], *, specials: bool = True) -> Dataset:
    rows = [[2, *row, 3] for row in rows] if specials else rows
    starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    ids = np.array([token for row in rows for token in row], np.int32)
    return Dataset(ids, np.zeros_like(ids), starts, np.zeros(len(rows), np.int64))


def is_phrase(short: list[int], long: list[int]) -> bool:
    return len(short) < len(long) and any(
        long[place : place + len(short)] == short for place in range(len(long) - len(short) + 1)
    )


@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize(("shortest", "held_out"), [(1, 80), (3, 80), (3, 9)])
def test_beside_a_search_of_lists(
    specials: bool, shortest: int, held_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "BLOCK_UNITS", 1)  # so a block has as many tokens as the rows that are held out
    random = np.random.default_rng(shortest)
    # Few words and many rows, so that every kind of overlap occurs.
    held = [[int(word) for word in random.integers(10, 14, random.integers(1, 7))] for _ in range(held_out)]
    train = [[int(word) for word in random.integers(10, 14, random.integers(1, 7))] for _ in range(60)]
    found = find_overlap(dataset(held, specials=specials), dataset(train, specials=specials), shortest)
    expected = {
        "equal": [row in train for row in held],
        "inside": [any(is_phrase(row, other) for other in train) for row in held],
        "around": [any(is_phrase(other, row) and len(other) >= shortest for other in train) for row in held],
    }
    for name, values in expected.items():
        assert 0 < sum(values) < len(values)
        np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
    np.testing.assert_array_equal(found.shared, np.any(list(expected.values()), axis=0))


def test_a_phrase_does_not_reach_over_the_end_of_a_row() -> None:
    train = dataset([[10, 11, 12], [13, 14, 15]])
    assert find_overlap(dataset([[12, 13], [11, 12], [15]]), train).inside.tolist() == [False, True, True]
    assert find_overlap(dataset([[30, 12, 13, 31]]), dataset([[11, 12], [13, 12]]), 2).around.tolist() == [False]


def test_rows_of_sst2(shared_dir: Path) -> None:
    """The first sentence of the training rows and phrases of it, as rows of the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "models" / "bert-base-uncased")
    train = as_dataset({"sentence": ["Hide new secretions from the parental units", "a good film"]}, tokenizer)
    held = as_dataset(
        {"sentence": ["hide new secretions", "HIDE  new secretions from the parental units ", "secretions", "a film"]},
        tokenizer,
    )
    found = find_overlap(held, train)
    assert found.inside.tolist() == [True, False, True, False]
    assert found.equal.tolist() == [False, True, False, False]
