"""The sentence about a model that is hardly better than a constant answer, and the runs that get none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.small_questions import question_tokenizer, questions
from support.small_run import run_fields, small_config, small_dataset, small_model

from kdistill.data.dataset import Dataset
from kdistill.models.classes import BertForSequenceClassification
from kdistill.tasks.question_answering import encode
from kdistill.tasks.registry import TASKS, task_for
from kdistill.train.arguments import TrainingArguments
from kdistill.train.little_learned import little_learned
from kdistill.trainers import Trainer

SINGLE, REGRESSION = TASKS["single_label_classification"], TASKS["regression"]


def rows(labels: list[float], *, pairs: bool = False) -> Dataset:
    count = len(labels)
    values = np.array(labels, np.int64 if isinstance(labels[0], int) else np.float32)
    return Dataset(np.full(count, 5, np.int32), np.full(count, pairs, np.int32), np.arange(count + 1), values)


# 6 of 10 rows have label 1: with a teacher at 0.9 a tenth of the way is 0.63, without one 0.64.
@pytest.mark.parametrize(
    ("accuracy", "teacher", "little"),
    [(0.62, 0.9, True), (0.635, 0.9, False), (0.635, None, True), (0.65, None, False), (0.3, 0.9, True)],
)
def test_accuracy_is_measured_from_the_most_frequent_label(
    accuracy: float, teacher: float | None, little: bool
) -> None:
    sentence = little_learned(
        SINGLE,
        rows([1] * 6 + [0] * 4),
        {"accuracy": accuracy},
        teacher={} if teacher is None else {"accuracy": teacher},
        new_layers=True,
        recipe="auto",
    )
    assert (sentence is not None) == little
    if sentence is not None:
        assert (
            f"its accuracy is {accuracy:.4f}, and that of always answering the most frequent label 0.6000" in sentence
        )


@pytest.mark.parametrize(("mse", "little"), [(2.0, True), (1.81, True), (1.7, False)])
def test_numbers_are_measured_from_their_mean(mse: float, little: bool) -> None:
    labels = [1.0, 2.0, 3.0, 4.0, 5.0]  # of the variance 2
    for pairs, new_layers, recipe, remedy in (
        (True, True, "auto", "compare two texts"),
        (False, True, "auto", "more rows or epochs"),
        (False, True, "transformers", "recipe auto chooses"),
        (True, False, "auto", "look at the labels"),
    ):
        sentence = little_learned(
            REGRESSION,
            rows(labels, pairs=pairs),
            {"mse": mse},
            teacher={},
            new_layers=new_layers,
            recipe=recipe,
        )
        assert (sentence is not None) == little
        assert sentence is None or remedy in sentence


def test_missing_labels_do_not_count() -> None:
    sentence = little_learned(
        REGRESSION, rows([1.0, np.nan, 3.0]), {"mse": 0.95}, teacher={}, new_layers=False, recipe="auto"
    )
    assert sentence is not None
    assert "always answering the mean 1.0000; look at the labels" in sentence


@pytest.mark.parametrize(("f1", "teacher", "little"), [(0.09, None, True), (0.11, None, False), (0.07, 0.6, False)])
def test_entities_are_measured_from_none(f1: float, teacher: float | None, little: bool) -> None:
    """Where most words have no entity, the accuracy of a model that finds none is high."""
    pytest.importorskip("seqeval")
    config = small_config(id2label={0: "O", 1: "B-x"}).with_head("token-classification")
    ids, tags = np.full(20, 5, np.int32), np.eye(20, dtype=np.int64)[0]
    data = Dataset(ids, np.zeros_like(ids), np.arange(0, 21, 10), tags, per_token=True)
    sentence = little_learned(
        task_for(config),
        data,
        {"accuracy": 0.95, "f1": f1},
        teacher={} if teacher is None else {"accuracy": 0.97, "f1": teacher},
        new_layers=False,
        recipe="auto",
    )
    assert (sentence is not None) == little
    assert sentence is None or f"has learned little: its F1 of entities is {f1:.4f}" in sentence


@pytest.mark.parametrize(("f1", "without_answer", "little"), [(9.0, 0.0, True), (11.0, 0.0, False), (41.0, 0.5, True)])
def test_answers_to_questions_are_measured_from_none(
    tmp_path: Path, f1: float, without_answer: float, little: bool
) -> None:
    asked = [*questions(60, without_answer=without_answer), {**questions(1, 9)[0], "id": "x", "answers": None}]
    rows = encode(asked, question_tokenizer(tmp_path), max_length=10, doc_stride=2)
    task = TASKS["question-answering"]
    sentence = little_learned(task, rows, {"f1": f1}, teacher={}, new_layers=False, recipe="auto")
    assert (sentence is not None) == little
    assert sentence is None or f"has learned little: its F1 is {f1:.2f} of 100" in sentence


@pytest.mark.parametrize(("rate", "little"), [(1e-9, True), (0.01, False)])
def test_run_ends_with_the_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: float, little: bool
) -> None:
    args = TrainingArguments(**run_fields(tmp_path, {"learning_rate": rate, "disable_tqdm": False}))
    Trainer(small_model(), args, train_dataset=small_dataset(200), eval_dataset=small_dataset(60, seed=1)).train()
    assert ("the model has learned little: its accuracy is" in capsys.readouterr().err) == little


def test_pairs_are_told_apart_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = BertForSequenceClassification(small_config(id2label={0: "likeness"}, problem_type="regression"))
    args = TrainingArguments(**run_fields(tmp_path, {"learning_rate": 1e-9, "disable_tqdm": False}))
    pairs = rows([1.0, 2.0, 3.0, 4.0], pairs=True)
    Trainer(model, args, train_dataset=pairs, eval_dataset=pairs).train()
    printed = capsys.readouterr().err
    assert "the model has learned little: its mean squared error is" in printed
    assert "always answering the mean 1.2500; new layers learn to compare two texts" in printed
    assert "begin with a pretrained model, with a shape of the teacher's width" in printed
