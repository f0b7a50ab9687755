"""Spans out of tags, and the JSON lines that predictions of words are written as."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from kdistill.data.ragged import Ragged, starts_of
from kdistill.data.sources import read_table
from kdistill.data.windows import Windows
from kdistill.data.words import words_of
from kdistill.tasks.base import write_json_lines
from kdistill.tasks.token_predictions import TokenPredictions, spans_of

TAGS = ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "E-b", "S-b"]


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_spans_are_those_that_seqeval_finds(prefixes: str) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    random = np.random.default_rng(len(prefixes))
    known = [tag for tag in TAGS if tag[0] in f"O{prefixes}"]
    for _ in range(300):
        tags = random.choice(known, random.integers(0, 12)).tolist()
        expected = [(label, first, last + 1) for label, first, last in get_entities(tags)]
        assert [tuple(span) for span in spans_of(tags)] == expected, tags


def predictions(source: object, tags: list[list[str]], windows: Windows) -> TokenPredictions:
    """Predictions whose most probable tags are these, each with a logit of 2 where the others have 0."""
    names = ["O", "B-a", "I-a"]
    flat = [tag for row in tags for tag in row]
    logits = np.zeros((len(flat), 3), np.float32)
    logits[np.arange(len(flat)), [names.index(tag) for tag in flat]] = 2
    return TokenPredictions(names, Ragged(logits, starts_of(np.array(list(map(len, tags))))), words_of(source), windows)


SURE = float(np.exp(2) / (np.exp(2) + 2))


def test_texts_have_spans_in_characters() -> None:
    text = "In New  York."
    table = read_table([{"text": text}])
    # [CLS] in new york . [SEP], of which each word has one token.
    windows = Windows(np.array([0]), np.array([-1, 0, 1, 2, 3, -1]))
    found = predictions(table, [["B-a", "O", "B-a", "I-a", "O", "B-a"]], windows)
    file = io.StringIO()
    write_json_lines(file, found.records())
    (record,) = [json.loads(line) for line in file.getvalue().splitlines()]
    assert record["text"] == text
    assert record["tags"] == ["O", "B-a", "I-a", "O"]
    (span,) = record["entities"]
    assert span.pop("score") == pytest.approx(SURE)
    assert span == {"start": 3, "end": 12, "label": "a", "text": "New  York"}


def test_words_have_spans_in_tokens_over_all_windows() -> None:
    table = read_table({"tokens": [["in", "new", "\u200b", "york"], ["x"]]})
    # Two windows of the first row; the third word has no token at all, the second answers in the first window.
    windows = Windows(np.array([0, 0, 1]), np.array([-1, 0, 1, -1, -1, -1, 3, -1, -1, 0, -1]))
    tags = [["O", "O", "B-a", "O"], ["O", "I-a", "B-a", "O"], ["O", "B-a", "O"]]
    records = list(predictions(table, tags, windows).records())
    assert [record["index"] for record in records] == [0, 1]
    assert records[0]["tags"] == ["O", "B-a", "O", "B-a"]
    assert [(span["start"], span["end"], span["text"]) for span in records[0]["entities"]] == [
        (1, 2, "new"),
        (3, 4, "york"),
    ]
    assert records[1]["tokens"] == ["x"]
