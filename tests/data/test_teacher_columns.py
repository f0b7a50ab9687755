"""Answers of a teacher in columns: the forms that people write them in, the student's order, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.data.sources import read_table
from kdistill.data.table import Table
from kdistill.data.teacher_columns import LEAST_PROBABILITY, Answers, teacher_column_of, without_teacher_columns

NAMES = ("negative", "neutral", "positive")
CLASSES, LABELS = Answers(NAMES, "softmax"), Answers(NAMES, "sigmoid")
NUMBER, EMBEDDING = Answers(("LABEL_0",), "none"), Answers((), "none")
ROW = [0.5, -1.25, 2.0]


def read(answers: Answers = CLASSES, **columns: Any) -> np.ndarray:
    column = teacher_column_of(Table("rows.tsv", columns))
    assert column is not None
    return column.read(answers)[0]


@pytest.mark.parametrize(
    "columns",
    [
        {"teacher_logits": [ROW, None]},
        {"teacher_logits": [np.array(ROW, np.float32), [np.nan] * 3]},
        {"teacher_logits": ["[0.5, -1.25, 2.0]", ""]},
        {"teacher_logits": ["(0.5, -1.25, 2)", float("nan")]},
        {"teacher_logits": [{"positive": 2.0, "neutral": -1.25, "negative": 0.5}, dict.fromkeys(NAMES)]},
        {"teacher_logits": ['{"positive": 2.0, "neutral": -1.25, "negative": 0.5}', None]},
        {"teacher_logits_0": ["0.5", ""], "teacher_logits_2": [2, None], "teacher_logits_1": ["-1.25", ""]},
        {
            "teacher_logits_positive": [2, ""],
            "teacher_logits_negative": [0.5, ""],
            "teacher_logits_neutral": [-1.25, ""],
        },
        {"teacher_logits": [[2.0, 0.5, -1.25], None], "label_names": [["positive", "negative", "neutral"]] * 2},
        {"teacher_logits": [ROW, None], "teacher_probs": [[1, 0, 0]] * 2},
    ],
)
def test_forms_of_logits(columns: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read(**columns), np.array([ROW, [np.nan] * 3], np.float32))


def test_numbers_other_than_from_0_on_are_names_of_labels() -> None:
    found = read(Answers(("5", "1"), "softmax"), teacher_logits_1=[0.5, None], teacher_logits_5=[2.0, None])
    np.testing.assert_array_equal(found, np.array([[2.0, 0.5], [np.nan] * 2], np.float32))


def test_a_column_states_the_temperature_of_an_average() -> None:
    rows = {"teacher_logits": [ROW, None, ROW], "text": ["a", "b", "c"]}
    one, average = (
        teacher_column_of(Table("rows.tsv", rows | more)) for more in ({}, {"teacher_temperature": ["2.5", "", 2.5]})
    )
    assert one is not None
    assert average is not None
    assert (one.temperature, average.temperature) == (None, 2.5)
    np.testing.assert_array_equal(one.read(CLASSES)[0], average.read(CLASSES)[0])
    assert list(
        without_teacher_columns(Table("rows.tsv", rows | {"teacher_temperature": [2] * 3}), average).columns
    ) == ["text"]


@pytest.mark.parametrize(("values", "row"), [([2, 3], 2), ([2, 0], 2), (["warm", 2], 1), ([float("inf"), 2], 1)])
def test_temperatures_that_are_none_or_differ_are_refused(values: list[Any], row: int) -> None:
    table = Table("rows.tsv", {"teacher_logits": [ROW, ROW], "teacher_temperature": values})
    with pytest.raises(ValueError, match=rf"row {row - 1}.*'teacher_temperature' holds .* the same in every row"):
        teacher_column_of(table)


def test_a_row_keeps_the_bits_of_float32() -> None:
    values = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    np.testing.assert_array_equal(read(teacher_logits=values.tolist()), values)


def test_probabilities_become_the_logits_that_give_them() -> None:
    rows = [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.33, 0.33, 0.33], {"positive": 0.7, "negative": 0.3}, None]
    found = read(teacher_probs=rows).astype(np.float64)
    np.testing.assert_allclose(np.exp(found[:4]).sum(axis=1), 1, rtol=1e-6)  # they are logarithms of probabilities
    softmax = np.exp(found[:4]) / np.exp(found[:4]).sum(axis=1, keepdims=True)
    expected = [[0.2, 0.3, 0.5], [1, 0, 0], [1 / 3] * 3, [0.3, 0, 0.7]]
    np.testing.assert_allclose(softmax, expected, atol=3 * LEAST_PROBABILITY)
    assert found[1, 1] == pytest.approx(np.log(LEAST_PROBABILITY))
    assert np.isnan(found[4]).all()


def test_probabilities_of_several_labels_are_each_by_itself() -> None:
    found = read(LABELS, teacher_probs=[[0.9, 0.9, 0.5], [0.0, 1.0, 0.25]]).astype(np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), [[0.9, 0.9, 0.5], [0, 1, 0.25]], atol=2 * LEAST_PROBABILITY)
    assert np.isfinite(found).all()


def test_numbers_and_embeddings() -> None:
    assert read(NUMBER, teacher_logits=[2.5, "3", None, [4]])[:, 0].tolist()[:2] == [2.5, 3.0]
    assert read(EMBEDDING, teacher_logits=[[1, 2, 3, 4], [5, 6, 7, 8]]).shape == (2, 4)


def test_words_have_an_answer_each() -> None:
    column = teacher_column_of(Table("rows.jsonl", {"teacher_logits": [[ROW, None], None, "[[1, 2, 3]]", []]}))
    assert column is not None
    found, lengths = column.read(Answers(NAMES, "softmax", per_part=True))
    assert lengths is not None
    assert lengths.tolist() == [2, -1, 1, 0]
    np.testing.assert_array_equal(found, np.array([ROW, [np.nan] * 3, [1, 2, 3]], np.float32))


def test_names_in_the_metadata_of_a_parquet_file_give_the_order(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"text": ["a"], "teacher_logits": pa.array([[2.0, 0.5, -1.25]], pa.list_(pa.float32()))})
    metadata = {"label_names": '["positive", "negative", "neutral"]'}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    column = teacher_column_of(read_table(tmp_path / "a.parquet"))
    assert column is not None
    np.testing.assert_array_equal(column.read(CLASSES)[0], [ROW])


@pytest.mark.parametrize(
    ("answers", "columns", "message"),
    [
        (
            CLASSES,
            {"teacher_probs": [[0.2, 0.3, 0.4]]},
            "row 0 of rows.tsv: 'teacher_probs' has the sum 0.9; expected 1",
        ),
        (CLASSES, {"teacher_probs": [[1.2, -0.2, 0]]}, "'teacher_probs' holds 1.2; expected probabilities, 0 to 1"),
        (LABELS, {"teacher_probs": [[0.5, -0.25, 0]]}, "'teacher_probs' holds -0.25; expected probabilities, 0 to 1"),
        (
            CLASSES,
            {"teacher_logits": [ROW, [1, 2]]},
            "row 1 of rows.tsv: 'teacher_logits' has 2 numbers; the student has 3",
        ),
        (CLASSES, {"teacher_logits": [[1, 2, float("inf")]]}, "'teacher_logits' is [1.0, 2.0, inf]; expected finite"),
        (CLASSES, {"teacher_logits": [[1, 2, float("nan")]]}, "expected finite numbers"),
        (CLASSES, {"teacher_logits": [[1, 2, None]]}, "expected finite numbers"),
        (CLASSES, {"teacher_logits": [[1, 2, 1e39]]}, "expected numbers of float32"),
        (
            CLASSES,
            {"teacher_logits": [{"bad": 1.0}]},
            "has 'bad', which is no label of the student; expected 'negative'",
        ),
        (
            CLASSES,
            {"teacher_logits": [{"negative": 1.0}]},
            "lacks 'neutral', 'positive'; expected a logit for every label",
        ),
        (
            CLASSES,
            {"teacher_logits": [[1, 2, 3]], "label_names": [["a", "neutral", "positive"]]},
            "is for the label 'a'",
        ),
        (CLASSES, {"teacher_logits": [[1, 2]], "label_names": [["negative", "positive"]]}, "the student has 'neutral'"),
        (CLASSES, {"teacher_logits": [[1, 2]], "label_names": [[*NAMES, "neutral"]]}, "one of them twice"),
        (
            CLASSES,
            {"teacher_logits": [ROW, ROW], "label_names": [list(NAMES), ["x"]]},
            "row 1 of rows.tsv: 'label_names' holds ['x']; expected the list of the names of labels, the same in every",
        ),
        (Answers(("LABEL_0", "LABEL_1"), "softmax"), {"teacher_logits": [{"good": 1.0}]}, "labels have no names; give"),
        (NUMBER, {"teacher_probs": [[1.0]]}, "'teacher_probs' holds probabilities, and the student gives numbers"),
        (EMBEDDING, {"teacher_logits": [[1, 2], [1, 2, 3]]}, "3 numbers, and the first row 2; expected as many"),
    ],
)
def test_answers_that_do_not_fit(answers: Answers, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(answers, **columns)


@pytest.mark.parametrize(
    ("answers", "value", "message"),
    [
        (CLASSES, "good", "holds 'good'; expected a list of numbers, or an object {label: number}"),
        (CLASSES, 3.0, "holds 3.0; expected a list of numbers"),
        (CLASSES, [1, 2, "x"], "holds 'x' among its numbers; expected numbers"),
        (CLASSES, [[1, 2, 3]] * 3, "holds [1, 2, 3] among its numbers; expected numbers"),
        (Answers(NAMES, "softmax", per_part=True), ROW, "expected a list for each word of the row, or None"),
    ],
)
def test_answers_of_another_kind(answers: Answers, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        read(answers, teacher_logits=[value])


def test_rows_without_such_columns_have_no_answers() -> None:
    assert teacher_column_of(Table("rows.tsv", {"text": ["a"], "teacher": ["b"]})) is None
