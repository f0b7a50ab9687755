"""Predictions as they are written: digits, and what stands for nothing predicted."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from kdistill.tasks.base import write_json_lines
from kdistill.tasks.predictions import ALL_DIGITS, predictions_of
from kdistill.tasks.registry import TASKS

SINGLE, MULTI = TASKS["single_label_classification"], TASKS["multi_label_classification"]
NAMES = ["praise", "blame", "a,b"]


def scores_in_tsv(logits: list[list[float]], digits: int) -> list[list[str]]:
    file = io.StringIO()
    predictions_of(SINGLE, np.array(logits, np.float32), NAMES).write_tsv(file, digits)
    return [line.split("\t")[2:] for line in file.getvalue().splitlines()[1:]]


@pytest.mark.parametrize("digits", [1, 4, 6, 12])
def test_scores_have_few_digits_and_those_are_right(digits: int) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    written = scores_in_tsv(logits.tolist(), digits)
    np.testing.assert_allclose(
        [[float(score) for score in row] for row in written], exact, rtol=0.5001 * 10 ** (1 - digits)
    )
    assert max(len(score.partition("e")[0].lstrip("0.")) for row in written for score in row) <= digits


def test_all_digits_are_the_number_itself() -> None:
    logits = [[0.1, -3.0, 2.5], [9.0, -20.0, 0.0]]
    exact = np.exp(np.array(logits, np.float32).astype(np.float64))
    (first, second) = scores_in_tsv(logits, ALL_DIGITS)
    shifted = [np.exp(np.float64(np.float32(x)) - np.float64(np.float32(2.5))) for x in logits[0]]
    assert [float(score) for score in first] == pytest.approx(exact[0] / exact[0].sum(), rel=1e-15)
    assert [float(score) for score in first] == [x / sum(shifted) for x in shifted]
    assert first == [repr(float(score)) for score in first]
    assert float(second[0]) < 1


def test_a_probability_below_1_is_not_written_as_1() -> None:
    """exp(-20) is 2e-9: the best score is nearer to 1 than six digits can show, and a wrong 1 has an infinite loss."""
    assert scores_in_tsv([[20.0, 0.0, -9.0]], 6)[0][0] == "0.999999"
    assert scores_in_tsv([[20.0, 0.0, -9.0]], 3)[0][0] == "0.999"
    assert scores_in_tsv([[60.0, 0.0, 0.0]], 6)[0][0] == "1"  # a float64 has no nearer neighbour


def test_json_lines_name_what_is_predicted() -> None:
    logits = np.array([[2.0, -2.0, 3.0], [-1.0, -2.0, -3.0]], np.float32)
    file = io.StringIO()
    found = predictions_of(MULTI, logits, NAMES, texts={"text": ["gut, schön", "x"]})
    write_json_lines(file, found.records())
    first, second = map(json.loads, file.getvalue().splitlines())
    assert (first["prediction"], second["prediction"]) == (["praise", "a,b"], [])
    assert first["scores"] == pytest.approx(
        {"praise": 1 / (1 + math.exp(-2)), "blame": 1 / (1 + math.exp(2)), "a,b": 1 / (1 + math.exp(-3))}
    )
    assert first["text"] == "gut, schön"
    assert "schön" in file.getvalue()
    file = io.StringIO()
    write_json_lines(file, predictions_of(SINGLE, logits, NAMES, threshold=0.99).records())
    assert [json.loads(line)["prediction"] for line in file.getvalue().splitlines()] == [None, None]
