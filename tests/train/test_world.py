"""What processes that train together must have in common, and what they share, with others that are made up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_config, small_dataset, small_model

import kdistill as kd
from kdistill.distill import functions, sources
from kdistill.distill.cache import info, teacher_logits
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
    teachers.share(rows, args, world, what="training rows")
    for found, expected in zip(asked, [rows, rows.take([1, 4]), rows], strict=True):
        np.testing.assert_array_equal(found, expected.ids)
    teachers.share(rows, args, ALONE, what="training rows")
    args.teacher_cache = False  # nobody else would find the answers
    teachers.share(rows, args, world, what="training rows")
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


def in_threads(do: Callable[[_InThreads], Any]) -> list[Any]:
    """Do something in two processes, which are threads."""
    given, barrier = [None, None], threading.Barrier(2)
    with ThreadPoolExecutor() as pool:
        return [*pool.map(lambda rank: do(_InThreads(rank, given, barrier)), (0, 1))]


@pytest.mark.parametrize("per_token", [False, True])
def test_caches_in_two_directories_have_the_same_answers_after_an_exchange(tmp_path: Path, per_token: bool) -> None:
    rows = small_dataset(9)
    kind = kd.BertForTokenClassification if per_token else kd.BertForSequenceClassification
    teacher = kind(small_config(initializer_range=0.2), seed=3)
    caches = [tmp_path / "a", tmp_path / "b"]
    for cache, known in zip(caches, ([0, 1, 2, 5], [1, 4, 5]), strict=True):
        teacher_logits(teacher, rows.take(np.array(known)), cache_dir=cache)
    in_threads(lambda world: exchange_answers(teacher, rows, world, caches[world.rank]))
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


def counting(calls: list[list[str]], version: str | None = None) -> kd.TeacherFunction:
    """A function that notes its calls, with answers that depend on the others of a call, as where a model pads."""

    def answers(rows: list[dict[str, Any]]) -> np.ndarray:
        calls.append([str(row) for row in rows])
        longest = max(len(row["input_ids"]) for row in rows)
        return np.array([[sum(row["input_ids"]), longest] for row in rows], np.float64)

    teacher = kd.TeacherFunction(answers, "mine", version)
    teacher.check_student(small_model(), None)
    return teacher


def test_processes_share_the_calls_of_a_function_that_one_process_would_make(tmp_path: Path) -> None:
    rows, of_one = small_dataset(40).take([*range(40), 0, 1, 2]), list[list[str]]()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"per_device_eval_batch_size": 3}))
    expected = counting(of_one).outputs(rows, args, what="rows")
    calls: list[list[list[str]]] = [[], []]
    args.teacher_cache = False  # they give each other the answers without it

    def learn(world: _InThreads) -> Any:
        teacher = counting(calls[world.rank])
        Teachers([teacher]).share(rows, args, world, what="rows")
        return teacher.outputs(rows, args, what="rows")

    for found in in_threads(learn):
        np.testing.assert_array_equal(found, expected)
    assert [calls[0], calls[1]] == [of_one[::2], of_one[1::2]]
    asked = [row for call in of_one for row in call]
    assert len(asked) == len({*asked}) == 40


@pytest.mark.parametrize("common", [True, False])
def test_a_function_with_a_version_is_asked_for_what_no_cache_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, common: bool
) -> None:
    rows, calls, at = small_dataset(40), list[list[str]](), threading.local()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"per_device_eval_batch_size": 3}))
    monkeypatch.setattr(functions, "cache_directory", lambda: tmp_path / ("cache" if common else f"cache-{at.rank}"))

    def learn(world: _InThreads) -> Any:
        at.rank = world.rank
        if world.leads:
            counting(calls, "1").outputs(rows.take(np.arange(10)), args, what="rows")
        world.gather(None)
        teacher = counting(calls, "1")
        teacher.share(rows, args, world, what="rows")
        before = len(calls)
        found = [of.outputs(rows, args, what="rows") for of in (teacher, counting(calls, "1"))]
        world.gather(None)
        assert len(calls) == before
        return found

    (first, again), (other, from_its_cache) = in_threads(learn)
    for found in (again, other, from_its_cache):
        np.testing.assert_array_equal(found, first)
    asked = [row for call in calls for row in call]
    assert len(asked) == len({*asked})
    for directory in tmp_path.glob("cache*"):
        assert [of.rows for of in info(directory)] == [len(asked)]  # none is there twice


def test_many_rows_are_asked_for_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = small_dataset(23), list[tuple[str, np.ndarray]]()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1}))
    monkeypatch.setattr(sources, "BLOCK_UNITS", 20)  # tokens of a part of each process
    monkeypatch.setattr(Teacher, "outputs", lambda self, rows, args, *, what: asked.append((what, rows)))
    monkeypatch.setattr(Teacher, "exchange", lambda self, rows, args, world: None)
    teachers = Teachers([Teacher(small_model(3))])
    for world in (_OneOf(0, None), _OneOf(1, None)):
        teachers.share(rows, args, world, what="training rows")
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
