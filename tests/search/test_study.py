"""A study: what chooses its trials, what ends it, how it goes on, and what it refuses."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model
from support.small_search import distillation_trainer, eval_loss, reports, search, states

import kdistill as kd
from kdistill.models.classes import BertForSequenceClassification
from kdistill.search import study
from kdistill.train.arguments import TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.trainers import Trainer

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_samplers_and_pruners_by_name(tmp_path: Path) -> None:
    found = []
    for sampler, pruner in (("tpe", "median"), ("random", "hyperband"), ("random", "none"), (None, None)):
        trainer = distillation_trainer(tmp_path / str(sampler) / str(pruner))
        search(trainer, n_trials=1, sampler=sampler, pruner=pruner)
        found.append((type(trainer.study.sampler), type(trainer.study.pruner)))
    samplers, pruners = optuna.samplers, optuna.pruners
    assert found[:2] == [(samplers.TPESampler, pruners.MedianPruner), (samplers.RandomSampler, pruners.HyperbandPruner)]
    assert found[2] == (samplers.RandomSampler, pruners.NopPruner)
    assert found[3] == (samplers.TPESampler, pruners.MedianPruner)


def test_draws_follow_from_the_seed(tmp_path: Path) -> None:
    """A study that another process goes on with draws what Optuna's sampler of that seed does in one go."""
    trainer = distillation_trainer(tmp_path / "ours")
    search(trainer, n_trials=2, seed=5)
    search(trainer, n_trials=4, seed=5)
    ours = [trial.params["alpha"] for trial in trainer.study.trials]

    def alphas(seed: int) -> list[float]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        for _ in range(4):
            trial = study.ask()
            trial.suggest_int("num_train_epochs", 2, 3)
            trial.suggest_float("learning_rate", 1e-3, 3e-2, log=True)
            trial.suggest_float("alpha", 0.0, 1.0)
        return [trial.params["alpha"] for trial in study.trials]

    assert ours == alphas(5)


def test_a_database_that_another_process_is_making_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exc, tries = pytest.importorskip("sqlalchemy.exc"), []
    monkeypatch.setattr(study, "_BETWEEN_TRIES", 0)

    def busy_at_first(url: str) -> str:
        tries.append(url)
        if len(tries) < 3:  # what SQLite says to the second of two that begin together
            raise exc.IntegrityError("INSERT", None, Exception("UNIQUE constraint failed: alembic_version.version_num"))
        return "a storage"

    monkeypatch.setattr(optuna.storages, "get_storage", busy_at_first)
    assert study._open_url(optuna, "sqlite:///study.db") == "a storage"
    assert len(tries) == 3


def test_no_draw_is_repeated(tmp_path: Path) -> None:
    """Neither one of `model_init`, nor one before an error of `hp_space`, nor those of an earlier version's study."""

    def new(trial: Any) -> BertForSequenceClassification:
        drawn.append(0.0 if trial is None else trial.suggest_float("of the model", 0.0, 1.0))
        return small_model(2)

    def space(trial: Any) -> dict[str, Any]:
        drawn.append(trial.suggest_float("alpha", 0.0, 1.0))
        if trial.number == 1:
            raise KeyError("the space")
        return {"alpha": drawn[-1]}

    drawn: list[float] = []
    trainer = distillation_trainer(tmp_path, num_train_epochs=1, model_init=new)
    with pytest.raises(KeyError, match="the space"):
        search(trainer, n_trials=3, hp_space=space)
    search(trainer, n_trials=3, hp_space=space)
    study = trainer.study
    study._storage.set_study_system_attr(study._study_id, "kdistill:draws", None)  # as an earlier version left it
    search(trainer, n_trials=5, hp_space=space)
    of_trials = [value for value in drawn if value]
    assert len(set(of_trials)) == len(of_trials) == 9


