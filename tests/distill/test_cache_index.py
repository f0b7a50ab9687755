"""The index of a large teacher cache: the same answers as without one, whatever is damaged."""

from __future__ import annotations

from mmap import mmap
from pathlib import Path

import numpy as np
import pytest

from kdistill.data import blocks
from kdistill.distill import cache, cache_index
from kdistill.distill.cache import TeacherCache
from kdistill.system import memory


def keys_and_logits(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(first)
    return np.frombuffer(random.bytes(16 * count), "V16"), random.random((count, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_index, "RUN", 16)


def store_of(directory: Path, parts: int) -> tuple[TeacherCache, np.ndarray, np.ndarray]:
    """A file of parts of 10 rows each."""
    store, keys, logits = TeacherCache(directory, "weights", 3), [], []
    for part in range(parts):
        some = keys_and_logits(part, 10)
        store.append(*some)
        keys.append(some[0])
        logits.append(some[1])
    return store, np.concatenate(keys), np.concatenate(logits)


def assert_finds(store: TeacherCache, keys: np.ndarray, logits: np.ndarray) -> None:
    found, values = store.lookup(keys)
    assert found.all()
    np.testing.assert_array_equal(values, logits)


def test_rows_are_found_in_the_runs_of_the_index_and_behind_them(tmp_path: Path) -> None:
    store, keys, logits = store_of(tmp_path, 5)
    assert_finds(store, keys[::-1], logits[::-1])
    index = store.path.with_suffix(".index")
    assert index.stat().st_size == 16 + 3 * (16 + 16 * 12)
    absent, _ = keys_and_logits(99, 7)
    assert not store.lookup(absent)[0].any()
    more = keys_and_logits(6, 10)
    before = index.read_bytes()
    store.append(*more)
    assert_finds(store, np.concatenate((more[0], keys)), np.concatenate((more[1], logits)))
    assert index.read_bytes() == before  # 60 records are three runs still
    store.append(*keys_and_logits(7, 10))
    assert_finds(store, keys, logits)
    assert index.read_bytes()[: len(before)] == before  # a run is never changed
    assert len(index.read_bytes()) > len(before)


def test_a_small_file_has_no_index(tmp_path: Path) -> None:
    store, keys, logits = store_of(tmp_path, 1)
    assert_finds(store, keys, logits)
    assert not store.path.with_suffix(".index").exists()


@pytest.mark.parametrize("damage", ["byte", "torn", "header", "of another file", "directory"])
def test_a_damaged_index_hides_rows_at_most(tmp_path: Path, damage: str) -> None:
    store, keys, logits = store_of(tmp_path, 5)
    assert_finds(store, keys, logits)
    index = store.path.with_suffix(".index")
    content = bytearray(index.read_bytes())
    if damage == "byte":
        content[100] ^= 1
    elif damage == "torn":
        del content[-10:]
    elif damage == "header":
        content[0] ^= 1
    elif damage == "of another file":
        content[16:32] = bytes(16)
    index.unlink()
    if damage == "directory":
        index.mkdir()
    else:
        index.write_bytes(content)
    found, values = store.lookup(keys)
    np.testing.assert_array_equal(values[found], logits[found])
    assert found.sum() >= len(keys) - (2 if damage == "byte" else 0)
    if not found.all():
        store.append(keys[~found], logits[~found])
    assert_finds(store, keys, logits)


def test_a_row_whose_record_is_damaged_is_found_where_it_was_written_again(tmp_path: Path) -> None:
    store, keys, logits = store_of(tmp_path, 2)
    assert_finds(store, keys, logits)
    content = bytearray(store.path.read_bytes())
    content[cache.HEADER.size + 20] ^= 1  # the first record's logits
    store.path.write_bytes(content)
    assert store.lookup(keys)[0].tolist() == [False] + [True] * 19
    store.append(keys[:1], logits[:1])
    assert_finds(store, keys, logits)


def test_clearing_the_cache_deletes_the_index(tmp_path: Path) -> None:
    store, keys, _ = store_of(tmp_path, 5)
    store.lookup(keys)
    cache.clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_rows_than_are_looked_up_at_once_are_answered_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.formula_teacher import FormulaTeacher
    from support.small_run import small_dataset

    rows, teacher = small_dataset(40), FormulaTeacher()
    expected = cache.teacher_logits(teacher, rows, cache_dir=tmp_path / "whole")
    monkeypatch.setattr(blocks, "BLOCK_UNITS", 7)
    monkeypatch.setattr(memory, "_MOST_IN_MEMORY", 0)  # the answers are mapped
    monkeypatch.setattr(cache, "_LOOKED_UP_BYTES", 100)
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        found = cache.teacher_logits(
            teacher, rows, cache_dir=tmp_path / "parts", progress=lambda done, total: seen.append((done, total))
        )
        np.testing.assert_array_equal(found, expected)
        assert isinstance(found.base.base, mmap)
    assert all(done <= total <= 40 for done, total in seen)
    whole, parts = (cache.info(tmp_path / name)[0].rows for name in ("whole", "parts"))
    assert whole == parts  # a row that is in two parts is computed once
