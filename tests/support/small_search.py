"""Searches so small that a trial takes part of a tenth of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdistill.models.classes import BertForSequenceClassification
from kdistill.search.study import BestRun
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer, Trainer
from support.small_run import run_fields, small_dataset, small_model

SPACE = {
    "num_train_epochs": {"type": "int", "low": 2, "high": 3},
    "learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True},
    "alpha": {"type": "float", "low": 0.0, "high": 1.0},
}


def student(trial: Any = None) -> BertForSequenceClassification:
    return small_model(2)


def eval_loss(metrics: dict[str, float]) -> float:
    return metrics["eval_loss"]


def distillation_trainer(directory: Path, **changes: Any) -> DistillationTrainer:
    names = ("model_init", "callbacks", "teacher_model", "eval_dataset", "train_dataset", "processing_class")
    given = {
        "model_init": student,
        "teacher_model": small_model(7),
        "train_dataset": small_dataset(40),
        "eval_dataset": small_dataset(24, seed=1),
    }
    given |= {name: changes.pop(name) for name in names if name in changes}
    return DistillationTrainer(args=DistillationTrainingArguments(**run_fields(directory, changes)), **given)


def search(trainer: Trainer, **given: Any) -> BestRun:
    keywords: dict[str, Any] = {"hp_space": SPACE, "n_trials": 3, "pruner": "none", "sampler": "random"}
    return trainer.hyperparameter_search(**(keywords | given))


def states(trainer: Trainer) -> list[str]:
    return [trial.state.name for trial in trainer.study.trials]


def reports(study: Any) -> dict[tuple[Any, ...], dict[int, float]]:
    """Return the reports of each trial, by its hyperparameters."""
    return {tuple(sorted(trial.params.items())): trial.intermediate_values for trial in study.trials}


def outcome(study: Any) -> list[tuple[Any, ...]]:
    """Return what a study found, trial by trial: all but times and who did it."""
    return [
        (trial.number, trial.state.name, trial.params, trial.values, trial.intermediate_values)
        for trial in study.get_trials(deepcopy=False)
    ]
