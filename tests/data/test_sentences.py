"""Texts and pairs as rows that are embedded: how they are read, and what they are compared with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_tokenizer
from support.small_run import small_dataset

from kdistill.data.columns import NO_COLUMNS, Columns
from kdistill.data.sentence_rows import encode_sentences
from kdistill.data.sentences import Sentences

PAIRS = {
    "sentence1": ["good film", "bad plot", "actor"],
    "sentence2": ["great film", "film", "scene"],
    "score": [4.5, None, 1.0],
}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return question_tokenizer(tmp_path)


def test_each_text_of_a_pair_is_a_row(tokenizer: Any) -> None:
    dataset = encode_sentences(PAIRS, tokenizer, max_length=8)
    assert len(dataset) == 6
    assert dataset.ids[: dataset.starts[2]].tolist() == [2, 5, 9, 3, 2, 6, 9, 3]
    assert not dataset.types.any()
    np.testing.assert_array_equal(dataset.labels, np.float32([4.5, 4.5, np.nan, np.nan, 1, 1]))
    targets = dataset.targets
    assert targets.labelled().tolist() == [True, False, True]
    assert len(targets) == 2
    assert (dataset.num_examples, dataset.labelled, dataset.rows_are) == (3, 2, "texts")
    pairs = targets.pairs()
    assert (pairs.first.tolist(), pairs.second.tolist(), pairs.scores.tolist()) == ([0, 4], [1, 5], [4.5, 1.0])


def test_taken_rows_stay_pairs_where_both_are_taken(tokenizer: Any) -> None:
    dataset = encode_sentences(PAIRS, tokenizer, max_length=8)
    taken = dataset.take([4, 5, 0])
    pairs = taken.targets.pairs()
    assert (pairs.first.tolist(), pairs.scores.tolist()) == ([0], [1.0])
    assert not taken.without_labels().labelled
    assert taken.windows.examples.tolist() == [0, 0, 1]
    assert dataset.take([4, 0, 5]).windows.examples.tolist() == [0, 1, 2]


def test_texts_without_a_score_count_as_examples(tokenizer: Any) -> None:
    dataset = encode_sentences(["good", "bad"], tokenizer, max_length=8)
    assert (dataset.num_examples, dataset.labelled, dataset.rows_are) == (2, 0, "rows")


def test_a_reference_labels_every_example(tokenizer: Any) -> None:
    dataset = encode_sentences(PAIRS, tokenizer, max_length=8)
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    windows = Sentences(dataset.windows.examples, lambda: values)
    assert len(windows.targets(dataset.labels, dataset.starts)) == 3
    np.testing.assert_array_equal(windows.take([5, 1], dataset.starts).reference(), values[[5, 1]])


def test_labels_of_single_texts_are_said_not_to_be_read(tokenizer: Any) -> None:
    rows = {"sentence": ["good", "bad"], "label": [1, 0]}
    dataset = encode_sentences(rows, tokenizer, max_length=8)
    assert np.isnan(dataset.labels).all()
    assert "column 'label' is not used" in dataset.column_use.unused_sentence()
    with pytest.raises(ValueError, match=r"label_column is 'label', and .* has single texts, whose labels embeddings"):
        encode_sentences(rows, tokenizer, max_length=8, label_column="label")


def test_a_label_goes_before_a_column_called_score(tokenizer: Any) -> None:
    rows = {"sentence1": ["good"], "sentence2": ["film"], "score": [2.0], "label": [3.0]}
    assert encode_sentences(rows, tokenizer, max_length=8).targets.pairs().scores.tolist() == [3.0]


def test_names_of_classes_are_no_scores(tokenizer: Any) -> None:
    rows = {"premise": ["good"], "hypothesis": ["bad"], "label": ["contradiction"]}
    assert np.isnan(encode_sentences(rows, tokenizer, max_length=8).labels).all()
    with pytest.raises(ValueError, match="label 'contradiction' is not a number"):
        encode_sentences(rows, tokenizer, max_length=8, label_column="label")


@pytest.mark.parametrize("trained_on", [Columns("sentence1", "sentence2", "score"), NO_COLUMNS])
def test_a_column_called_score_holds_numbers(tokenizer: Any, trained_on: Any) -> None:
    rows = {"sentence1": ["good", "bad"], "score": [None, "a film"], "sentence2": ["5.0", "0.5"]}
    expected = "row 1 of the dict: 'score' holds 'a film'; expected a number, the score of the pair in sentence1 and"
    with pytest.raises(ValueError, match=expected):
        encode_sentences(rows, tokenizer, max_length=8, trained_on=trained_on)
    del rows["sentence2"]  # of single texts no score is read
    rows["sentence"] = rows.pop("sentence1")
    assert np.isnan(encode_sentences(rows, tokenizer, max_length=8).labels).all()


def test_columns_of_the_training_are_no_matter(tokenizer: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = encode_sentences(
            {"text": ["good"]}, tokenizer, max_length=8, trained_on=("sentence1", "sentence2", "score")
        )
    assert len(dataset) == 1


def test_rows_of_token_ids_and_data_sets_are_taken(tokenizer: Any) -> None:
    rows = {"input_ids": [[2, 5, 3, 0], [2, 5, 6, 3]]}
    dataset = encode_sentences(rows, None, max_length=8, pad_token_id=0)
    assert dataset.lengths.tolist() == [3, 4]
    other = encode_sentences(small_dataset(5), None, max_length=8)
    assert isinstance(other.windows, Sentences)
    assert encode_sentences(other, None, max_length=8) is other
    with pytest.raises(ValueError, match="holds text; pass a tokenizer"):
        encode_sentences(PAIRS, None, max_length=8)
