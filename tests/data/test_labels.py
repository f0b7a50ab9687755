"""Labels as people write them: numbers and names, marks for a missing one, truth values, 0 and 1 for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdistill.data.columns import Rows, read_rows
from kdistill.data.labels import NO_LABEL, label_indicators, label_numbers
from kdistill.data.table import Table

STARS = {index: str(index + 1) for index in range(5)}
ENTAILMENT = {0: "contradiction", 1: "entailment", 2: "neutral"}


def rows_with(labels: list[Any], class_names: tuple[str, ...] = ()) -> Rows:
    columns = {"text": ["x"] * len(labels), "label": labels}
    return read_rows(Table("the data", columns, class_names={"label": class_names} if class_names else {}))


# float() takes all of them: 10, 100, 7, infinity, 1 (an Arabic digit), 1, 0.5, 1; int() the first and the others too.
@pytest.mark.parametrize("text", ["1_0", "1E2", "007", "inf", "\u0661", "+1", ".5", "1\u2003", "0x1", "1.", "1\n"])
def test_a_text_that_is_not_written_as_a_whole_number_is_a_name(text: str) -> None:
    rows = rows_with([text, "other"])
    names = {0: text, 1: "other"}
    np.testing.assert_array_equal(rows.read_labels(names), [0, 1])
    assert set(rows.id2label().values()) == {text, "other"}
    with pytest.raises(ValueError, match=r"row 0 of the data: label .* is not one of the model's labels"):
        rows.read_labels(dict.fromkeys(range(101), "x") | {0: "a", 1: "other"})


def test_zeros_before_a_number_make_another_name() -> None:
    rows = rows_with(["007", "7", "7"])
    assert rows.id2label() == {0: "007", 1: "7"}
    np.testing.assert_array_equal(rows.read_labels(rows.id2label()), [0, 1, 1])


@pytest.mark.parametrize("text", ["1", " 1", "1 ", "1.0", "1.00"])
def test_a_text_that_is_written_as_a_whole_number_is_an_id(text: str) -> None:
    np.testing.assert_array_equal(rows_with([text, "0"]).read_labels({0: "a", 1: "b"}), [1, 0])


def test_numbers_of_a_regression_are_written_as_in_json() -> None:
    given = ["1e-3", "-2.5", "+1", ".5", "3.", "007", 4, np.float32(0.25)]
    expected = np.array([1e-3, -2.5, 1, 0.5, 3, 7, 4, 0.25], np.float32)
    np.testing.assert_array_equal(label_numbers(given, None, str), expected)
    for wrong in ("1_0", "inf", "\u0661", "0x1", "1e"):
        with pytest.raises(ValueError, match=r"0: label .* is not a number"):
            label_numbers([wrong], None, str)
    assert np.isnan(label_numbers(["-", "NA", "nan", "", " ", None], None, str)).all()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "5"], [0, 4]),
        ([1, 5], [0, 4]),
        ([1.0, 5.0], [0, 4]),
        (["0", "4", "1"], [0, 4, 1]),  # 0 is no name: the column holds ids
        ([0, 4, 1], [0, 4, 1]),
    ],
)
def test_numbers_are_names_where_the_whole_column_holds_names(labels: list[Any], expected: list[int]) -> None:
    np.testing.assert_array_equal(rows_with(labels).read_labels(STARS), expected)


def test_numbers_that_are_names_and_ids_are_names_with_a_warning() -> None:
    for labels in (["1", "4"], [1, 4]):
        with pytest.warns(
            UserWarning, match="the labels 1, 4 are names of the model's labels and also ids of its other labels"
        ):
            np.testing.assert_array_equal(rows_with(labels).read_labels(STARS), [0, 3])


# --- labels of a model that has none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        ([0, 1], 2),
        ([2, 0], 3),
        ([1, 2, 3, 4, 5], 6),
        ([0, 3], 4),
        ([2, 3], 4),
        (list(range(0, 77, 3)), 76),
        ([1, 1], 2),
    ],
)
def test_numbers_near_zero_are_ids_even_if_some_are_missing(labels: list[int], count: int) -> None:
    assert rows_with(labels).id2label() == {index: f"LABEL_{index}" for index in range(count)}


@pytest.mark.parametrize(
    "labels",
    [[10115, 80331, 99999], [200, 404, 500], [1600000000000, 0], list(range(1990, 2020)), [-2, 0, 2], [10, 20, 30]],
)
def test_numbers_far_apart_are_names_in_the_order_of_the_numbers(labels: list[int]) -> None:
    for given in (labels, list(map(str, labels)), list(map(float, labels))):
        rows = rows_with([*given, None])
        with pytest.warns(UserWarning, match=f"the data has {len(labels)} different labels from .*--num-labels"):
            names = rows.id2label()
        assert names == {index: str(number) for index, number in enumerate(sorted(labels))}
        np.testing.assert_array_equal(rows.read_labels(names), [*np.argsort(np.argsort(labels)), NO_LABEL])


def test_numbers_below_the_number_of_labels_are_ids() -> None:
    assert rows_with([3, 76]).id2label(77) == {index: f"LABEL_{index}" for index in range(77)}


@pytest.mark.parametrize(("labels", "message"), [(["a", "a"], "'a'"), ([500, 500], "'500'")])
def test_one_label_in_all_rows_is_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(
        ValueError, match=f"every label of the data is {message}; expected two different labels or more"
    ):
        rows_with(labels).id2label()


def test_glue_s_withheld_label_is_no_name() -> None:
    with pytest.raises(
        ValueError, match=r"the data: label -1 marks rows without a label in GLUE .*--label-names=-1,0,1"
    ):
        rows_with([-1, 0, 1]).id2label()
    np.testing.assert_array_equal(rows_with([-1, 0, "1"]).read_labels({0: "-1", 1: "0", 2: "1"}), [0, 1, 2])


# --- missing labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["-", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "None", " - "])
def test_a_mark_for_a_missing_label_is_none_with_a_warning(mark: str) -> None:
    rows = rows_with(["neutral", mark, "entailment", mark])
    with pytest.warns(
        UserWarning, match=rf"^2 of 4 rows of the data have the label '{mark.strip()}', .* read as a missing label"
    ):
        np.testing.assert_array_equal(rows.read_labels(ENTAILMENT), [2, NO_LABEL, 1, NO_LABEL])
    assert rows.id2label() == {0: "entailment", 1: "neutral"}
    named = {0: mark, 1: "neutral", 2: "entailment"}
    np.testing.assert_array_equal(rows.read_labels(named), [1, 0, 2, 0])


@pytest.mark.parametrize("missing", ["", "  ", "-100", -100.0])
def test_an_empty_label_is_missing(missing: Any) -> None:
    np.testing.assert_array_equal(rows_with(["0", missing]).read_labels({0: "a", 1: "b"}), [0, NO_LABEL])


# --- truth values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [[True, False, None], ["True", "False", ""], ["true", "false", ""], [np.True_, np.False_, None]]
)
def test_a_column_of_truth_values_is_false_and_true(labels: list[Any]) -> None:
    rows = rows_with(labels)
    assert rows.id2label() == {0: "False", 1: "True"}
    for names, expected in (
        ({0: "False", 1: "True"}, [1, 0]),
        ({0: "true", 1: "false"}, [0, 1]),
        ({0: "a", 1: "b"}, [1, 0]),
    ):
        np.testing.assert_array_equal(rows.read_labels(names), [*expected, NO_LABEL])
    with pytest.raises(ValueError, match=r"row 0 of the data: label .* is not one of the model's labels: 0 "):
        rows.read_labels(ENTAILMENT)


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 1], [1, 1]], [[0, 1], [1, 1]]),
        ([[0, 0], [1, 0]], [[0, 0], [1, 0]]),
        ([[True, False], [False, True]], [[1, 0], [0, 1]]),
        ([[0], [0, 1], []], [[1, 0], [1, 1], [0, 0]]),
        ([[0.0, 1.0], [1.0, 0.0]], [[0, 1], [1, 0]]),
        ([np.array([0, 1]), np.array([1, 1]), None], [[0, 1], [1, 1], [np.nan, np.nan]]),
    ],
)
def test_whole_numbers_are_0_or_1_for_each_label_where_they_cannot_be_ids(labels: list[Any], expected: Any) -> None:
    np.testing.assert_array_equal(label_indicators(labels, {0: "a", 1: "b"}, str), np.array(expected, np.float32))


def test_rows_of_scikit_learn_s_binarizer_are_0_or_1_for_each_label() -> None:
    labels = [[0, 1, 1], [1, 0, 0], [0, 1, 0]]
    np.testing.assert_array_equal(label_indicators(labels, ENTAILMENT, str), labels)
    assert rows_with(labels).id2label() == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_lists_that_can_be_both_are_refused() -> None:
    labels = [None, [0, 1], [1, 0]]
    with pytest.raises(
        ValueError, match=r"^1: label \[0, 1\]: .* can be ids, .*; expected names, or 0\.0 and 1\.0 for each"
    ):
        label_indicators(labels, {0: "a", 1: "b"}, str)
    with pytest.raises(ValueError, match=r"the data: label \[0, 1\]: .* can be ids"):
        rows_with(labels).id2label()
    ids = label_indicators(labels, {0: "a", 1: "b"}, str, ("b", "a"))  # the source names its ids
    np.testing.assert_array_equal(ids[1:], [[1, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"0: label \['a', None\] holds a missing label"):
        label_indicators([["a", None]], {0: "a", 1: "b"}, str)


# --- names that the source has for its ids ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (("entailment", "neutral", "contradiction"), [1, 2, 0]),
        (("Neutral", "CONTRADICTION", "entailment"), [2, 0, 1]),
        (("neutral", "entailment"), [2, 1]),  # a part of the model's
        (("neutral", "entailment", "contradiction", "hidden"), [2, 1, 0]),
        (("0", "1", "2"), [0, 1, 2]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2]),
    ],
)
def test_classes_of_the_source_are_matched_by_name(class_names: tuple[str, ...], expected: list[int]) -> None:
    rows = rows_with(list(range(len(expected))), class_names)
    np.testing.assert_array_equal(rows.read_labels(ENTAILMENT), expected)
    lists = label_indicators([[index] for index in range(len(expected))], ENTAILMENT, str, class_names)
    np.testing.assert_array_equal(lists.argmax(axis=1), expected)


def test_classes_unlike_the_model_s_are_said_or_refused() -> None:
    with pytest.warns(UserWarning, match="^the data calls its labels neg, pos, the model bad, good: no name matches"):
        np.testing.assert_array_equal(rows_with([0, 1], ("neg", "pos")).read_labels({0: "bad", 1: "good"}), [0, 1])
    with pytest.raises(
        ValueError, match=r"the data has 2 classes \(neg, pos\) and the model 3 others \(contradiction, "
    ):
        rows_with([0, 1], ("neg", "pos")).read_labels(ENTAILMENT)
    hidden = rows_with([0, 1], ("neutral", "hidden"))
    with pytest.raises(ValueError, match="row 1 of the data: label 1 is 'hidden', not one of the model's labels: 0 "):
        hidden.read_labels(ENTAILMENT)


def test_classes_that_differ_in_case_alone_are_matched_exactly() -> None:
    np.testing.assert_array_equal(rows_with([0, 1], ("a", "A")).read_labels({0: "A", 1: "a"}), [1, 0])


def test_a_message_does_not_list_thousands_of_labels() -> None:
    names = {index: f"name {index}" for index in range(40_000)}
    with pytest.raises(ValueError, match=r"19 \(name 19\) and 39,980 more") as error:
        rows_with(["unknown"]).read_labels(names)
    assert len(str(error.value)) < 1000
