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
    "feature-extraction": "good film",
}


def pipeline_for(task: str, directory: Path, **settings: Any) -> Any:
    models = {
        "text-classification": small_model,
        "token-classification": lambda: kd.BertForTokenClassification(small_config(), seed=1),
        "question-answering": question_model,
        "fill-mask": lambda: kd.BertForMaskedLM(small_config(), seed=1),
        "feature-extraction": lambda: kd.BertModel(small_config(), seed=1),
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
        ({"doc_stride": "2"}, "doc_stride is '2' of type str; expected a whole number of at least 0"),
        ({"handle_impossible_answer": "no"}, "handle_impossible_answer is 'no'; expected True or False"),
        ({"align_to_words": 0}, "align_to_words is 0; expected True or False"),
    ],
)
def test_settings_of_questions_that_cannot_be(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pipeline_for("question-answering", tmp_path)(ASKED["question-answering"], **settings)


@pytest.mark.parametrize("task", [task for task in ASKED if task != "question-answering"])
def test_inputs_are_texts(task: str, tmp_path: Path) -> None:
    pipe = pipeline_for(task, tmp_path)
    with pytest.raises(TypeError, match="inputs is 3 of type int; expected a text or several"):
        pipe(3)
    with pytest.raises((TypeError, ValueError), match=r"inputs\[1\] is 3( of type int)?; expected a text"):
        pipe([ASKED[task], 3])


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "feature-extraction"])
def test_texts_are_cut_with_one_warning_unless_it_is_asked_for(task: str, tmp_path: Path) -> None:
    long = " ".join([ASKED[task], *["film"] * 30])
    pipe = pipeline_for(task, tmp_path)
    with pytest.warns(UserWarning, match=r"1 of 2 texts \(50.0%\) were longer than 16 tokens and truncated"):
        pipe([ASKED[task], long])
    pipe(long)  # said already
    settings = {"truncation": True}
    asked = {"fill-mask": {"tokenizer_kwargs": settings}, "feature-extraction": {"tokenize_kwargs": settings}}
    pipeline_for(task, tmp_path)(long, **asked.get(task, settings))


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (
            "good film",
            {"is_split_into_words": True},
            "inputs is 'good film', and is_split_into_words is True; expected a",
        ),
        (["good", ["film"]], {"is_split_into_words": True}, r"inputs\[0\] is 'good', and is_split_into_words is True"),
        ("good film", {"delimiter": "-"}, "delimiter is '-', which joins words; expected is_split_into_words=True"),
        ("good film", {"delimiter": 3}, "delimiter is 3 of type int; expected text"),
        ("good film", {"is_split_into_words": "yes"}, "is_split_into_words is 'yes'; expected True or False"),
        ("good film", {"stride": "3"}, "stride is '3' of type str; expected a whole number of at least 0"),
        ("good film", {"stride": 14}, "stride is 14; expected 0 to 13: windows have room for 14 tokens"),
        ("good film", {"aggregation_strategy": "most"}, "aggregation_strategy is 'most'; expected one of 'none', "),
        ("good film", {"ignore_labels": "O"}, "ignore_labels is 'O'; expected a list of tags, or of types of entities"),
    ],
)
def test_settings_of_taggers_that_cannot_be(
    tmp_path: Path, inputs: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pipeline_for("token-classification", tmp_path)(inputs, **settings)


@pytest.mark.parametrize("task", [task for task in ASKED if task != "text-classification"])
def test_an_unknown_setting_is_answered_with_the_nearest_one(task: str, tmp_path: Path) -> None:
    """Those that a text classifier does not know are the tokenizer's."""
    pipe, asked, message = pipeline_for(task, tmp_path), ASKED[task], f"a {task} pipeline has no setting 'batchsize'; "
    with pytest.raises(TypeError, match=f"{message}did you mean 'batch_size'"):
        type(pipe)(pipe.model, pipe.tokenizer, batchsize=3)
    with pytest.raises(TypeError, match=f"{message}did you mean 'batch_size'"):
        pipe(**asked, batchsize=3) if isinstance(asked, dict) else pipe(asked, batchsize=3)
