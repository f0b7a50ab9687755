"""Running text: which lines are a document, how documents become blocks, and that nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_tokenizer
from support.small_run import VOCABULARY, WORDS

from kdistill.data.dataset import Dataset
from kdistill.data.documents import encode_documents, read_documents, read_text_table
from kdistill.text.tokenizer import PreTrainedTokenizerFast

FIRST, LAST = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    return question_tokenizer(tmp_path)


def texts_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return read_documents(read_text_table(str(path))).texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a good film\na bad plot\n", ["a good film", "a bad plot"]),
        ("\n \na good film\na bad plot\n\n\n", ["a good film", "a bad plot"]),  # at the ends they separate nothing
        ("a good\nfilm\n\na bad\nplot", ["a good film", "a bad plot"]),
        (" = Film = \n \n a good \r\n film \n\t\n\n a bad plot", ["= Film =", "a good film", "a bad plot"]),
        ("one document", ["one document"]),
    ],
)
def test_blank_lines_inside_of_a_text_file_separate_documents_and_lines_do_without_any(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    assert texts_of(tmp_path / "text.txt", text) == expected


def test_a_row_of_a_table_is_a_document(tmp_path: Path) -> None:
    rows = [{"text": "good\n\nfilm", "label": 1}, {"text": " ", "label": 0}, {"text": "bad", "label": 0}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source in (str(tmp_path / "rows.jsonl"), rows):
        documents = read_documents(read_text_table(source))
        assert (documents.texts, documents.empty) == (["good\n\nfilm", "bad"], 1)


def blocks_of(tokenizer: PreTrainedTokenizerFast, texts: list[str], max_length: int) -> Dataset:
    return encode_documents(read_documents(read_text_table(texts)), tokenizer, max_length=max_length)


def test_blocks_hold_every_token_of_one_document_each(tokenizer: PreTrainedTokenizerFast) -> None:
    random = np.random.default_rng(0)
    lengths = [1, 5, 6, 7, 12, 13, 25]
    texts = [" ".join(random.choice(WORDS, length)) for length in lengths]
    blocks = blocks_of(tokenizer, texts, 8)
    rows = np.split(blocks.ids, blocks.starts[1:-1])
    assert all((row[0], row[-1]) == (FIRST, LAST) for row in rows)
    assert [len(row) - 2 for row in rows] == [1, 5, 6, 4, 3, 6, 6, 5, 4, 4, 5, 5, 5, 5, 5]
    inside = [VOCABULARY[token] for row in rows for token in row[1:-1]]
    assert inside == " ".join(texts).split()
    assert blocks.masking is not None
    np.testing.assert_array_equal(blocks.labels, np.where(np.isin(blocks.ids, range(5)), -100, blocks.ids))


def test_rows_without_text_are_counted_and_said(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.warns(UserWarning, match="2 of 3 rows of the list hold no text and are left out"):
        blocks = blocks_of(tokenizer, ["", "good film", "\u200b"], 8)
    assert len(blocks) == 1


def refused(tokenizer: PreTrainedTokenizerFast, source: Any, **settings: Any) -> None:
    encode_documents(read_documents(read_text_table(source)), tokenizer, **({"max_length": 8} | settings))


def test_what_is_no_text_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"blank.txt holds nothing but white space; expected text"):
        refused(tokenizer, str(tmp_path / "blank.txt"))
    with pytest.raises(ValueError, match=r"the list has pairs of texts \(sentence1 and sentence2\); name one column"):
        refused(tokenizer, [{"sentence1": "good", "sentence2": "film"}])
    with pytest.raises(ValueError, match="max_length is 2; expected room for a token beside the 2 special ones"):
        refused(tokenizer, ["good film"], max_length=2)
