"""What goes over all rows a block at a time: the same whatever the blocks are."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.data import blocks
from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL, UNTAGGED, label_counts

LENGTHS = [2, 1, 9, 3, 1, 1, 4]


def dataset(*, per_token: bool) -> Dataset:
    starts = np.concatenate(([0], np.cumsum(LENGTHS)))
    ids = np.arange(starts[-1], dtype=np.int32)
    labels = np.arange(len(ids) if per_token else len(LENGTHS)) % 3
    labels[1:4] = NO_LABEL
    if per_token:
        labels[12] = UNTAGGED
    return Dataset(ids, np.zeros_like(ids), starts, labels, per_token=per_token)


@pytest.mark.parametrize("units", [1, 4, 1 << 20])
@pytest.mark.parametrize("per_token", [False, True])
def test_labels_are_counted_the_same_in_any_blocks(
    units: int, per_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_UNITS", units)
    rows = dataset(per_token=per_token)
    each = [rows.labels[start : start + length] for start, length in zip(rows.starts, LENGTHS, strict=False)]
    each = each if per_token else [[label] for label in rows.labels]
    assert rows.have_labels().tolist() == [any(label >= 0 for label in of) for of in each]
    assert rows.labelled == sum(any(label >= 0 for label in of) for of in each)
    assert rows.unlabelled == sum((UNTAGGED if per_token else NO_LABEL) in of for of in each)
    found = rows.labels.tolist()
    assert label_counts(rows.labels, 5).tolist() == [*(found.count(label) for label in range(3)), 0, 0]
    assert label_counts(rows.labels).tolist() == [found.count(label) for label in range(max(found) + 1)]


@pytest.mark.parametrize(("units", "sizes"), [(1, [1] * 7), (4, [2, 1, 2, 1, 1]), (12, [3, 4]), (99, [7])])
def test_a_block_has_whole_rows(units: int, sizes: list[int]) -> None:
    starts = dataset(per_token=False).starts
    found = list(blocks.blocks_of_rows(starts, units))
    assert [of.stop - of.start for of in found] == sizes
    assert [row for of in found for row in range(of.start, of.stop)] == list(range(7))
