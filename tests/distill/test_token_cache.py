"""The teacher cache of a teacher that answers for each token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_run import small_config

from kdistill.data.batch import Batch
from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL
from kdistill.data.ragged import Ragged, starts_of
from kdistill.distill.cache import cached_rows, info, row_bytes, teacher_logits
from kdistill.models.classes import BertForTokenClassification


def rows_of(lengths: list[int], seed: int = 0) -> Dataset:
    tokens = sum(lengths)
    ids = np.random.default_rng(seed).integers(5, 13, tokens).astype(np.int32)
    labels = np.full(tokens, NO_LABEL)
    return Dataset(ids, np.zeros_like(ids), starts_of(np.array(lengths)), labels, per_token=True)


class Counting(BertForTokenClassification):
    """Counts the rows that it answers."""

    asked = 0

    def forward(self, batch: Batch, train: bool = False) -> np.ndarray:
        self.asked += len(batch.starts) - 1
        return super().forward(batch, train)


@pytest.fixture
def teacher() -> Counting:
    model = Counting(
        small_config(id2label=dict(enumerate("abc")), initializer_range=0.2, max_position_embeddings=40), seed=4
    )
    model.freeze()
    return model


LENGTHS = [1, 8, 9, 40, 3, 16, 17, 2]


def test_answers_come_back_from_the_file_bit_for_bit(teacher: Counting, tmp_path: Path) -> None:
    rows = rows_of(LENGTHS)
    first = teacher_logits(teacher, rows, cache_dir=tmp_path, batch_tokens=30)
    assert isinstance(first, Ragged)
    assert teacher.asked == len(LENGTHS)
    expected = teacher.forward(rows.batch(np.arange(len(rows)))[0])
    np.testing.assert_allclose(first.values, expected, atol=1e-5)
    asked = teacher.asked
    again = teacher_logits(teacher, rows.take([3, 0, 7, 3, 2]), cache_dir=tmp_path)
    assert teacher.asked == asked
    np.testing.assert_array_equal(again.values, first.take([3, 0, 7, 3, 2]).values)


def test_a_row_without_all_of_its_pieces_is_computed_again(
    teacher: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path))
    rows = rows_of(LENGTHS)
    first = teacher_logits(teacher, rows, batch_tokens=1000)
    (file,) = info()
    with Path(file.path).open("r+b") as damaged:
        damaged.seek(-1, 2)
        last = damaged.read(1)
        damaged.seek(-1, 2)
        damaged.write(bytes([last[0] ^ 1]))
    assert cached_rows(teacher, rows).sum() == len(rows) - 1
    asked = teacher.asked
    again = teacher_logits(teacher, rows)
    assert teacher.asked == asked + 1
    np.testing.assert_array_equal(again.values, first.values)
    assert cached_rows(teacher, rows).all()


def test_equal_rows_are_asked_once_and_take_little_more_than_their_logits(teacher: Counting, tmp_path: Path) -> None:
    rows = rows_of([40] * 6).take([0, 1, 0, 2, 1, 0])
    found = teacher_logits(teacher, rows, cache_dir=tmp_path)
    assert teacher.asked == 3
    np.testing.assert_array_equal(found[2], found[0])
    (file,) = info(tmp_path)
    assert file.bytes == 64 + 3 * row_bytes(3, tokens=40)
    assert file.bytes < 64 + 3 * 40 * 3 * 4 * 1.3


def test_rows_are_counted_not_their_pieces(teacher: Counting, tmp_path: Path) -> None:
    teacher_logits(teacher, rows_of(LENGTHS), cache_dir=tmp_path, batch_tokens=30)
    teacher_logits(teacher, rows_of([33, 8], seed=1), cache_dir=tmp_path)
    (file,) = info(tmp_path)
    assert (file.rows, file.num_labels) == (len(LENGTHS) + 2, 3)


def test_answers_that_are_not_finite_name_their_row(teacher: Counting, tmp_path: Path) -> None:
    rows = rows_of([4, 5, 6])

    def broken(batch: Batch, train: bool = False) -> np.ndarray:
        logits = np.zeros((len(batch.ids), 3), np.float32)
        logits[-1] = np.nan
        return logits

    teacher.forward = broken  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="not finite for 1 rows, the first is row 2"):
        teacher_logits(teacher, rows, cache_dir=tmp_path)
