"""Ranges as data, against the distributions that Optuna makes of them, and what is no range."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdistill.search.space import DEFAULT_SPACE, given_in_space, hyperparameter_space, searched_arguments
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments

optuna = pytest.importorskip("optuna")
FLOAT, INT, CHOICE = (
    optuna.distributions.FloatDistribution,
    optuna.distributions.IntDistribution,
    optuna.distributions.CategoricalDistribution,
)
ARGS = DistillationTrainingArguments()
TOML = """
num_train_epochs = {type = "int", low = 2, high = 10, step = 2}
learning_rate = {type = "float", low = 1e-5, high = 1e-3, log = true}
alpha = {type = "float", low = 0, high = 1, step = 0.25}
lr_scheduler_type = {type = "categorical", choices = ["linear", "cosine"]}
per_device_train_batch_size = {type = "int", low = 8, high = 64, log = true}
"""
DISTRIBUTIONS = {
    "num_train_epochs": INT(2, 10, step=2),
    "learning_rate": FLOAT(1e-5, 1e-3, log=True),
    "alpha": FLOAT(0, 1, step=0.25),
    "lr_scheduler_type": CHOICE(["linear", "cosine"]),
    "per_device_train_batch_size": INT(8, 64, log=True),
}


def trial_of(source: Any, args: TrainingArguments = ARGS) -> tuple[dict[str, Any], Any]:
    """Return the hyperparameters that a space gives a trial, and the trial."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(1))
    trial = study.ask()
    return hyperparameter_space(source, args)(trial), study.trials[0]


def test_the_original_space_is_the_default() -> None:
    values, trial = trial_of(None)
    assert trial.distributions == {
        "num_train_epochs": INT(2, 10),
        "learning_rate": FLOAT(1e-5, 1e-3, log=True),
        "alpha": FLOAT(0, 1),
        "temperature": INT(2, 30),
    }
    assert values == trial.params
    assert set(trial_of(None, TrainingArguments())[0]) == {"num_train_epochs", "learning_rate"}


def test_the_default_space_varies_what_is_given_and_has_an_effect() -> None:
    args = DistillationTrainingArguments(max_steps=3, alpha=0.5)  # the default, too, and it was given
    assert set(trial_of(None, args)[0]) == {"learning_rate", "alpha", "temperature"}
    assert given_in_space(None, args) == ["alpha"]
    assert given_in_space(DEFAULT_SPACE, DistillationTrainingArguments(num_train_epochs=1)) == ["num_train_epochs"]
    assert given_in_space(None, ARGS) == []


EPOCHS = {"num_train_epochs": {"type": "int", "low": 2, "high": 10}}
ALPHA, TEMPERATURE = DEFAULT_SPACE["alpha"], DEFAULT_SPACE["temperature"]
STEPS = {"type": "categorical", "choices": [5, 0]}
SCHEDULES = {"type": "categorical", "choices": ["constant", "linear"]}
RATIO = {"type": "float", "low": 0.1, "high": 0.2}


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (EPOCHS, {"max_steps": 3}, "num_train_epochs, which has no effect here: max_steps takes precedence; leave out"),
        (EPOCHS | {"max_steps": {"type": "int", "low": 1, "high": 9}}, {}, "num_train_epochs, which has no effect"),
        (
            {"alpha": {"type": "categorical", "choices": [1.0]}, "temperature": TEMPERATURE},
            {},
            "temperature, which has no effect here: with alpha 1 the teacher",
        ),
        ({"warmup_ratio": RATIO}, {"warmup_steps": 5}, "warmup_ratio, which has no effect here: warmup_steps takes"),
    ],
)
def test_ranges_that_no_trial_uses_are_warned_of(space: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=f"^hp_space varies {message}") as warned:
        hyperparameter_space(space, DistillationTrainingArguments(**given))
    assert (len(warned), warned[0].filename) == (1, __file__)


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (EPOCHS, {}),
        (EPOCHS | {"max_steps": {"type": "categorical", "choices": [9, -1]}}, {}),
        ({"alpha": ALPHA, "temperature": TEMPERATURE}, {"alpha": 1.0}),
        ({"warmup_ratio": RATIO, "warmup_steps": STEPS, "lr_scheduler_type": SCHEDULES}, {}),
    ],
)
def test_ranges_that_some_trials_use_are_taken_in_silence(space: dict[str, Any], given: dict[str, Any]) -> None:
    hyperparameter_space(space, DistillationTrainingArguments(**given))


@pytest.mark.parametrize("kind", ["mapping", "toml", "json"])
def test_ranges_are_optunas_distributions(tmp_path: Path, kind: str) -> None:
    content = tomllib.loads(TOML)
    source: Any = content
    if kind != "mapping":
        source = tmp_path / f"space.{kind}"
        source.write_text(TOML if kind == "toml" else json.dumps(content))
    values, trial = trial_of(source)
    assert trial.distributions == DISTRIBUTIONS
    assert values == trial.params


