"""`pipeline("question-answering")`: the forms of its input and result, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.small_questions import question_model, question_tokenizer
from support.small_run import small_config, write_model

import kdistill as kd
from kdistill.models.configuration import SIZES

CONTEXT = "bad good film plot great actor awful scene"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    question_model().save_pretrained(tmp_path)
    question_tokenizer(tmp_path).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def answer(directory: Path) -> kd.QuestionAnsweringPipeline:
    return kd.pipeline("question-answering", directory)


def test_one_question_has_one_answer_in_its_context(answer: kd.QuestionAnsweringPipeline) -> None:
    found = answer(question="good", context=CONTEXT)
    assert found.keys() == {"score", "start", "end", "answer"}
    assert CONTEXT[found["start"] : found["end"]] == found["answer"]
    assert answer("good", CONTEXT) == answer({"question": "good", "context": CONTEXT}) == found


def test_many_questions_have_a_list_of_results(answer: kd.QuestionAnsweringPipeline) -> None:
    rows = [{"question": word, "context": CONTEXT} for word in ("good", "plot", "actor")]
    expected = [answer(**row) for row in rows]
    assert answer(rows) == expected
    assert answer(question=["good", "plot", "actor"], context=CONTEXT) == expected
    assert answer(question=["good", "plot", "actor"], context=[CONTEXT] * 3, batch_size=1) == expected


def test_settings_hold_for_the_pipeline_or_a_call(directory: Path, answer: kd.QuestionAnsweringPipeline) -> None:
    best = answer("good", CONTEXT, top_k=3)
    assert len(best) == 3
    assert [one["score"] for one in best] == sorted((one["score"] for one in best), reverse=True)
    other = kd.pipeline("question-answering", str(directory), top_k=3, max_answer_len=1, max_question_len=9)
    assert all(" " not in one["answer"] for one in other("good", CONTEXT))
    texts = [one["answer"] for one in answer("good", CONTEXT, top_k=60, handle_impossible_answer=True)]
    assert "" in texts


def test_windows_are_no_longer_than_a_model_reads_whose_positions_begin_behind_padding(
    answer: kd.QuestionAnsweringPipeline,
) -> None:
    sizes = {name: getattr(small_config(), name) for name in SIZES}
    other = kd.QuestionAnsweringPipeline(
        kd.RobertaForQuestionAnswering(kd.RobertaConfig(**sizes), seed=1), answer.tokenizer
    )
    assert other.model.config.max_tokens == small_config().max_position_embeddings - 2
    found = other(question="good", context=" ".join([CONTEXT] * 3))
    assert found["answer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": "good"}, "context is None; expected texts for both"),
        ({"question": "", "context": CONTEXT}, "question 0 is empty"),
        ({"question": [3], "context": CONTEXT}, "question 0 is 3 of type int; expected text"),
        ({"question": ["good", "bad"], "context": [CONTEXT]}, "there are 2 questions and 1 contexts"),
        ({"question": "good", "context": CONTEXT, "topk": 2}, "no setting 'topk'; did you mean 'top_k'"),
        ({"question": "good", "context": CONTEXT, "top_k": 0}, "top_k is 0; expected at least 1"),
        ({"question": "good " * 20, "context": CONTEXT}, "question 0: the question has 20 tokens, and max_length 16"),
        ({"question": "good", "context": CONTEXT, "doc_stride": 13}, "doc_stride is 13"),
    ],
)
def test_what_is_wrong_is_named(answer: kd.QuestionAnsweringPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        answer(**arguments)


def test_other_inputs_and_models_are_refused(answer: kd.QuestionAnsweringPipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"inputs\[0\] is \{'text': 'x'\}; expected"):
        answer([{"text": "x"}])
    with pytest.raises(TypeError, match=r"expected question=\.\.\., context=\.\.\., or"):
        answer("good")
    with pytest.raises(TypeError, match="given by place and by name"):
        answer({"question": "good", "context": CONTEXT}, question="good")
    classifier = kd.BertForSequenceClassification.from_pretrained(write_model(tmp_path / "classifier"))
    with pytest.raises(
        ValueError, match="model is a BertForSequenceClassification; expected one for question-answering"
    ):
        kd.QuestionAnsweringPipeline(classifier, answer.tokenizer)
