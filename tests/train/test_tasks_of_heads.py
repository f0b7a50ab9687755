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
TASKS = {ending: task for task, ending in PIPELINES.items()} | dict.fromkeys(("Model", ""), "feature-extraction")


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


def write_as(directory: Path, ending: str) -> Path:
    """The directory of a model with this head, "" for an encoder that embeds texts, and its tokenizer."""
    model = model_of(ending or "Model")
    (model if ending else model.with_pooling("mean")).save_pretrained(directory)
    question_tokenizer(directory)
    return directory


@pytest.mark.parametrize("task", [*PIPELINES, "feature-extraction"])
@pytest.mark.parametrize("ending", TASKS)
def test_a_pipeline_refuses_the_directory_of_a_model_of_another_kind(tmp_path: Path, ending: str, task: str) -> None:
    directory = write_as(tmp_path, ending)
    if task == TASKS[ending]:
        kd.pipeline(task, directory)
        return
    if task == "feature-extraction":  # any model has vectors of tokens
        with pytest.warns(UserWarning, match="tensors that this model does not use|initialised at random"):
            kd.pipeline(task, directory)
        return
    expected = rf"^task is '{task}', and {directory} is a model for '{TASKS[ending]}'; leave task out, or give a model"
    if ending == "Model":
        expected = rf"^{directory} lacks .*, so it has no trained head for the task; fine-tune it first"
    with pytest.raises(ValueError, match=expected):
        kd.pipeline(task, directory)
    with pytest.raises(ValueError, match="so it has no trained head" if ending == "Model" else "is a model for"):
        kd.pipeline({"token-classification": "ner"}.get(task, task), str(directory))


@pytest.mark.parametrize("ending", TASKS)
def test_a_pipeline_without_a_task_takes_that_of_the_model(tmp_path: Path, ending: str) -> None:
    directory, task = write_as(tmp_path, ending), TASKS[ending]
    if ending == "Model":  # an encoder may begin any task, and has learned none
        with pytest.raises(ValueError, match="so it has no trained head for the task; fine-tune it first"):
            kd.pipeline(model=directory)
    else:
        assert type(kd.pipeline(model=directory)) is type(kd.pipeline(task, directory))
    model = model_of(ending or "Model")
    assert type(kd.pipeline(model=model, tokenizer=directory)) is type(kd.pipeline(task, model, directory))


def test_a_config_stands_in_for_that_of_the_directory(tmp_path: Path) -> None:
    directory = write_as(tmp_path, "ForTokenClassification")
    config = kd.AutoConfig.from_pretrained(directory)
    (directory / "config.json").unlink()
    tokenizer = kd.PreTrainedTokenizerFast.from_pretrained(directory)
    assert isinstance(kd.pipeline(None, directory, tokenizer, config=config), kd.TokenClassificationPipeline)
