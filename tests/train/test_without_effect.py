"""Arguments that have no effect beside others."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import pytest
from support.small_questions import question_model
from support.small_run import small_config, small_model

import kdistill as kd
from kdistill.cli import command_line as cli
from kdistill.cli.inputs import read_arguments
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.without_effect import OF_HEADS

# What is given -> a part of the warning.
IDLE = [
    ({"num_train_epochs": 2, "max_steps": 9}, "num_train_epochs has no effect here: max_steps"),
    ({"warmup_steps": 9, "warmup_ratio": 0.1}, "warmup_ratio has no effect here: warmup_steps"),
    ({"warmup_steps": 9, "lr_scheduler_type": "constant"}, "warmup_steps has no effect here: this lr_scheduler_type"),
    ({"warmup_ratio": 0.1, "lr_scheduler_type": "greedy"}, "warmup_ratio has no effect here: this lr_scheduler_type"),
    ({"eval_delay": 2, "eval_strategy": "no"}, "eval_delay has no effect here: with eval_strategy 'no'"),
    (
        {"metric_for_best_model": "f1", "greater_is_better": False, "eval_strategy": "no"},
        "metric_for_best_model, greater_is_better have no effect here: with eval_strategy 'no'",
    ),
    ({"save_total_limit": 2, "save_strategy": "no"}, "save_total_limit has no effect here: save_strategy 'no'"),
    ({"logging_dir": "logs", "report_to": "none"}, "logging_dir has no effect here: report_to 'none'"),
    ({"hub_strategy": "checkpoint"}, "hub_strategy has no effect here: nothing is uploaded without push_to_hub"),
    ({"temperature": 2, "alpha": 1}, "temperature has no effect here: with alpha 1"),
    ({"label_smoothing_factor": 0.1, "alpha": 0}, "label_smoothing_factor has no effect here: with alpha 0"),
    ({"alpha_end": 0.1}, "alpha_end has no effect here: alpha_schedule is constant"),
    ({"temperature_end": 1.0}, "temperature_end has no effect here: temperature_schedule is constant"),
    ({"match_learning_rate": 0.1}, "match_learning_rate has no effect here: there are no matches"),
]
USED: list[dict[str, Any]] = [
    {},
    {"max_steps": 9},
    {"warmup_ratio": 0.1},
    {"warmup_steps": 9, "lr_scheduler_type": "constant_with_warmup"},
    {"eval_delay": 2, "eval_strategy": "steps"},
    {"hub_strategy": "checkpoint", "push_to_hub": True, "hub_model_id": "me/mine"},
    {"hub_model_id": "me/mine"},
    {"temperature": 2, "alpha": 1, "augment": 2},
    {"temperature": 2, "alpha": 1, "alpha_schedule": "linear", "alpha_end": 0.5},
    {"label_smoothing_factor": 0.1, "alpha": 0, "alpha_schedule": "cosine", "alpha_end": 0.5},
    {"matches": "minilm", "match_learning_rate": 0.1},
    {"label_smoothing_factor": 0.1},
]


@pytest.mark.parametrize(("given", "warning"), IDLE, ids=lambda value: value if isinstance(value, str) else "")
def test_an_argument_without_effect_is_said_once(given: dict[str, Any], warning: str) -> None:
    with pytest.warns(UserWarning, match="no effect here") as caught:
        DistillationTrainingArguments(**given)
    assert [str(each.message)[: len(warning)] for each in caught] == [warning]
    assert caught[0].filename == __file__


def test_an_argument_that_two_others_make_idle_is_said_for_the_first_alone() -> None:
    with pytest.warns(UserWarning, match="no effect here") as caught:
        DistillationTrainingArguments(warmup_ratio=0.1, warmup_steps=9, lr_scheduler_type="constant")
    assert [str(each.message).partition(" has")[0] for each in caught] == ["warmup_ratio", "warmup_steps"]


@pytest.mark.parametrize("given", USED, ids=str)
def test_an_argument_with_an_effect_is_taken_in_silence(given: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        args = DistillationTrainingArguments(**given)
        assert DistillationTrainingArguments(**args.to_dict()) == args


def test_the_command_line_also_says_that_nothing_is_uploaded() -> None:
    options = cli.parse(["finetune", "--model", "m", "--train", "t", "--hub-model-id", "me/mine"])
    with pytest.warns(
        UserWarning, match="^hub_model_id has no effect here: nothing is uploaded without --push-to-hub$"
    ):
        read_arguments(TrainingArguments, options)


MODELS: dict[str, Any] = {
    "sequence-classification": small_model,
    "token-classification": lambda: kd.BertForTokenClassification(small_config(), seed=1),
    "question-answering": question_model,
}
OF_SOME_HEADS: dict[str, tuple[Any, set[str]]] = {
    "doc_stride": (4, {"token-classification", "question-answering"}),
    "label_all_tokens": (True, {"token-classification"}),
    "max_answer_length": (5, {"question-answering"}),
    "mlm_probability": (0.3, {"masked-lm"}),
    "n_best": (3, {"question-answering"}),
}


@pytest.mark.parametrize("head", MODELS)
@pytest.mark.parametrize("name", OF_SOME_HEADS)
def test_a_trainer_says_which_arguments_its_model_does_not_use(head: str, name: str) -> None:
    value, users = OF_SOME_HEADS[name]
    args, model = TrainingArguments(**{name: value}), MODELS[head]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kd.Trainer(model, args)
    said = [str(each.message) for each in caught]
    expected = f"{name} has no effect here: the model is one for {head}, and only models for "
    assert [text[: len(expected)] for text in said] == ([] if head in users else [expected])
    assert all(each.filename == __file__ for each in caught)


def test_the_default_of_an_argument_that_a_model_does_not_use_is_taken_in_silence() -> None:
    args = TrainingArguments(**TrainingArguments(disable_tqdm=True).to_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kd.Trainer(small_model(), args)


def test_the_arguments_of_some_heads_are_arguments() -> None:
    assert OF_HEADS.keys() <= {field.name for field in fields(DistillationTrainingArguments)}
