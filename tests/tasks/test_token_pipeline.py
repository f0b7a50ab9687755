"""`TokenClassificationPipeline` without transformers: rows of words, and words that are longer than the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import small_config

import kdistill as kd

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "film", "a", "##a", "-"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("tagger")
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tags = {0: "B-x", 1: "I-x", 2: "O"}
    config = small_config(vocab_size=len(WORDS), id2label=tags, initializer_range=0.6, max_position_embeddings=16)
    model = kd.BertForTokenClassification(config, seed=1)
    return kd.pipeline("ner", model, kd.AutoTokenizer.from_pretrained(directory), ignore_labels=[])


def test_words_are_tagged_at_their_places_in_the_text_that_they_make(pipe: Any) -> None:
    (found,) = pipe(["good", "film"], is_split_into_words=True, delimiter=" + ")
    assert [(one["word"], one["start"], one["end"]) for one in found] == [("good", 0, 4), ("film", 7, 11)]
    assert [one["score"] for one in found] == [one["score"] for one in pipe("good film")]
    assert pipe([["film"], ["good", "film"]], is_split_into_words=True)[1] == pipe(["good film"])[0]


def test_strategies_are_named_in_any_case(pipe: Any) -> None:
    assert pipe("good film", aggregation_strategy="SIMPLE") == pipe("good film", aggregation_strategy="simple")


def test_a_word_that_is_longer_than_a_window_is_answered_whole(pipe: Any) -> None:
    found = pipe("good " + 40 * "a")
    assert [one["start"] for one in found] == [0, *range(5, 45)]
    scores = np.array([one["score"] for one in found])
    assert scores.min() >= 1 / 3
    ids = [6, *[7] * 13]  # a window in the middle of the word
    inside = pipe.model([[2, *ids[1:], 7, 3]]).logits[0][1:-1].astype(np.float64)
    assert pytest.approx(scores[20], rel=1e-5) in list(
        (np.exp(inside) / np.exp(inside).sum(axis=1, keepdims=True)).max(axis=1)
    )
