"""The teacher cache: what is found again, and what survives damage."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.formula_teacher import (
    HEADER_BYTES,
    RECORD_BYTES,
    FormulaTeacher,
    check,
    keys_and_logits,
    make_dataset,
    open_cache,
)

from kdistill.data.batch import Batch
from kdistill.data.dataset import Dataset
from kdistill.distill import cache
from kdistill.distill.cache import TeacherCache, teacher_logits
from kdistill.distill.row_keys import row_keys
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.config import BertConfig


@pytest.fixture
def dataset() -> Dataset:
    """300 rows of 1 to 20 tokens, the last 50 repeating the first 50."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 1000, rng.integers(1, 21)).tolist() for _ in range(250)]
    return make_dataset(rows + rows[:50])


@pytest.fixture
def expected(dataset: Dataset) -> np.ndarray[Any, Any]:
    return FormulaTeacher().forward(Batch(dataset.ids, dataset.types, dataset.starts))


# --- what is computed and what is found again -----------------------------------------------------------------------


def test_each_content_is_computed_once_and_never_again(
    dataset: Dataset, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    teacher = FormulaTeacher()
    np.testing.assert_array_equal(teacher_logits(teacher, dataset, cache_dir=tmp_path, batch_tokens=100), expected)
    assert len(teacher.rows_computed) == len(set(teacher.rows_computed)) == 250

    again = FormulaTeacher()
    order = np.random.default_rng(1).permutation(300)[:120]
    batch, labels = dataset.batch(order)
    shuffled = teacher_logits(again, Dataset(*batch, labels), cache_dir=tmp_path)
    np.testing.assert_array_equal(shuffled, expected[order])
    assert again.rows_computed == []


def test_rows_that_are_new_are_computed_alone(dataset: Dataset, tmp_path: Path) -> None:
    teacher = FormulaTeacher()
    teacher_logits(teacher, dataset, cache_dir=tmp_path)
    teacher.rows_computed.clear()
    old = dataset.ids[: dataset.starts[1]].tolist()
    logits = teacher_logits(teacher, make_dataset([[5, 5], old, [5, 5], [7]]), cache_dir=tmp_path)
    assert len(teacher.rows_computed) == 2
    assert logits[:, 2].tolist() == [2 + 5, len(old) + 5, 2 + 5, 1 + 5]


@pytest.mark.parametrize("change", ["token types", "weights"])
def test_other_types_or_weights_are_other_rows(dataset: Dataset, tmp_path: Path, change: str) -> None:
    teacher_logits(FormulaTeacher(), dataset, cache_dir=tmp_path)
    other = FormulaTeacher("another" if change == "weights" else "first")
    rows = Dataset(dataset.ids, dataset.types + (change == "token types"), dataset.starts, dataset.labels)
    np.testing.assert_array_equal(
        teacher_logits(other, rows, cache_dir=tmp_path), other.forward(Batch(rows.ids, rows.types, rows.starts))
    )
    assert len(other.rows_computed) == 250 + 300


def test_batches_hold_rows_of_similar_length_and_no_more_tokens_than_asked(dataset: Dataset) -> None:
    batches: list[Batch] = []

    class Watching(FormulaTeacher):
        def forward(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
            batches.append(batch)
            return super().forward(batch)

    teacher_logits(Watching(), dataset, enabled=False, batch_tokens=200)
    lengths = sorted((np.diff(batch.starts) for batch in batches), key=lambda row: (row[0], row[-1]))
    assert max(len(batch.ids) for batch in batches) <= 200 + 20
    assert all(earlier[-1] <= later[0] for earlier, later in pairwise(lengths))
    with pytest.raises(ValueError, match="batch_tokens is 0; expected at least 1"):
        teacher_logits(FormulaTeacher(), dataset, enabled=False, batch_tokens=0)


def test_progress_counts_the_rows_to_compute(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        teacher_logits(
            FormulaTeacher(), dataset, cache_dir=tmp_path, batch_tokens=300, progress=lambda *at: seen.append(at)
        )
    assert seen[0] == (0, 250)
    assert seen[-2:] == [(250, 250), (0, 0)]
    assert seen[:-1] == sorted(seen[:-1])
    assert len(seen) > 5


def test_row_keys_are_the_blake2b_of_ids_and_types() -> None:
    rows = Dataset(np.array([7, 8, 9, 7], np.int32), np.array([0, 0, 1, 1], np.int32), np.array([0, 2, 3, 4]),
                   np.zeros(3, np.int64))  # fmt: skip
    contents = (struct.pack("<4i", 7, 0, 8, 0), struct.pack("<2i", 9, 1), struct.pack("<2i", 7, 1))
    assert [key.tobytes() for key in row_keys(rows)] == [
        hashlib.blake2b(content, digest_size=16).digest() for content in contents
    ]


def test_where_the_cache_lies(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "chosen"))
    teacher_logits(FormulaTeacher(), dataset, enabled=False)
    assert not (tmp_path / "chosen").exists()
    teacher_logits(FormulaTeacher(), dataset)
    assert len(list((tmp_path / "chosen").iterdir())) == 1
    monkeypatch.delenv("KDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_directory() == tmp_path / "xdg" / "kdistill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / ".cache" / "kdistill"


def test_no_home_is_a_warning(
    dataset: Dataset, expected: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KDISTILL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(UserWarning, match="there is no home directory; set KDISTILL_CACHE"):
        np.testing.assert_array_equal(teacher_logits(FormulaTeacher(), dataset), expected)


def test_info_and_clear(dataset: Dataset, tmp_path: Path) -> None:
    assert cache.info(tmp_path / "none") == []
    teacher_logits(FormulaTeacher(), dataset, cache_dir=tmp_path)
    teacher_logits(FormulaTeacher("another"), make_dataset([[1], [2]]), cache_dir=tmp_path)
    (tmp_path / "foreign.txt").write_text("not ours")
    files = cache.info(tmp_path)
    assert sorted((file.rows, file.num_labels, file.bytes) for file in files) == [
        (2, 3, HEADER_BYTES + 2 * RECORD_BYTES),
        (250, 3, HEADER_BYTES + 250 * RECORD_BYTES),
    ]
    assert cache.clear(tmp_path) == 2 * HEADER_BYTES + 252 * RECORD_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.txt"]


def test_a_writer_goes_on_in_a_new_file_after_clear(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 5))
    cache.clear(tmp_path)
    assert not store.lookup(keys_and_logits(0, 5)[0])[0].any()
    store.append(*keys_and_logits(0, 2))
    check(tmp_path, 2)


def test_a_real_model_half_cached_has_the_same_bits(dataset: Dataset, tmp_path: Path) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40}
    model = BertForSequenceClassification(BertConfig(vocab_size=1000, num_labels=3, **sizes), seed=1)
    whole = model.forward(Batch(dataset.ids, dataset.types, dataset.starts))
    half, labels = dataset.batch(np.arange(0, 250, 2))
    teacher_logits(model, Dataset(*half, labels), cache_dir=tmp_path, batch_tokens=64)
    assert teacher_logits(model, dataset, cache_dir=tmp_path, batch_tokens=150).tobytes() == whole.tobytes()
    (file,) = cache.info(tmp_path)
    assert file.rows == 250

    too_long = make_dataset([[1, 2], list(range(513))])
    with pytest.raises(ValueError, match="513"):
        teacher_logits(model, too_long, cache_dir=tmp_path)
    assert cache.info(tmp_path) == [file]

    model.parameters["classifier.bias"][:] += 1
    moved = teacher_logits(model, dataset, cache_dir=tmp_path)
    np.testing.assert_allclose(moved, whole + 1, rtol=0, atol=1e-6)  # one rounding of sums below 4


def test_an_interrupt_keeps_what_was_computed(dataset: Dataset, tmp_path: Path) -> None:
    class Interrupted(FormulaTeacher):
        def forward(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
            if len(self.rows_computed) > 100:
                raise KeyboardInterrupt
            return super().forward(batch)

    stopped, resumed = Interrupted(), FormulaTeacher()
    with pytest.raises(KeyboardInterrupt):
        teacher_logits(stopped, dataset, cache_dir=tmp_path, batch_tokens=100)
    teacher_logits(resumed, dataset, cache_dir=tmp_path)
    assert len(stopped.rows_computed) > 100
    assert len(stopped.rows_computed) + len(resumed.rows_computed) == 250


# --- damage and lack of room ----------------------------------------------------------------------------------------


def test_a_changed_byte_anywhere_in_a_record_makes_it_absent(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    keys, logits = keys_and_logits(0, 3)
    store.append(keys, logits)
    content = store.path.read_bytes()
    for place in range(HEADER_BYTES + RECORD_BYTES, HEADER_BYTES + 2 * RECORD_BYTES):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        store.path.write_bytes(damaged)
        found, stored = store.lookup(keys)
        assert found.tolist() == [True, False, True]
        np.testing.assert_array_equal(stored[[0, 2]], logits[[0, 2]])
    store.append(keys[1:2], logits[1:2])
    check(tmp_path, 3)


def test_a_hole_of_zeros_is_no_record(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 2))
    os.truncate(store.path, HEADER_BYTES + 6 * RECORD_BYTES)
    found, _ = store.lookup(np.zeros(1, dtype="V16"))
    assert not found.any()
    store.append(*keys_and_logits(2, 2))
    check(tmp_path, 4)


def test_records_of_another_teacher_do_not_pass(tmp_path: Path) -> None:
    mine, other = open_cache(tmp_path), TeacherCache(tmp_path, "other weights", 3)
    assert mine.path != other.path
    keys, logits = keys_and_logits(0, 3)
    other.append(keys, logits)
    with mine.path.open("ab") as file:
        file.write(other.path.read_bytes()[HEADER_BYTES:])
    assert not mine.lookup(keys)[0].any()


def test_a_damaged_header_sets_the_file_aside(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    store.append(*keys_and_logits(0, 3))
    content = store.path.read_bytes()
    for place in range(HEADER_BYTES):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        store.path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"had a damaged header; kept as [0-9a-f]{32}\.damaged"):
            check(tmp_path, 0)
    assert store.path.with_suffix(".damaged").read_bytes() == bytes(damaged)
    store.append(*keys_and_logits(0, 1))
    check(tmp_path, 1)
    (tmp_path / f"damaged{cache.SUFFIX}").write_bytes(damaged)
    (tmp_path / f"torn{cache.SUFFIX}").write_bytes(content[:9])
    assert [file.path for file in cache.info(tmp_path)] == [store.path]
    cache.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_keys_that_agree_in_their_first_half_are_never_confused(tmp_path: Path) -> None:
    half = b"8 bytes!"
    keys = np.frombuffer(half + b"number 1" + half + b"number 2", dtype="V16")
    store = open_cache(tmp_path)
    store.append(keys[:1], np.array([[1, 1, 1]], dtype=np.float32))
    assert store.lookup(keys)[0].tolist() == [True, False]
    store.append(keys[1:], np.array([[2, 2, 2]], dtype=np.float32))
    found, logits = store.lookup(keys)
    assert found.any()
    np.testing.assert_array_equal(logits[found], np.array([[1, 1, 1], [2, 2, 2]], dtype=np.float32)[found])


def test_a_cache_that_cannot_be_made_is_a_warning(
    dataset: Dataset, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.warns(UserWarning, match=r"the teacher cache cannot be used \(.*file.*\); continuing without it"):
        logits = teacher_logits(FormulaTeacher(), dataset, cache_dir=blocked)
    np.testing.assert_array_equal(logits, expected)
    assert blocked.read_text() == "in the way"


def test_a_full_disk_is_a_warning_and_what_was_written_serves(
    dataset: Dataset, expected: np.ndarray[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, HEADER_BYTES + 100 * RECORD_BYTES + 11

    def write_while_there_is_room(file: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, bytes(data[:room]))
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_while_there_is_room)
        with pytest.warns(UserWarning, match="No space left on device") as warned:
            logits = teacher_logits(FormulaTeacher(), dataset, cache_dir=tmp_path, batch_tokens=100)
    assert len(warned) == 1
    np.testing.assert_array_equal(logits, expected)
    teacher = FormulaTeacher()
    np.testing.assert_array_equal(teacher_logits(teacher, dataset, cache_dir=tmp_path), expected)
    assert len(teacher.rows_computed) == 150


def test_logits_that_are_not_finite_are_refused_and_not_stored(dataset: Dataset, tmp_path: Path) -> None:
    class Broken(FormulaTeacher):
        def forward(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
            logits = super().forward(batch)
            logits[np.add.reduceat(batch.ids == dataset.ids[0], batch.starts[:-1]) > 0, 1] = np.nan
            return logits

    with pytest.raises(FloatingPointError, match=r"the teacher's logits are not finite for \d+ rows, the first is row"):
        teacher_logits(Broken(), dataset, cache_dir=tmp_path)
    found, logits = TeacherCache(tmp_path, FormulaTeacher().weights_hash(), 3).lookup(row_keys(dataset))
    assert not found[0]
    assert np.isfinite(logits).all()


def test_logits_of_another_shape_are_refused(dataset: Dataset) -> None:
    class Wide(FormulaTeacher):
        config = SimpleNamespace(num_outputs=2)

    with pytest.raises(ValueError, match=r"the teacher's logits have shape \(250, 3\); expected \(250, 2\)"):
        teacher_logits(Wide(), dataset, enabled=False, batch_tokens=10**6)


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_file_is_laid_out_as_the_module_says(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    keys, logits = keys_and_logits(0, 2)
    store.append(keys, logits)
    content = store.path.read_bytes()
    key = hashlib.sha256(b"kdistill teacher logits 1\nweights").digest()
    assert store.path.name == f"{key.hex()[:32]}.logits"
    fields = b"KDLOGITS" + struct.pack("<II", 1, 3) + key
    checksum = hashlib.blake2b(fields + bytes(16), digest_size=8).digest()
    assert content[:HEADER_BYTES] == fields + checksum + bytes(8)
    factors = struct.unpack("<8Q", hashlib.shake_256(key).digest(64))
    for row in range(2):
        start = HEADER_BYTES + row * RECORD_BYTES
        record = content[start : start + RECORD_BYTES]
        assert record[:28] == keys[row].tobytes() + logits[row].tobytes()
        words = struct.unpack("<7I", record[:28])
        total = sum(word * (factor | 1) for word, factor in zip(words, factors, strict=False)) + (factors[7] | 1)
        assert struct.unpack("<Q", record[28:]) == (total % 2**64,)
