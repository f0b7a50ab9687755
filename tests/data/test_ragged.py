"""Rows of different lengths: taken, joined, selected and padded as a list of arrays would be."""

from __future__ import annotations

import numpy as np
import pytest

from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL, UNTAGGED, labelled_rows
from kdistill.data.ragged import Ragged, starts_of, units_of
from kdistill.data.windows import Windows

LENGTHS = [3, 1, 5, 2]


def ragged(seed: int = 0) -> tuple[Ragged, list[np.ndarray]]:
    rows = [np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32) for length in LENGTHS]
    return Ragged(np.concatenate(rows), starts_of(np.array(LENGTHS))), rows


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [2, 2, 0], [3], []])
def test_taken_rows_are_those_of_a_list(places: list[int]) -> None:
    values, rows = ragged()
    taken = values.take(places)
    assert len(taken) == len(places)
    for found, place in zip(taken, places, strict=True):
        np.testing.assert_array_equal(found, rows[place])
    np.testing.assert_array_equal(values.values[units_of(values.starts, places)], taken.values)


def test_parts_are_joined_in_their_order() -> None:
    (first, rows), (second, others) = ragged(1), ragged(2)
    joined = Ragged.concatenated([first, second])
    for found, expected in zip(joined, [*rows, *others], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_rows_may_lose_units_and_stay_rows() -> None:
    values, rows = ragged()
    keep = np.random.default_rng(3).random(sum(LENGTHS)) < 0.4
    parts = np.split(keep, np.cumsum(LENGTHS)[:-1])
    for found, row, part in zip(values.selected(keep), rows, parts, strict=True):
        np.testing.assert_array_equal(found, row[part])


def test_numpy_sees_one_padded_array() -> None:
    values, rows = ragged()
    expected = np.full((4, 5, 2), -100, np.float32)
    for place, row in enumerate(rows):
        expected[place, : len(row)] = row
    np.testing.assert_array_equal(np.asarray(values), expected)
    np.testing.assert_array_equal(np.argmax(values, axis=2), expected.argmax(axis=2))
    with pytest.raises(IndexError, match="row 4 of 4 rows"):
        values[4]


def test_keys_but_integers_and_comparisons_are_those_of_the_padded_array() -> None:
    values, rows = ragged()
    array = values.padded()
    assert values.shape == np.shape(values) == array.shape
    for place in (1, -2, np.int64(3)):
        np.testing.assert_array_equal(values[place], rows[place])
    mask = np.array([True, False, True, True])
    for key in (np.s_[1:3], np.s_[::-1], [0, 3], mask, list(mask), (0, 1), np.s_[:, 2], np.s_[..., 0], None, True):
        np.testing.assert_array_equal(values[key], array[key])
    for other in (-100, array, array[0], values, None):
        np.testing.assert_array_equal(values == other, array == np.asarray(other))
        np.testing.assert_array_equal(values != other, array != np.asarray(other))
    np.testing.assert_array_equal(array != values, np.zeros(array.shape, bool))
    # What transformers' users write of predictions and labels.
    np.testing.assert_array_equal(values[values != -100], np.concatenate(rows).reshape(-1))
    np.testing.assert_array_equal(values[values[:, :, 0] != -100], np.concatenate(rows))


def test_a_method_of_arrays_is_refused_with_the_array_that_has_it() -> None:
    values, _ = ragged()
    with pytest.raises(AttributeError, match=r"Ragged has no attribute 'argmax': np\.asarray\(\.\.\.\)\.argmax is"):
        values.argmax(-1)
    with pytest.raises(AttributeError, match="Ragged has no attribute 'length'; did you mean 'lengths'"):
        values.length  # noqa: B018


def per_token(labels: list[list[int]], examples: list[int] | None = None) -> Dataset:
    lengths = np.array([len(row) for row in labels])
    tokens = int(lengths.sum())
    windows = None
    if examples is not None:
        windows = Windows(np.array(examples), np.arange(tokens))
    flat = np.array([label for row in labels for label in row], np.int64)
    ids, types = np.arange(tokens, dtype=np.int32), np.zeros(tokens, np.int32)
    return Dataset(ids, types, starts_of(lengths), flat, per_token=True, windows=windows)


def test_a_batch_has_the_labels_of_its_rows_tokens() -> None:
    rows = [[NO_LABEL, 1, 2, NO_LABEL], [NO_LABEL, 0], [NO_LABEL, UNTAGGED, NO_LABEL]]
    dataset = per_token(rows)
    batch, labels = dataset.batch([2, 0])
    np.testing.assert_array_equal(labels, rows[2] + rows[0])
    np.testing.assert_array_equal(batch.starts, [0, 3, 7])
    assert (len(dataset), dataset.labelled, dataset.unlabelled) == (3, 2, 1)
    assert dataset.parts(np.array([0, 2])) == 3
    np.testing.assert_array_equal(labelled_rows(dataset.targets), [True, True, False])
    taken = dataset.take([1, 2])
    np.testing.assert_array_equal(taken.labels, rows[1] + rows[2])
    assert dataset.fingerprint() != per_token([[NO_LABEL, 1, 1, NO_LABEL], *rows[1:]]).fingerprint()


def test_windows_of_an_example_are_one_target() -> None:
    rows = [[NO_LABEL, 1], [2, NO_LABEL], [NO_LABEL, 0], [3, 3]]
    dataset = per_token(rows, examples=[0, 0, 1, 2])
    assert [row.tolist() for row in dataset.targets] == [rows[0] + rows[1], rows[2], rows[3]]
    assert dataset.labelled == 3
    assert dataset.fingerprint() != per_token(rows, examples=[0, 1, 2, 3]).fingerprint()
    taken = dataset.take([1, 2])
    assert [row.tolist() for row in taken.targets] == [rows[1], rows[2]]


def test_labels_must_be_as_many_as_tokens() -> None:
    tokens = np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="labels has 2 entries; the data set has 3 tokens"):
        Dataset(tokens, tokens, np.array([0, 3]), np.zeros(2, np.int64), per_token=True)
