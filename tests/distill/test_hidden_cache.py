"""What lies inside a teacher on disk: the bits of the teacher, a budget, damage, other processes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import engines
from support.small_run import run_fields, small_dataset, small_model, weights

import kdistill as kd
from kdistill.data.batch import Batch
from kdistill.distill.cache import clear
from kdistill.distill.hidden_cache import HEAD, HiddenCache, from_bfloat16, hidden_bytes, to_bfloat16
from kdistill.distill.teachers import Teacher
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.byte_sizes import bytes_of
from kdistill.trainers import DistillationTrainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
TAPS = [("hidden", 0), ("hidden", 2), ("scores", 1), ("query", 0)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Asked(Teacher):
    """Counts the rows that it answers."""

    rows = 0

    def inside(self, batch: Batch, taps: Any) -> Any:
        self.rows += len(batch.starts) - 1
        return super().inside(batch, taps)


def teacher(**changes: Any) -> Asked:
    return Asked(small_model(9, hidden_size=24, **changes).freeze())


def batch_of(rows: Any) -> Batch:
    return small_dataset(12).batch(np.array(rows))[0]


def file_of(cache: Path) -> Path:
    (path,) = cache.glob("*.hidden")
    return path


def test_numbers_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(values)), engines.to_bfloat16(values))
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(ties)), np.array([1, 1 + 2**-6, -1], np.float32))


def test_a_row_has_the_same_bits_from_the_teacher_and_from_the_file() -> None:
    asked = teacher()
    exact = asked.observed.forward(batch_of(range(12)), taps=TAPS)[1]
    first = HiddenCache(asked, 10**9)
    some = first(batch_of([0, 3, 5]), TAPS)
    assert some.keys() == exact.keys()
    whole = first(batch_of(range(12)), TAPS)  # some from the file, others asked
    again = HiddenCache(asked, 10**9)(batch_of(range(12)), TAPS)
    assert asked.rows == 12
    for tap, values in exact.items():
        assert whole[tap].shape == values.shape
        np.testing.assert_array_equal(whole[tap], from_bfloat16(to_bfloat16(values)))
        np.testing.assert_array_equal(again[tap], whole[tap])


def test_each_layer_has_its_own_heads() -> None:
    """As after pruning: a layer with one head of 12 numbers behind one with two."""
    asked = teacher(pruned_heads={1: [0]})
    taps = [(kind, layer) for layer in (0, 1) for kind in ("scores", "query", "value")]
    exact = asked.observed.forward(batch_of(range(6)), taps=taps)[1]
    assert [exact["query", layer].shape[1] for layer in (0, 1)] == [24, 12]
    for _ in range(2):  # asked, then from the file
        found = HiddenCache(asked, 10**9)(batch_of(range(6)), taps)
        for tap, values in exact.items():
            np.testing.assert_array_equal(found[tap], from_bfloat16(to_bfloat16(values)))
    assert asked.rows == 6


def test_what_is_not_finite_is_neither_rounded_nor_kept(cache: Path) -> None:
    asked = teacher()
    asked.inside = lambda batch, taps: {tap: np.full((len(batch.ids), 24), np.nan, np.float32) for tap in taps}
    with pytest.raises(FloatingPointError, match=r"inside the teacher at \('hidden', 0\) is not finite"):
        HiddenCache(asked, 10**9)(batch_of([0]), TAPS[:1])
    assert file_of(cache).stat().st_size == 0


def test_files_are_of_one_teacher_and_its_taps(cache: Path) -> None:
    HiddenCache(teacher(), 10**9)(batch_of([0]), TAPS)
    HiddenCache(teacher(), 10**9)(batch_of([0]), TAPS[:1])
    HiddenCache(Asked(small_model(8, hidden_size=24).freeze()), 10**9)(batch_of([0]), TAPS)
    assert len(list(cache.glob("*.hidden"))) == 3


def test_rows_beyond_the_budget_are_asked_again(cache: Path) -> None:
    asked = teacher()
    HiddenCache(asked, 10**9)(batch_of([0, 1]), TAPS)
    size = file_of(cache).stat().st_size
    full = HiddenCache(asked, size + 10)
    with pytest.warns(
        UserWarning, match="^the hidden cache is full: its files in .* take .*; the teacher answers other"
    ):
        full(batch_of([0, 2]), TAPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full(batch_of([1, 2]), TAPS)
    assert asked.rows == 4
    assert file_of(cache).stat().st_size == size == hidden_bytes()
    assert clear() == size
    assert not list(cache.glob("*.hidden"))


@pytest.mark.parametrize("damage", ["torn", "torn head", "wrong number", "wrong count"])
def test_damaged_records_are_asked_again_and_never_read(cache: Path, damage: str) -> None:
    asked = teacher()
    good = HiddenCache(asked, 10**9)(batch_of([0, 1]), TAPS)
    path = file_of(cache)
    content = bytearray(path.read_bytes())
    second = HEAD.size + 2 * HEAD.unpack(content[: HEAD.size])[1]
    if damage == "torn":
        del content[-5:]
    elif damage == "torn head":
        del content[second + 7 :]
    elif damage == "wrong number":
        content[second + HEAD.size + 3] ^= 1
    else:
        content[second + 19] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        found = HiddenCache(asked, 10**9)(batch_of([0, 1]), TAPS)
        for tap, values in good.items():
            np.testing.assert_array_equal(found[tap], values)
    assert asked.rows == 3


def test_two_processes_share_a_file() -> None:
    """Each opened it before the other wrote: what was written meanwhile is found at the next writing."""
    one, two = teacher(), teacher()
    first, second = HiddenCache(one, 10**9), HiddenCache(two, 10**9)
    first(batch_of([0]), TAPS)
    second(batch_of([1]), TAPS)
    first(batch_of([2]), TAPS)
    second(batch_of([3]), TAPS)
    assert (one.rows, two.rows) == (2, 2)
    first(batch_of([0, 1, 2]), TAPS)
    second(batch_of([0, 1, 2, 3]), TAPS)
    assert (one.rows, two.rows) == (2, 2)


def test_a_directory_that_cannot_be_written_costs_a_warning(cache: Path) -> None:
    cache.write_text("")
    asked = teacher()
    with pytest.warns(UserWarning, match="^the teacher cache cannot be used"):
        found = HiddenCache(asked, 10**9)(batch_of([0]), TAPS)
    assert found["hidden", 2].shape[1] == 24
    assert cache.is_file()


def run(directory: Path, **changes: Any) -> DistillationTrainer:
    fields = {"matches": [kd.Match("hidden")], "hidden_cache": "1MB", "eval_strategy": "no"} | changes
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(directory, fields)),
        teacher_model=small_model(9, hidden_size=24),
        train_dataset=small_dataset(20),
    )
    trainer.train()
    return trainer


def test_a_run_has_the_same_bits_whatever_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    inside = Teacher.inside
    monkeypatch.setattr(
        Teacher, "inside", lambda self, *of: (asked.append(len(of[0].starts) - 1), inside(self, *of))[1]
    )
    first = run(tmp_path / "a")
    distinct = sum(asked)
    assert distinct <= 20  # in two epochs
    second = run(tmp_path / "b")
    assert sum(asked) == distinct
    np.testing.assert_array_equal(weights(first.model), weights(second.model))
    clear()
    with pytest.warns(UserWarning, match="the hidden cache is full"):
        third = run(tmp_path / "c", hidden_cache="10B")
    np.testing.assert_array_equal(weights(first.model), weights(third.model))


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5 MiB", 3 * 2**19), ("17", 17), ("3b", 3), ("x", 0), ("GB", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize(("value", "error"), [("20 apples", ValueError), (0, ValueError), (True, TypeError)])
def test_what_is_no_size(tmp_path: Path, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^hidden_cache is .*; expected bytes"):
        DistillationTrainingArguments(str(tmp_path), matches="pkd", hidden_cache=value)
