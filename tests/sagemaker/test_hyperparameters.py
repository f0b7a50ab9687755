"""Hyperparameters in every form in which the SDK, the toolkit and people send them."""

from __future__ import annotations

from typing import Any

import pytest

from kdistill.cli.command_line import parse
from kdistill.cli.inputs import read_arguments
from kdistill.sagemaker.hyperparameters import merged, read_words, understood
from kdistill.train.arguments import DistillationTrainingArguments

INPUTS = {"teacher": "t", "student": "s", "train": "rows.tsv"}


def arguments(given: dict[str, Any]) -> DistillationTrainingArguments:
    return read_arguments(DistillationTrainingArguments, parse(understood(given).words("distill", INPUTS)))


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"alpha": "0.25"}, "alpha", 0.25),
        ({"alpha": '"0.25"'}, "alpha", 0.25),  # text in JSON, as version 2 sends what was text already
        ({"alpha": 0.25}, "alpha", 0.25),  # SM_HPS has it decoded
        ({"epochs": "7"}, "num_train_epochs", 7.0),
        ({"num-train-epochs": "7"}, "num_train_epochs", 7.0),
        ({"epochs": "7", "num_train_epochs": '"7"'}, "num_train_epochs", 7.0),
        ({"evaluation_strategy": '"steps"'}, "eval_strategy", "steps"),
        ({"run_name": "1e5"}, "run_name", "1e5"),
        ({"run_name": '"007"'}, "run_name", "007"),
        ({"run_name": "true"}, "run_name", "true"),
        ({"run_name": "two words"}, "run_name", "two words"),
        ({"lr_scheduler_kwargs": '{"power": 2}'}, "lr_scheduler_kwargs", {"power": 2}),
        ({"lr_scheduler_kwargs": {"power": 2}}, "lr_scheduler_kwargs", {"power": 2}),
        ({"class_weights": "[0.5, 2.0]"}, "class_weights", [0.5, 2.0]),
        ({"report_to": '["files", "tensorboard"]'}, "report_to", "files,tensorboard"),
        ({"max_length": "null"}, "max_length", None),
        ({"max_length": None}, "max_length", None),
        ({"max_length": "None"}, "max_length", None),
        ({"sagemaker_program": '"train.py"', "_tuning_objective_metric": "final:accuracy"}, "alpha", 0.5),
    ],
)
def test_a_value_is_understood_as_it_was_meant(given: dict[str, Any], name: str, value: Any) -> None:
    extra = {"lr_scheduler_type": "polynomial"} if "lr_scheduler_kwargs" in given else {}
    assert getattr(arguments({**given, **extra}), name) == value


@pytest.mark.parametrize("text", ["true", '"true"', "True", "1", "yes", True])
def test_true_has_many_forms(text: Any) -> None:
    assert understood({"run_hpo": text}).run_hpo is True
    assert arguments({"eval_on_start": text}).eval_on_start is True


@pytest.mark.parametrize("text", ["false", '"False"', "False", "0", "no", False])
def test_false_has_many_forms(text: Any) -> None:
    """The original's type=bool takes every one of them for true."""
    assert understood({"run_hpo": text}).run_hpo is False
    assert arguments({"eval_on_start": text}).eval_on_start is False


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"temparature": "4"}, "temparature is not a hyperparameter: the original's notebook misspelt temperature"),
        ({"alhpa": "0.5"}, "there is no hyperparameter 'alhpa'; did you mean 'alpha'?"),
        ({"teacher_ids": "x"}, "did you mean 'teacher_id'?"),
        (
            {"epochs": "3", "num_train_epochs": "4"},
            "epochs and num_train_epochs are the same and have different values",
        ),
        ({"run_hpo": "maybe"}, "run_hpo is 'maybe'; expected true or false"),
        ({"alpha": "half"}, "alpha is 'half'; expected a number"),
        ({"epochs": "three"}, "epochs is 'three'; expected a number"),
        ({"alpha": True}, "alpha is true; expected a number"),
        ({"alpha": "[0.5]"}, "alpha is [0.5]; expected a number"),
        ({"n_trials": "2.5", "run_hpo": "true"}, "n_trials is '2.5'; expected a whole number"),
        ({"save_strategy": "often"}, "save_strategy is 'often'; expected one of no, steps, epoch, best"),
        ({"n_trials": "5"}, "n_trials is given, which is of a search; expected run_hpo true"),
        ({"dataset_config": "sst2"}, "dataset_config is given without dataset_id"),
        ({"push_to_hub": "true"}, "push_to_hub is true; expected hub_model_id"),
        ({"train": "rows.tsv"}, "train is set by the job: the rows come by the channel train, or by dataset_id"),
        ({"resume": "true"}, "resume is set by the job"),
    ],
)
def test_an_error_is_one_clear_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        understood(given)
    assert sentence in str(error.value)


def test_fp16_of_the_original_is_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="fp16 is ignored: products are float32"):
        arguments({"fp16": "true"})
    arguments({"fp16": "False"})  # asks for what is done anyway


def test_a_search_gets_its_options_and_the_run_after_it_does_not() -> None:
    hyperparameters = understood({"run_hpo": "true", "n_trials": "4", "sampler": "random", "push_to_hub": "false"})
    searching = parse(hyperparameters.words("search", {**INPUTS, "eval": "dev.tsv"}))
    assert (searching.n_trials, searching.sampler) == (4, "random")
    assert not hasattr(parse(hyperparameters.words("distill", INPUTS)), "n_trials")


def test_words_of_the_toolkit_say_the_same_as_the_hyperparameters() -> None:
    """Words are what `sagemaker_training.mapping.to_cmd_args` makes of the decoded values."""
    given = {"alpha": 0.5, "run_hpo": True, "teacher_id": "t", "class_weights": [1, 2], "max_length": None}
    given |= {"lr_scheduler_kwargs": {"power": 2}, "learning_rate": 5e-05}
    words = "--alpha|0.5|--class_weights|[1, 2]|--learning_rate|5e-05|--lr_scheduler_kwargs|power=2|--max_length||"
    words += "--run_hpo|True|--teacher_id|t"
    assert merged(given, read_words(words.split("|"))) == given
    assert read_words(["--alpha=0.5", "--run_hpo", "--temperature", "-1"]) == {
        "alpha": "0.5",
        "run_hpo": True,
        "temperature": "-1",
    }


def test_words_that_contradict_the_hyperparameters_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"alpha is '0\.5' on the command line and '0\.7' in the hyper"):
        merged({"alpha": "0.7"}, {"alpha": "0.5"})
    with pytest.raises(ValueError, match="hub_token is a token on the command line and another") as error:
        merged({"hub_token": "hf_one"}, {"hub_token": "hf_other"})
    assert "hf_o" not in str(error.value)
    with pytest.raises(ValueError, match="the job is given the word 'alpha'"):
        read_words(["alpha", "0.5"])


def test_the_token_is_among_no_words() -> None:
    hyperparameters = understood({"hub_token": '"hf_secret"', "push_to_hub": "true", "hub_model_id": "me/tiny"})
    assert hyperparameters.hub_token == "hf_secret"
    assert "hf_secret" not in str(hyperparameters.words("distill", INPUTS)) + str(hyperparameters.to_dict())
