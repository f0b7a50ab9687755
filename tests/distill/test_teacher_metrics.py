"""The teacher is measured as the student is: by the task's metrics, and by those that a user chose."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_run import run_fields, small_dataset, small_model

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.metrics.prediction import EvalPrediction
from kdistill.models.trained_with import TrainedWith
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

MULTI = "multi_label_classification"
pytestmark = pytest.mark.filterwarnings("ignore:the teacher.s (accuracy|loss)")


def teacher_figures(
    tmp_path: Path, teacher: kd.BertForSequenceClassification, rows: Dataset, **changes: Any
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """What all_results.json holds of the teacher, and its logits for the rows."""
    fields = run_fields(tmp_path, {"max_steps": 1, **changes.pop("fields", {})})
    config = teacher.config
    trainer = DistillationTrainer(
        small_model(2, id2label=config.id2label, problem_type=config.problem_type),
        DistillationTrainingArguments(**fields),
        teacher_model=teacher,
        train_dataset=rows,
        eval_dataset=rows,
        **changes,
    )
    trainer.train()
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    found = {name.removeprefix("teacher_"): of for name, of in results.items() if name.startswith("teacher_")}
    assert found == trainer.teacher_metrics
    return found, teacher.forward(rows.batch(np.arange(len(rows)))[0]).astype(np.float64)


def test_a_regression_s_teacher_has_the_correlations(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).normal(size=30).astype(np.float32)
    rows = dataclasses.replace(small_dataset(30), labels=labels)
    teacher = small_model(5, id2label={0: "score"}, problem_type="regression")
    found, logits = teacher_figures(tmp_path, teacher, rows, fields={"metric_for_best_model": "pearson"})
    assert set(found) == {"mse", "pearson", "spearmanr", "loss"}
    assert found["pearson"] == pytest.approx(np.corrcoef(logits[:, 0], labels)[0, 1], abs=1e-9)
    assert found["mse"] == pytest.approx(((logits[:, 0] - labels) ** 2).mean(), rel=1e-6)


def test_chosen_metrics_and_a_user_s_own_are_the_teacher_s_too(tmp_path: Path) -> None:
    rows = small_dataset(30)
    teacher = small_model(5)
    found, logits = teacher_figures(tmp_path / "named", teacher, rows, compute_metrics=kd.choose_metrics("f1_macro"))
    said, true = logits.argmax(axis=1), rows.labels
    f1 = [2 * ((said == k) & (true == k)).sum() / ((said == k).sum() + (true == k).sum()) for k in (0, 1)]
    assert found["f1_macro"] == pytest.approx(np.mean(f1))
    assert found["accuracy"] == (said == true).mean()

    def largest(prediction: EvalPrediction) -> dict[str, float]:
        return {"eval_largest": float(prediction.predictions.max())}

    found, logits = teacher_figures(tmp_path / "own", teacher, rows, compute_metrics=largest)
    assert found["largest"] == logits.max()


def test_a_teacher_decides_at_its_own_threshold(tmp_path: Path) -> None:
    base = small_dataset(30)
    rows = dataclasses.replace(base, labels=np.stack([base.labels, 1 - base.labels], axis=1).astype(np.float32))
    teacher = small_model(5, problem_type=MULTI)
    logits = teacher.forward(rows.batch(np.arange(30))[0]).astype(np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    threshold = float(np.median(probabilities))
    teacher.config = teacher.config.with_trained(TrainedWith(threshold=threshold))
    found, _ = teacher_figures(tmp_path, teacher, rows)
    said, true = probabilities > threshold, rows.labels == 1
    assert found["f1"] == pytest.approx(2 * (said & true).sum() / (said.sum() + true.sum()))
    half = probabilities > 0.5
    assert found["f1"] != 2 * (half & true).sum() / (half.sum() + true.sum())


def test_a_teacher_without_labelled_rows_is_not_measured(tmp_path: Path) -> None:
    unlabelled = dataclasses.replace(small_dataset(30), labels=np.full(30, -100))
    trainer = DistillationTrainer(
        small_model(2),
        DistillationTrainingArguments(**run_fields(tmp_path, {"max_steps": 1, "alpha": 0.0, "eval_strategy": "no"})),
        teacher_model=small_model(5),
        train_dataset=unlabelled,
    )
    trainer.train()
    assert trainer.teacher_metrics == {}
    assert trainer.teacher_accuracy is None
