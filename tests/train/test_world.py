"""What processes that train together must have in common, and what they share, with others that are made up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_config, small_dataset, small_model

import kdistill as kd
from kdistill.distill import sources
from kdistill.distill.cache import teacher_logits
from kdistill.distill.cache_exchange import exchange_answers
from kdistill.distill.sources import Teachers
from kdistill.distill.teachers import Teacher
from kdistill.train.evaluate import outputs_for
from kdistill.train.world import ALONE, require_same


class _OneOf:
    """One of several processes, whose others give what they are told to."""

    def __init__(self, rank: int, *others: Any) -> None:
        self.rank, self.size, self.leads, self._others = rank, len(others) + 1, rank == 0, others
        self.gathered: list[Any] = []

    def gather(self, mine: Any) -> list[Any]:
        self.gathered.append(mine)
        return [*self._others[: self.rank], mine, *self._others[self.rank :]]


def test_a_process_with_other_rows_is_named() -> None:
    facts = {"version of kdistill": kd.__version__, "arguments": {"seed": 1}, "rows": "abc"}
    require_same(_OneOf(1, facts), lambda: facts)
    with pytest.raises(ValueError, match=r"^rows of rank 1 of 2 differ from those of rank 0"):
        require_same(_OneOf(0, facts | {"rows": "abd"}), lambda: facts)
    with pytest.raises(ValueError, match=r"^version of kdistill of rank 1 of 2 differ"):
        require_same(_OneOf(0, facts | {"version of kdistill": "0"}), lambda: {"rows": "abc", "arguments": {"seed": 1}})
    require_same(ALONE, lambda: pytest.fail("nobody to compare with"))


def test_processes_share_the_rows_that_a_teacher_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = small_dataset(7), list[np.ndarray]()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1}))
    monkeypatch.setattr(Teacher, "outputs", lambda self, rows, args, *, what: asked.append(rows.ids))
    monkeypatch.setattr(Teacher, "exchange", lambda self, rows, args, world: asked.append(rows.ids))
    teachers, world = Teachers([Teacher(small_model(3))]), _OneOf(1, None, None)
    teachers.fill_cache(rows, args, world, what="training rows")
    for found, expected in zip(asked, [rows, rows.take([1, 4]), rows], strict=True):
        np.testing.assert_array_equal(found, expected.ids)
    teachers.fill_cache(rows, args, ALONE, what="training rows")
    args.teacher_cache = False  # nobody else would find the answers
    teachers.fill_cache(rows, args, world, what="training rows")
    assert len(asked) == 3


class _InThreads:
    """One of two processes, which are threads."""

    def __init__(self, rank: int, given: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.leads, self._given, self._barrier = rank, 2, rank == 0, given, barrier

    def gather(self, mine: Any) -> list[Any]:
        self._barrier.wait(30)
        self._given[self.rank] = mine
        self._barrier.wait(30)
        return [*self._given]


@pytest.mark.parametrize("per_token", [False, True])
def test_caches_in_two_directories_have_the_same_answers_after_an_exchange(tmp_path: Path, per_token: bool) -> None:
    rows = small_dataset(9)
    kind = kd.BertForTokenClassification if per_token else kd.BertForSequenceClassification
    teacher = kind(small_config(initializer_range=0.2), seed=3)
    caches = [tmp_path / "a", tmp_path / "b"]
    for cache, known in zip(caches, ([0, 1, 2, 5], [1, 4, 5]), strict=True):
        teacher_logits(teacher, rows.take(np.array(known)), cache_dir=cache)
    given, barrier = [None, None], threading.Barrier(2)
    with ThreadPoolExecutor() as pool:
        worlds = [_InThreads(rank, given, barrier) for rank in (0, 1)]
        [*pool.map(lambda world: exchange_answers(teacher, rows, world, caches[world.rank]), worlds)]
    asked = list[int]()
    for cache in caches:
        teacher_logits(
            teacher, rows.take(np.array([0, 1, 2, 4, 5])), cache_dir=cache, progress=lambda *of: asked.append(of[1])
        )
        found = teacher_logits(teacher, rows, cache_dir=cache)
        expected = teacher_logits(teacher, rows, enabled=False)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert {*asked} == {0}
    sizes = [path.stat().st_size for cache in caches for path in cache.glob("*.logits")]
    assert sizes[0] == sizes[1]  # nothing is there twice


def test_many_rows_are_asked_for_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = small_dataset(23), list[tuple[str, np.ndarray]]()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1}))
    monkeypatch.setattr(sources, "BLOCK_UNITS", 20)  # tokens of a part of each process
    monkeypatch.setattr(Teacher, "outputs", lambda self, rows, args, *, what: asked.append((what, rows)))
    monkeypatch.setattr(Teacher, "exchange", lambda self, rows, args, world: None)
    teachers = Teachers([Teacher(small_model(3))])
    for world in (_OneOf(0, None), _OneOf(1, None)):
        teachers.fill_cache(rows, args, world, what="training rows")
    (first, _), parts = asked[0], len(asked) // 2
    assert parts > 3
    assert first == f"training rows, part 1 of {parts}"
    assert max(len(of.ids) for _, of in asked) < 40
    found = sorted(of.ids[start:end].tobytes() for _, of in asked for start, end in pairwise(of.starts))
    assert found == sorted(rows.ids[start:end].tobytes() for start, end in pairwise(rows.starts))


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_share_the_batches_of_an_evaluation(rank: int) -> None:
    model, rows = small_model(2), small_dataset(11)
    expected = outputs_for(model, rows, batch_size=3, progress=lambda done, total: None)
    of_the_other = [expected[start : start + 3] for start in range(3 * (1 - rank), 11, 6)]
    world = _OneOf(rank, of_the_other)
    found = outputs_for(model, rows, batch_size=3, progress=lambda done, total: None, world=world)
    np.testing.assert_array_equal(found, expected)
    assert [len(of) for of in world.gathered[0]] == [[3, 3], [3, 2]][rank]
