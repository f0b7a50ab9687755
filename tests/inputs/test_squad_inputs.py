"""Random and odd answers have the scores that others' evaluations of SQuAD give them.

The scores of version 1.1 are those of the official script, which the package evaluate carries; those of 2.0, and the
best thresholds, of `squad_metrics.py` in transformers 4.57.1, which is the official script but for its input.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.paths import INPUTS

from kdistill.metrics.answers import answer_scores, best_no_answer_threshold

FOLDER = INPUTS / "squad"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
EVERY = pytest.mark.parametrize("name", EXPECTED)


def rows(name: str) -> list[dict[str, Any]]:
    """Return an answer, what is accepted, and the doubt that there is one, row after row."""
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def test_every_file_has_its_value() -> None:
    assert EXPECTED.keys() == {path.name for path in FOLDER.iterdir()} - {"expected.json"}


@EVERY
def test_answers_have_the_scores_of_version_1(name: str) -> None:
    known = [(row, of) for row, of in zip(rows(name), EXPECTED[name]["version_1"], strict=True) if row["accepted"]]
    found = answer_scores([row["answer"] for row, _ in known], [row["accepted"] for row, _ in known], no_answers=False)
    np.testing.assert_array_equal(np.stack([found.exact, found.f1], axis=1), [of for _, of in known])


@EVERY
def test_answers_have_the_scores_and_figures_of_version_2(name: str) -> None:
    given, expected = rows(name), EXPECTED[name]
    found = answer_scores([row["answer"] for row in given], [row["accepted"] for row in given], no_answers=True)
    np.testing.assert_array_equal(np.stack([found.exact, found.f1], axis=1), expected["version_2"])
    figures = found.figures()
    assert {"exact": figures.pop("exact_match"), **figures} == pytest.approx(expected["figures"], rel=1e-12)


@EVERY
@pytest.mark.parametrize("figure", ["exact", "f1"])
def test_the_best_threshold_is_that_of_version_2(name: str, figure: str) -> None:
    given = rows(name)
    answers = [row["answer"] for row in given]
    found = answer_scores(answers, [row["accepted"] for row in given], no_answers=True)
    answered = np.array([answer != "" for answer in answers])
    doubts = np.array([row["doubt"] for row in given])
    best = best_no_answer_threshold(getattr(found, figure), found.answerable, answered, doubts)
    assert best == pytest.approx(EXPECTED[name][f"best_{figure}"], rel=1e-12)