def test_function_gives_what_it_returns() -> None:
    values, _ = trial_of(lambda trial: {"alpha": np.float64(0.25), "seed": np.int64(3)})
    assert json.loads(json.dumps(values)) == {"alpha": 0.25, "seed": 3}


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('lerning_rate = {type = "float", low = 1e-5, high = 1e-3}')
    known = ", ".join(searched_arguments(ARGS))
    assert {"learning_rate", "alpha", "temperature", "num_train_epochs", "weight_decay", "seed"} <= set(
        known.split(", ")
    )
    message = f"'lerning_rate', which is not a hyperparameter; did you mean 'learning_rate'?; there are {known}"
    for source in (file, {"lerning_rate": {}}, lambda trial: {"lerning_rate": 1.0}):
        with pytest.raises(ValueError) as error:
            trial_of(source)
        assert message in str(error.value)
    for name in ("output_dir", "eval_strategy", "hub_token"):
        with pytest.raises(ValueError, match=f"{name!r}, which is not a hyperparameter"):
            trial_of(lambda trial, name=name: {name: 1})
    for name in ("augment", "label_all_tokens", "max_length", "teacher_cache"):
        with pytest.raises(ValueError, match=f"{name!r}, which is the same in all trials: they share"):
            trial_of(lambda trial, name=name: {name: 1})
    with pytest.raises(ValueError, match="'alpha', which is not a hyperparameter"):
        trial_of({"alpha": DEFAULT_SPACE["alpha"]}, TrainingArguments())


@pytest.mark.parametrize(
    ("range_", "message"),
    [
        (3, "alpha is 3; expected a table whose type is"),
        ({"low": 0, "high": 1}, "expected a table whose type is"),
        ({"type": "uniform", "low": 0, "high": 1}, "expected a table whose type is"),
        ({"type": "float", "low": 0, "hi": 1}, "alpha has 'hi'; a range of type float has type, low, high, step, log"),
        ({"type": "float", "low": 0}, "alpha has high None; expected a number"),
        ({"type": "int", "low": 0.5, "high": 1}, "alpha has low 0.5; expected a whole number"),
        ({"type": "float", "low": True, "high": 1}, "alpha has low True; expected a number"),
        ({"type": "float", "low": 1, "high": 0}, "alpha goes from 1 to 0; expected low <= high"),
        (
            {"type": "float", "low": 0, "high": 1, "log": True},
            "log True and low 0; expected true or false",
        ),
        ({"type": "float", "low": 0, "high": 1, "log": 1}, "log 1 and low 0"),
        ({"type": "float", "low": 0.1, "high": 1, "log": True, "step": 0.1}, "step 0.1; expected a step above 0, and"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "step 0; expected a step above 0"),
        ({"type": "categorical", "choices": []}, r"alpha has choices \(\); expected a list"),
        ({"type": "categorical", "choices": 0.5}, "alpha has choices 0.5; expected a list"),
        ({"type": "categorical", "choices": [0.5, 1.5]}, "alpha is 1.5; expected a finite number"),
        ({"type": "float", "low": 0, "high": 2}, "alpha is 2"),
    ],
)
def test_what_is_no_range(range_: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^hp_space: .*{message}"):
        hyperparameter_space({"alpha": range_}, ARGS)


@pytest.mark.parametrize(
    "later", [{"type": "categorical", "choices": [0.5, 1]}, {"type": "float", "low": 0, "high": 1}]
)
def test_range_of_another_kind_than_the_study_had(later: Any) -> None:
    study = optuna.create_study()
    space = hyperparameter_space({"alpha": {"type": "categorical", "choices": [0, 0.5]}}, ARGS)
    space(study.ask())
    with pytest.raises(ValueError, match=r"hp_space: alpha had another type or other choices .* another study_name"):
        hyperparameter_space({"alpha": later}, ARGS)(study.ask())


def test_what_is_no_space(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("alpha = ")
    for source, message in (
        ({}, "hp_space is {}; expected a function"),
        (7, "hp_space is 7"),
        (tmp_path / "bad.toml", "is not valid TOML"),
        (tmp_path / "space.yaml", "expected a .toml or a .json file"),
        (lambda trial: [1], "hp_space returned"),
    ):
        with pytest.raises(ValueError, match=message):
            trial_of(source)
    for name in ("none.toml", "none.json"):
        with pytest.raises(FileNotFoundError, match=f"hp_space is '.*{name}'; there is no such file"):
            trial_of(tmp_path / name)


def test_the_arguments_are_as_before() -> None:
    before = ARGS.to_dict()
    trial_of({"learning_rate": {"type": "float", "low": 0.5, "high": 0.75}})
    assert ARGS.to_dict() == before