def test_direction_is_that_of_the_metric(tmp_path: Path) -> None:
    for metric, direction in (("accuracy", "MAXIMIZE"), ("loss", "MINIMIZE")):
        trainer = distillation_trainer(tmp_path / metric, metric_for_best_model=metric)
        search(trainer, n_trials=1)
        assert trainer.study.direction.name == direction


def test_regression_is_searched_by_its_loss(tmp_path: Path) -> None:
    def rows(n: int, seed: int) -> kd.Dataset:
        encoded = small_dataset(n, seed)
        return kd.Dataset(encoded.ids, encoded.types, encoded.starts, encoded.labels.astype(np.float32))

    args = TrainingArguments(**run_fields(tmp_path, {}))
    new = lambda: small_model(1, id2label={0: "score"})  # noqa: E731
    trainer = Trainer(args=args, model_init=new, train_dataset=rows(40, 0), eval_dataset=rows(24, 1))
    best = search(trainer, hp_space=None, n_trials=2)
    assert set(best.hyperparameters) == {"num_train_epochs", "learning_rate"}  # alpha and temperature are no arguments
    assert trainer.study.direction.name == "MINIMIZE"


def test_no_trial_begins_after_the_timeout(tmp_path: Path) -> None:
    def slow(trial: Any) -> BertForSequenceClassification:
        time.sleep(0.0 if trial is None else 1.6)
        return small_model(2)

    trainer = distillation_trainer(tmp_path, model_init=slow)
    search(trainer, n_trials=9, timeout=1.5)
    assert states(trainer) == ["COMPLETE"]
    none = distillation_trainer(tmp_path / "none")
    with pytest.raises(RuntimeError, match="none of 0 trials of the study 'search' finished; none was begun before"):
        search(none, timeout=1e-9)
    assert none.args.search_trials is None


def test_error_of_the_program_ends_the_search(tmp_path: Path) -> None:
    def objective(metrics: dict[str, float]) -> float:
        return metrics["eval_accuracy" if len(asked) < 3 else "eval_f1"]

    asked: list[int] = []

    class Counting(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs) -> None:
            asked.append(1)

    trainer = distillation_trainer(tmp_path, callbacks=[Counting()])
    with pytest.raises(KeyError, match="eval_f1"):
        search(trainer, hp_space=lambda trial: {"num_train_epochs": 2}, compute_objective=objective)
    assert states(trainer) == ["COMPLETE", "FAIL"]
    assert trainer.study.trials[1].user_attrs["error"] == "KeyError: 'eval_f1'"


def test_ctrl_c_keeps_what_is_done_and_the_rest_comes_later(tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if args.run_name == "run-2" and state.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)  # until the main thread has seen it, on a busy machine too

    trainer = distillation_trainer(tmp_path, callbacks=[Interrupt()])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            search(trainer, n_trials=4)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert states(trainer) == ["COMPLETE", "COMPLETE", "WAITING"]
    assert trainer.args.search_trials == 2
    expected = distillation_trainer(tmp_path / "expected")
    search(expected, n_trials=3)
    going_on = distillation_trainer(tmp_path)
    search(going_on, n_trials=3)
    assert states(going_on) == ["COMPLETE", "COMPLETE", "COMPLETE"]
    assert reports(going_on.study) == reports(expected.study)


def test_complete_study_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = search(distillation_trainer(tmp_path))
    trainer = distillation_trainer(tmp_path)
    monkeypatch.setattr(trainer.objective, "prepare", lambda *_: pytest.fail("the teacher is asked"))
    assert search(trainer) == best


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"train_dataset": small_dataset(41)}, {}, "is about other training rows, or another teacher;"),
        ({"teacher_model": small_model(8)}, {}, "is about other training rows, or another teacher;"),
        ({"eval_dataset": small_dataset(25)}, {}, "is about other evaluation rows;"),
        ({"model_init": lambda: small_model(2, num_hidden_layers=1)}, {}, "is about other models;"),
        ({}, {"direction": "minimize"}, "is to maximize and direction is 'minimize'"),
        ({"metric_for_best_model": "loss"}, {}, "is about other objectives;"),
        ({}, {"compute_objective": eval_loss, "direction": "maximize"}, "is about other objectives;"),
    ],
)
def test_another_study_under_the_same_name(tmp_path: Path, changes: Any, given: Any, message: str) -> None:
    search(distillation_trainer(tmp_path), n_trials=1)
    with pytest.raises(ValueError, match=f"the study 'search' {message}.* choose another study_name"):
        search(distillation_trainer(tmp_path, **changes), **given)
    search(distillation_trainer(tmp_path, **changes), n_trials=1, study_name="second", **given)


