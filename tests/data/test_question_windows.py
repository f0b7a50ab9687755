"""Questions cut into windows: labels of answers, what a window holds, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY

from kdistill.data.dataset import Dataset
from kdistill.data.label_values import NO_LABEL
from kdistill.data.question_windows import encode_questions
from kdistill.data.questions import read_questions
from kdistill.text.tokenizer import AutoTokenizer, BertTokenizer

CONTEXT = "good film bad plot great actor awful scene"


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    return AutoTokenizer.from_pretrained(tmp_path)


def row(answer: str | None, question: str = "bad film", context: str = CONTEXT) -> dict[str, Any]:
    found = {} if answer is None else {"answers": [{"text": answer, "answer_start": context.index(answer)}]}
    return {"question": question, "context": context, **found}


def packed(tokenizer: BertTokenizer, *rows: dict[str, Any], max_length: int = 9, doc_stride: int = 2) -> Dataset:
    return encode_questions(read_questions(list(rows)), tokenizer, max_length=max_length, doc_stride=doc_stride)


def texts(windows: Dataset) -> list[str]:
    bounds = zip(windows.starts[:-1], windows.starts[1:], strict=True)
    return [" ".join(VOCABULARY[token] for token in windows.ids[a:b]) for a, b in bounds]


def test_the_question_is_whole_in_each_window_and_windows_overlap(tokenizer: BertTokenizer) -> None:
    windows = packed(tokenizer, row(None), row(None, context="good film"))
    assert texts(windows) == [
        "[CLS] bad film [SEP] good film bad plot [SEP]",
        "[CLS] bad film [SEP] bad plot great actor [SEP]",
        "[CLS] bad film [SEP] great actor awful scene [SEP]",
        "[CLS] bad film [SEP] good film [SEP]",
    ]
    assert windows.types[:9].tolist() == [0] * 4 + [1] * 5
    assert windows.windows.context.tolist() == [[4, 8]] * 3 + [[4, 6]]
    assert windows.windows.examples.tolist() == [0, 0, 0, 1]
    assert windows.windows.of_questions().tolist() == [0, 3, 4]
    assert windows.windows.offsets[13:17].tolist() == [[10, 13], [14, 18], [19, 24], [25, 30]]
    assert (windows.labels == NO_LABEL).all()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("plot", [[7, 7], [5, 5], [0, 0]]),
        ("good", [[4, 4], [0, 0], [0, 0]]),
        ("scene", [[0, 0], [0, 0], [7, 7]]),
        ("great actor", [[0, 0], [6, 7], [4, 5]]),
        ("plot great", [[0, 0], [5, 6], [0, 0]]),
        ("lot gre", [[0, 0], [5, 6], [0, 0]]),
        ("film bad plot great actor", [[0, 0], [0, 0], [0, 0]]),
    ],
)
def test_labels_are_the_tokens_of_the_answer_or_cls(
    tokenizer: BertTokenizer, answer: str, expected: list[list[int]]
) -> None:
    assert packed(tokenizer, row(answer)).labels.tolist() == expected


def test_a_question_without_an_answer_has_the_label_cls(tokenizer: BertTokenizer) -> None:
    none = {"answers": {"text": [], "answer_start": []}}
    windows = packed(tokenizer, row(None) | none, row("good"))
    np.testing.assert_array_equal(windows.labels[:3], 0)
    np.testing.assert_array_equal(windows.labels[3], [4, 4])


def test_the_first_answer_is_the_label(tokenizer: BertTokenizer) -> None:
    answers = [{"text": "bad", "answer_start": 10}, {"text": "good", "answer_start": 0}]
    assert packed(tokenizer, row(None) | {"answers": answers}).labels[0].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("question", "settings", "message"),
    [
        ("bad " * 6, {}, "row 1 of the list: the question has 6 tokens, and max_length 9 with 3 special tokens leaves "
         "none for the context; expected max_length of at least 12"),
        ("bad film", {"doc_stride": 4}, "row 0 of the list: doc_stride is 4, and max_length 9 leaves 4 tokens for the "
         "context beside a question of 2; expected a doc_stride below 4"),
        ("bad film", {"doc_stride": 6}, "doc_stride is 6, .*; expected 0 to 5 with max_length 9"),
        ("bad film", {"doc_stride": -1}, "doc_stride is -1, the tokens .*; expected 0 to 5 with max_length 9"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    tokenizer: BertTokenizer, question: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        packed(tokenizer, row("good"), row("good", question), **settings)


def test_a_context_that_fits_needs_no_room_for_a_stride(tokenizer: BertTokenizer) -> None:
    assert texts(packed(tokenizer, row("good", context="good film"), doc_stride=5)) == [
        "[CLS] bad film [SEP] good film [SEP]"
    ]
    with pytest.raises(ValueError, match="row 0 of the list: the question has 6 tokens"):
        packed(tokenizer, row(None, "bad " * 6, context=""))


def test_progress_counts_questions(tokenizer: BertTokenizer) -> None:
    calls: list[tuple[int, int]] = []
    questions = read_questions([row("good")] * 600)
    encode_questions(
        questions, tokenizer, max_length=9, doc_stride=2, progress=lambda done, of: calls.append((done, of))
    )
    assert calls == [(0, 600), (256, 600), (512, 600), (600, 600)]
