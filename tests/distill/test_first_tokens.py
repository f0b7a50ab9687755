"""States of [CLS] from a teacher with another tokenizer, against those of the two models called by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.other_teacher import write_other_teacher
from support.small_questions import question_tokenizer
from support.small_run import run_fields, sentences, small_model

import kdistill as kd
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher's accuracy")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ROWS = [{"text": text, "label": label} for text, label in sentences(12)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDISTILL_CACHE", str(tmp_path / "cache"))


def trainer_of(directory: Path, matches: list[kd.Match], **changes: Any) -> DistillationTrainer:
    own = write_other_teacher(directory / "own", hidden_size=16)
    fields = {"matches": matches, "max_steps": 1, "logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    fields |= {"teacher_dtype": "float32", "per_device_train_batch_size": 12} | changes
    return DistillationTrainer(
        small_model(2, **NO_DROPOUT),
        DistillationTrainingArguments(**run_fields(directory, fields)),
        teacher_model=kd.AutoModelForSequenceClassification.from_pretrained(own),
        teacher_processing_class=kd.AutoTokenizer.from_pretrained(own),
        train_dataset=ROWS,
        processing_class=question_tokenizer(directory),
    )


def first_states(model: Any, tokenizer: Any) -> np.ndarray:
    """The last layer's output for the first token of each row, divided by its length."""
    states = model(tokenizer([row["text"] for row in ROWS]), output_hidden_states=True).hidden_states[-1]
    first = np.stack([row[0] for row in states]).astype(np.float64)
    return np.asarray(first / np.linalg.norm(first, axis=1, keepdims=True))


@pytest.mark.parametrize("hidden_cache", [None, "1GB"])
def test_cls_states_of_two_tokenizers_are_compared_row_by_row(tmp_path: Path, hidden_cache: str | None) -> None:
    trainer = trainer_of(tmp_path, [kd.Match("cls", -1, -1)], hidden_cache=hidden_cache)
    before = first_states(small_model(2, **NO_DROPOUT), trainer.processing_class)
    (teacher,) = trainer.objective.teachers.models
    expected = np.square(before - first_states(teacher.model, teacher.tokenizer)).sum(axis=1).mean()
    trainer.train()
    found = trainer.state.log_history[0]["match_cls_0_1_loss"]
    assert found == pytest.approx(expected, rel=1e-5 if hidden_cache is None else 1e-2)


def test_micro_batches_ask_for_their_own_rows(tmp_path: Path) -> None:
    weights = []
    for size in (12, 4):
        trainer = trainer_of(
            tmp_path / str(size),
            [kd.Match("cls", -1, -1)],
            per_device_train_batch_size=size,
            gradient_accumulation_steps=12 // size,
        )
        trainer.train()
        weights.append(trainer.state.log_history[0]["match_cls_0_1_loss"])
    assert weights[0] == pytest.approx(weights[1], rel=1e-5)


def test_other_states_are_refused_still(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"or of models for whole texts matches of the kind 'cls' alone: leave"):
        trainer_of(tmp_path, [kd.Match("cls", -1, -1), kd.Match("hidden", -1, -1)])