def test_other_arguments_in_the_same_study(tmp_path: Path) -> None:
    search(distillation_trainer(tmp_path), n_trials=1)
    with pytest.warns(UserWarning, match=r"'search' continues with changed arguments: weight_decay was"):
        search(distillation_trainer(tmp_path, weight_decay=0.1), n_trials=2)


def test_directions_of_optuna_are_taken_by_their_names(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path)
    for direction in (optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE):
        search(trainer, n_trials=1, direction=direction, study_name=direction.name)
        assert trainer.study.direction == direction


def test_what_a_search_cannot_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = distillation_trainer(tmp_path)
    for given, message in (
        ({"backend": "wandb"}, "backend is 'wandb'; expected 'optuna' or 'ray'"),
        ({"ray_address": "here:1"}, "ray_address is 'here:1' and backend is 'optuna', which uses no cluster"),
        ({"n_trials": 0}, "n_trials is 0; expected a whole number above 0"),
        ({"n_trials": None}, "n_trials is None; expected a whole number above 0"),
        ({"pruner": 3}, "pruner is 3; expected one of 'median'"),
        ({"compute_objective": lambda metrics: "good"}, "could not convert string to float"),
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"timeout": "5"}, "timeout is '5'; expected seconds above 0, or None"),
        ({"timeout": 0}, "timeout is 0; expected seconds above 0, or None"),
        ({"direction": "up"}, "direction is 'up'; expected one of 'minimize', 'maximize'"),
        ({"direction": ["maximise"]}, "direction is 'maximise'; expected one of 'minimize', .*did you mean 'maximize'"),
        ({"direction": []}, r"direction is \[\]; expected 'minimize', 'maximize', or a list of them"),
        ({"direction": ["minimize", "maximize"]}, "and compute_objective is None; expected a function that returns"),
        ({"pruner": "hyper"}, "pruner is 'hyper'; expected one of .*; did you mean 'hyperband'?"),
        ({"sampler": "tpa"}, "sampler is 'tpa'; .*did you mean 'tpe'?"),
        ({"storage": "nosuch://x"}, r"storage is 'nosuch://x', which cannot be opened \(.*\); expected the path of"),
        ({"storage": f"sqlite:///{tmp_path}/nowhere/x.db"}, "cannot be opened .*unable to open"),
    ):
        with pytest.raises(ValueError, match=message):
            search(trainer, **given)
    with pytest.raises(ValueError, match="metric_for_best_model is 'f2'; the evaluation gives eval_accuracy"):
        search(distillation_trainer(tmp_path, metric_for_best_model="f2"))
    with pytest.raises(ValueError, match=r"model_init is None; .* makes a new model for each trial: Trainer"):
        search(Trainer(small_model(), TrainingArguments(**run_fields(tmp_path, {})), train_dataset=small_dataset(9)))
    with pytest.raises(ValueError, match="eval_dataset is None"):
        search(distillation_trainer(tmp_path, eval_dataset=None))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "kdistill\[ray\]"'):
        search(trainer, backend="ray")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "kdistill\[search\]"'):
        search(trainer)


def test_study_in_which_nothing_finished(tmp_path: Path) -> None:
    trainer = distillation_trainer(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"none of 2 trials of the study 'search' finished; .*FloatingPointError: step"
    ):
        search(trainer, n_trials=2, hp_space=lambda trial: {"learning_rate": 1e30})
