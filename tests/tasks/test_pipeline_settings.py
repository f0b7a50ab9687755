"""Settings of pipelines that count something: a wrong one is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.small_questions import question_model, question_tokenizer
from support.small_run import small_config, small_model

import kdistill as kd

ASKED: dict[str, Any] = {
    "text-classification": "good film",
    "token-classification": "good film",
    "question-answering": {"question": "good", "context": "good film"},
    "fill-mask": "good [MASK]",
}


def pipeline_for(task: str, directory: Path, **settings: Any) -> Any:
    models = {
        "text-classification": small_model,
        "token-classification": lambda: kd.BertForTokenClassification(small_config(), seed=1),
        "question-answering": question_model,
        "fill-mask": lambda: kd.BertForMaskedLM(small_config(), seed=1),
    }
    return kd.pipeline(task, models[task](), question_tokenizer(directory), **settings)


@pytest.mark.parametrize("task", ASKED)
@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (-1, ValueError, "batch_size is -1; expected at least 1"),
        (0, ValueError, "batch_size is 0; expected at least 1"),
        (1.5, TypeError, "batch_size is 1.5 of type float; expected a whole number of at least 1"),
        ("8", TypeError, "batch_size is '8' of type str; expected a whole number of at least 1"),
    ],
)
def test_batches_have_a_row(task: str, tmp_path: Path, size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pipeline_for(task, tmp_path, batch_size=size)
    with pytest.raises(error, match=message):
        pipeline_for(task, tmp_path)(ASKED[task], batch_size=size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 1.5}, "top_k is 1.5 of type float; expected a whole number of at least 1"),
        ({"max_answer_len": "2"}, "max_answer_len is '2' of type str; expected a whole number of at least 1"),
        ({"max_seq_len": 3}, "max_length is 3; expected room for the 3 special tokens of a row, a question and a part"),
        ({"max_seq_len": -3}, "max_seq_len is -3; expected at least 1"),
    ],
)
def test_settings_of_questions_that_cannot_be(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pipeline_for("question-answering", tmp_path)(ASKED["question-answering"], **settings)
