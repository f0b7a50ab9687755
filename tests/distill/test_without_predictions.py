"""Runs whose stages all have prediction_weight 0: they learn what lies inside the teacher and none of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL
from kdistill.distill.sources import Teachers
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
RELATIONS = kd.Match("relation", -1, -1)
INSIDE = [kd.Stage([RELATIONS], prediction_weight=0)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the teachers were asked for."""
    asked: list[str] = []
    outputs = Teachers.outputs

    def noting(self: Teachers, rows: Dataset, args: Any, *, what: str = "report", keep: bool = False) -> Any:
        asked.append(what)
        return outputs(self, rows, args, what=what, keep=keep)

    monkeypatch.setattr(Teachers, "outputs", noting)
    return asked


def trainer_of(
    directory: Path, *, evaluates: bool = True, train_dataset: Dataset | None = None, **changes: Any
) -> DistillationTrainer:
    fields = {"matches": INSIDE, "logging_steps": 1, "max_steps": 2} | changes
    return DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(directory, fields)),
        teacher_model=small_model(9, num_hidden_layers=3, hidden_size=24),
        train_dataset=train_dataset or small_dataset(20),
        eval_dataset=small_dataset(10, seed=1) if evaluates else None,
    )


def test_the_teacher_answers_for_the_evaluation_rows_alone(tmp_path: Path, asked: list[str]) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train()
    assert asked[0] == "evaluation rows"
    assert "training rows" not in asked
    for entry in trainer.state.log_history[:2]:
        assert entry["loss"] == pytest.approx(entry["match_relation_2_1_loss"], rel=1e-12)
        assert not {"hard_loss", "soft_loss"} & set(entry)
    assert {"eval_accuracy", "teacher_accuracy"} <= set(trainer.results)
    assert "teacher" in (tmp_path / "out" / "README.md").read_text()


def test_without_evaluation_rows_nobody_is_asked_and_no_compute_type_is_chosen(
    tmp_path: Path, asked: list[str]
) -> None:
    trainer = trainer_of(tmp_path, evaluates=False, eval_strategy="no")
    trainer.train()
    assert asked == []
    assert trainer.objective.teacher.choice is None


def test_rows_need_no_labels(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows = small_dataset(20)
    unlabelled = Dataset(rows.ids, rows.types, rows.starts, np.full(20, NO_LABEL))
    trainer = trainer_of(tmp_path, train_dataset=unlabelled, evaluates=False, eval_strategy="no")
    trainer.train()
    assert not [str(warning.message) for warning in recwarn if "label" in str(warning.message)]


def test_the_step_is_that_of_the_matches(tmp_path: Path) -> None:
    """A run whose predictions count as good as nothing ends at the same weights, but for rounding."""
    runs = [trainer_of(tmp_path / str(weight), matches=[kd.Stage([RELATIONS], prediction_weight=weight)])
            for weight in (0, 1e-12)]  # fmt: skip
    for trainer in runs:
        trainer.train()
    name = "bert.encoder.layer.1.attention.self.query.weight"
    first, second = (trainer.model.parameters[name] for trainer in runs)
    assert np.abs(first - small_model(2).parameters[name]).max() > 1e-3
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_arguments_of_the_predictions_have_no_effect(tmp_path: Path) -> None:
    said = r"^alpha, temperature have no effect here: prediction_weight is 0 in all stages of matches$"
    with pytest.warns(UserWarning, match=said):
        trainer_of(tmp_path, alpha=0.3, temperature=2.0)


def test_no_sentence_says_that_little_was_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer_of(tmp_path, disable_tqdm=False).train()
    assert "learned little" not in capsys.readouterr().err


def test_the_first_trial_of_a_search_whose_predictions_count_asks_for_them(tmp_path: Path, asked: list[str]) -> None:
    pytest.importorskip("optuna")
    trainer = DistillationTrainer(
        args=DistillationTrainingArguments(**run_fields(tmp_path, {"matches": INSIDE})),
        model_init=lambda: small_model(2),
        teacher_model=small_model(9, num_hidden_layers=3, hidden_size=24),
        train_dataset=small_dataset(20),
        eval_dataset=small_dataset(10, seed=1),
    )
    space = {"matches": {"type": "categorical", "choices": ["minilm", "pkd"]}}
    trainer.hyperparameter_search(space, n_trials=3, pruner="none", sampler="random")
    assert len(trainer.study.trials) == 3
    assert asked.count("training rows") == 1


@pytest.mark.parametrize("given", ["function", "answers"])
def test_answers_that_nobody_would_use_are_refused(tmp_path: Path, given: str) -> None:
    teacher: Any = {"teacher_model": lambda texts: np.zeros((len(texts), 2))}
    if given == "answers":
        teacher = {"teacher_model": small_model(9), "teacher_logits": np.zeros((20, 2), np.float32)}
    with pytest.raises(ValueError, match=r"^matches are given with (2 teachers|the teacher .*, which is no model)"):
        DistillationTrainer(
            small_model(2),
            DistillationTrainingArguments(**run_fields(tmp_path, {"matches": INSIDE, "eval_strategy": "no"})),
            train_dataset=small_dataset(20),
            **teacher,
        )
