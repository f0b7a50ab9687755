"""A search with several objectives, `catch`, `load_if_exists` and the other arguments of a search in transformers."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest
from support.small_search import distillation_trainer, eval_loss, search, student

from kdistill.report import figures
from kdistill.search.study import BestRun, outcomes

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


class Direction(str, enum.Enum):  # noqa: UP042  # as the enums of transformers
    MAXIMIZE = "maximize"


def both(metrics: dict[str, float]) -> list[float]:
    return [metrics["eval_accuracy"], metrics["eval_loss"]]


def test_a_search_in_two_directions_returns_the_trials_that_no_other_beats(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path)
    found = search(trainer, direction=["maximize", "minimize"], compute_objective=both, pruner=None, n_trials=4)
    assert isinstance(found, list)
    trials = [trial.values for trial in trainer.study.trials]
    assert len(trials) == 4
    front = [
        list(values)
        for values in trials
        if not any(a >= values[0] and b <= values[1] and [a, b] != list(values) for a, b in trials)
    ]
    assert [run.objective for run in found] == front
    assert [run.run_id for run in found] == [str(trial.number) for trial in trainer.study.best_trials]
    assert set(found[0].hyperparameters) == {"num_train_epochs", "learning_rate", "alpha"}
    assert not any(trial.intermediate_values for trial in trainer.study.trials)
    assert found[0]._repr_html_()
    with pytest.raises(ValueError, match="the study has several directions; plot it with optuna"):
        figures.search_history(trainer.study)


def test_one_direction_in_a_list_or_as_an_enum(tmp_path: Path) -> None:
    for name, direction in (("list", ["maximize"]), ("enum", Direction.MAXIMIZE)):
        found = search(distillation_trainer(tmp_path / name), direction=direction, n_trials=1)
        assert isinstance(found, BestRun)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pruner": "median", "compute_objective": both}, "pruner is 'median' and direction .*expected 'none'"),
        (
            {"compute_objective": eval_loss},
            r"compute_objective returned .* and direction names 2; expected a number for",
        ),
        ({}, r"direction is \['maximize', 'minimize'\] and compute_objective is None"),
    ],
)
def test_what_two_directions_need(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(distillation_trainer(tmp_path), direction=["maximize", "minimize"], **given)


def test_a_study_of_other_directions_is_another_study(tmp_path: Path) -> None:
    search(distillation_trainer(tmp_path), direction="minimize", compute_objective=eval_loss, n_trials=1)
    with pytest.raises(ValueError, match="is to minimize and direction is 'maximize' and 'minimize'; choose another"):
        search(distillation_trainer(tmp_path), direction=["maximize", "minimize"], compute_objective=eval_and_loss)


def eval_and_loss(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["eval_loss"], metrics["eval_loss"]


def test_errors_to_catch_fail_their_trial_alone(tmp_path: Path) -> None:
    made = []

    def sometimes(trial: Any) -> Any:
        made.append(trial)
        if trial is not None and trial.number == 1:
            raise RuntimeError("no luck")
        return student()

    trainer = distillation_trainer(tmp_path, model_init=sometimes)
    search(trainer, catch=RuntimeError, n_trials=3)
    assert outcomes(trainer.study.trials) == {"complete": 2, "fail": 1}
    assert trainer.study.trials[1].user_attrs["error"] == "RuntimeError: no luck"
    other = distillation_trainer(tmp_path / "other", model_init=sometimes)
    with pytest.raises(RuntimeError, match="no luck"):
        search(other, n_trials=3)
    with pytest.raises(TypeError, match="catch is 'all'; expected a class of exceptions"):
        search(other, catch="all")


def test_a_study_is_continued_unless_load_if_exists_is_false(tmp_path: Path) -> None:
    search(distillation_trainer(tmp_path), n_trials=1, load_if_exists=False)
    search(distillation_trainer(tmp_path), n_trials=2)
    with pytest.raises(ValueError, match="load_if_exists is False and there is a study 'search' already"):
        search(distillation_trainer(tmp_path), n_trials=3, load_if_exists=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("directions", "does not take directions: pass the list as direction"),
        ("show_progress_bar", "does not take show_progress_bar: progress is shown"),
        ("n_trails", "has no argument 'n_trails'; did you mean 'n_trials'"),
    ],
)
def test_other_arguments_of_optuna_are_answered(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        search(distillation_trainer(tmp_path), **{name: 1})


def test_memory_is_freed_after_a_trial_anyway(tmp_path: Path) -> None:
    assert search(distillation_trainer(tmp_path), n_trials=1, gc_after_trial=True).objective > 0


@pytest.mark.parametrize(
    ("attribute", "value"), [("about", "x"), ("args", []), ("workers", "three"), ("worker", "x"), ("attempt", "1")]
)
def test_an_edited_attribute_of_a_study_is_named(tmp_path: Path, attribute: str, value: Any) -> None:
    trainer = distillation_trainer(tmp_path)
    search(trainer, n_trials=1)
    study = trainer.study
    if attribute in ("worker", "attempt"):
        trial = study.ask()
        trial.set_user_attr(attribute, value)
    else:
        study.set_user_attr(attribute, value)
    with pytest.raises(ValueError, match=rf"study\.journal has {attribute} .*; expected a .*the study was edited"):
        search(distillation_trainer(tmp_path), n_trials=2)
