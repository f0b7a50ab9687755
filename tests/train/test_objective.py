"""Objectives, and `compute_loss` of users' classes: what each is given, also in the trials of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model
from support.small_search import SPACE, student

from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.callbacks import TrainerCallback
from kdistill.train.objective import BatchLoss, LossPart, RunData, Supervised
from kdistill.trainers import DistillationTrainer, Trainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")


class Weighted(Supervised):
    """The labels' loss times a constant, which a resumed run must have as well."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.prepared: list[tuple[int, int | None]] = []

    def fingerprint(self) -> dict[str, str]:
        return {"weight": str(self.weight)}

    def prepare(self, data: RunData, args: Any, config: Any) -> None:
        self.prepared.append((len(data.train), None if data.eval is None else len(data.eval)))

    def figures(self) -> dict[str, float]:
        return {"weight": self.weight}

    def __call__(self, logits: Any, labels: Any, rows: Any, **about: Any) -> BatchLoss:
        plain = super().__call__(logits, labels, rows, **about)
        loss = self.weight * plain.loss
        return BatchLoss(loss, np.float32(self.weight) * plain.dlogits, [LossPart("plain_loss", plain.loss, len(rows))])


def weighted(directory: Path, weight: float, **changes: Any) -> Trainer:
    args = TrainingArguments(**run_fields(directory, {"eval_strategy": "no"} | changes))
    return Trainer(small_model(), args, train_dataset=small_dataset(16), objective=Weighted(weight))


def test_a_run_learns_what_its_objective_says(tmp_path: Path) -> None:
    """A power of two scales loss and gradient without rounding."""
    norms = {}
    for weight in (1.0, 2.0):
        trainer = weighted(tmp_path / str(weight), weight, max_steps=1)
        trainer.train()
        logged = trainer.state.log_history[0]
        norms[weight] = logged["grad_norm"]
        assert logged["loss"] == weight * logged["plain_loss"]
        assert trainer.objective.prepared == [(16, None)]
        assert trainer.results["weight"] == weight
    assert norms[2.0] == 2 * norms[1.0] > 0


def test_a_run_goes_on_with_the_same_objective_only(tmp_path: Path) -> None:
    trainer = weighted(tmp_path, 1.0)
    trainer.train()
    assert trainer.state.trained_on == {"data": trainer.train_dataset.fingerprint(), "weight": "1.0"}
    with pytest.raises(ValueError, match="trained on other rows"):
        weighted(tmp_path, 2.0).train(resume_from_checkpoint=True)
    assert weighted(tmp_path, 1.0).train(resume_from_checkpoint=True).global_step == trainer.state.global_step


@pytest.mark.parametrize("jobs", [1, 2])
def test_compute_loss_of_a_trial_sees_the_arguments_and_the_model_of_the_trial(tmp_path: Path, jobs: int) -> None:
    seen: dict[int, set[tuple[str, float, str]]] = {}

    class Noting(DistillationTrainer):
        def __init__(self, *args: Any, mark: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.mark = mark

        def compute_loss(self, logits, labels, rows):
            seen.setdefault(id(self.model), set()).add((self.args.run_name, self.args.alpha, self.mark))
            return super().compute_loss(logits, labels, rows)

    trainer = Noting(
        args=DistillationTrainingArguments(**run_fields(tmp_path, {})),
        model_init=student,
        teacher_model=small_model(7),
        train_dataset=small_dataset(40),
        eval_dataset=small_dataset(24, seed=1),
        mark="mine",
    )
    models = []  # kept, so that none takes another's place and id

    class Keep(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs) -> None:
            models.append(model)

    trainer.add_callback(Keep())
    trainer.hyperparameter_search(SPACE, n_trials=4, n_jobs=jobs, pruner="none", sampler="random")
    expected = {(f"run-{trial.number}", trial.params["alpha"], "mine") for trial in trainer.study.trials}
    assert len(expected) == len(seen) == 4
    assert set().union(*seen.values()) == expected
    assert all(len(of_model) == 1 for of_model in seen.values())
    assert id(trainer.model) not in seen


def test_parts_are_logged_of_a_loss_that_calls_ours(tmp_path: Path) -> None:
    """Also of one that calls it for halves of the batch: the parts are means over all rows."""

    class Halves(DistillationTrainer):
        def compute_loss(self, logits, labels, rows):
            half = len(rows) // 2
            parts = [
                super(Halves, self).compute_loss(logits[part], labels[part], rows[part])
                for part in (slice(half), slice(half, None))
            ]
            shares = (half / len(rows), 1 - half / len(rows))
            loss = sum(share * part for share, (part, _) in zip(shares, parts, strict=True))
            return loss, np.concatenate([share * d for share, (_, d) in zip(shares, parts, strict=True)])

    logged = []
    for name, cls in (("whole", DistillationTrainer), ("halves", Halves)):
        fields = {"eval_strategy": "no", "max_steps": 1, "per_device_train_batch_size": 15}
        args = DistillationTrainingArguments(**run_fields(tmp_path / name, fields))
        trainer = cls(small_model(2), args, teacher_model=small_model(3), train_dataset=small_dataset(15))
        trainer.train()
        logged.append(trainer.state.log_history[0])
    for part in ("loss", "hard_loss", "soft_loss"):
        assert logged[1][part] == pytest.approx(logged[0][part], rel=1e-6)


def test_what_users_override_is_called_in_training_and_in_trials(tmp_path: Path) -> None:
    calls: list[str] = []

    class Mine(Trainer):
        def log(self, logs):
            calls.append("log")
            super().log({**logs, "mine": 1.0})

        def evaluate(self, eval_dataset=None, metric_key_prefix="eval"):
            calls.append("evaluate")
            return super().evaluate(eval_dataset, metric_key_prefix)

        def save_model(self, output_dir=None):
            calls.append("save_model")
            super().save_model(output_dir)

        def create_model_card(self, *args, **kwargs):
            calls.append("create_model_card")
            return super().create_model_card(*args, **kwargs)

    trainer = Mine(
        args=TrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 1})),
        model_init=student,
        train_dataset=small_dataset(16),
        eval_dataset=small_dataset(8, seed=1),
    )
    trainer.hyperparameter_search(lambda trial: {}, n_trials=1)
    assert calls == ["log", "evaluate", "log"]  # the training loss, the evaluation and its entry
    calls.clear()
    trainer.train()
    assert calls == ["log", "evaluate", "log", "log", "save_model", "create_model_card"]
    assert all(entry["mine"] == 1.0 for entry in trainer.state.log_history)
