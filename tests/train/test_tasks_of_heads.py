"""Models whose heads have no task, or another one than is asked for: one sentence each, before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_questions import question_tokenizer
from support.small_run import small_config

import kdistill as kd

UNREAD = "there is no such file.tsv"
ENDINGS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "masked-lm",
}
PIPELINES = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
}
EVERY = (*PIPELINES.values(), "Model")


def model_of(ending: str, **changes: object) -> Any:
    return getattr(kd, f"Bert{ending}")(small_config(**changes), seed=1)


@pytest.mark.parametrize("given", ["model", "model_init"])
def test_a_trainer_refuses_a_model_without_a_task(tmp_path: Path, given: str) -> None:
    model: Any = model_of("Model")
    value: Any = model if given == "model" else lambda: model
    expected = "^model is a BertModel, whose head has no task to train for; expected one of BertForSequenceClass"
    with pytest.raises(ValueError, match=expected):
        kd.Trainer(**{given: value}, args=kd.TrainingArguments(str(tmp_path)), train_dataset=UNREAD)


@pytest.mark.parametrize("student", ENDINGS)
@pytest.mark.parametrize("teacher", EVERY)
def test_a_teacher_of_another_task_is_refused(tmp_path: Path, teacher: str, student: str) -> None:
    make: Callable[[], Any] = lambda: kd.DistillationTrainer(  # noqa: E731
        model_of(student),
        kd.DistillationTrainingArguments(str(tmp_path)),
        teacher_model=model_of(teacher),
        train_dataset=None if teacher == student else UNREAD,
        processing_class=question_tokenizer(tmp_path),
    )
    if teacher == student:
        make()
        return
    expected = f"^teacher_model is a Bert{teacher}, and model is one for {ENDINGS[student]}; .* a Bert{student} as"
    with pytest.raises(ValueError, match=expected):
        make()


@pytest.mark.parametrize("task", PIPELINES)
@pytest.mark.parametrize("ending", EVERY)
def test_a_pipeline_refuses_a_model_of_another_kind(tmp_path: Path, ending: str, task: str) -> None:
    model, tokenizer = model_of(ending), question_tokenizer(tmp_path)
    if ending == PIPELINES[task]:
        kd.pipeline(task, model, tokenizer)
        return
    expected = rf"^model is a Bert{ending}; expected one for {ENDINGS[PIPELINES[task]]}: AutoModel{PIPELINES[task]}\."
    with pytest.raises(ValueError, match=expected):
        kd.pipeline(task, model, tokenizer)
