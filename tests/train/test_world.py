"""What processes that train together must have in common, and what they share, with others that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
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
    facts = {"arguments": {"seed": 1}, "rows": "abc"}
    require_same(_OneOf(1, facts), lambda: facts)
    with pytest.raises(ValueError, match="rank 1 of 2 has other rows than rank 0"):
        require_same(_OneOf(0, facts | {"rows": "abd"}), lambda: facts)
    require_same(ALONE, lambda: pytest.fail("nobody to compare with"))


def test_processes_share_the_rows_that_a_teacher_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = small_dataset(7), list[np.ndarray]()
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1}))
    monkeypatch.setattr(Teacher, "outputs", lambda self, rows, args, *, what: asked.append(rows.ids))
    teachers, world = Teachers([Teacher(small_model(3))]), _OneOf(1, None, None)
    teachers.fill_cache(rows, args, world, what="training rows")
    np.testing.assert_array_equal(asked, [rows.take([1, 4]).ids])
    assert world.gathered == [None]  # it waits for the others
    teachers.fill_cache(rows, args, ALONE, what="training rows")
    args.teacher_cache = False  # nobody else would find the answers
    teachers.fill_cache(rows, args, world, what="training rows")
    assert len(asked) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_share_the_batches_of_an_evaluation(rank: int) -> None:
    model, rows = small_model(2), small_dataset(11)
    expected = outputs_for(model, rows, batch_size=3, progress=lambda done, total: None)
    of_the_other = [expected[start : start + 3] for start in range(3 * (1 - rank), 11, 6)]
    world = _OneOf(rank, of_the_other)
    found = outputs_for(model, rows, batch_size=3, progress=lambda done, total: None, world=world)
    np.testing.assert_array_equal(found, expected)
    assert [len(of) for of in world.gathered[0]] == [[3, 3], [3, 2]][rank]
