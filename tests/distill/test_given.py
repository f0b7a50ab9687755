"""A teacher whose answers came with the rows: the student learns the same as from the model that gave them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.card_reading import row_of
from support.small_questions import question_model, questions
from support.small_run import (
    LABELS,
    VOCABULARY,
    run_fields,
    sentences,
    small_config,
    small_dataset,
    small_model,
    weights,
)
from support.small_tags import TAG_OF, tagged_sentences

import kdistill as kd
from kdistill.data.labels import NO_LABEL
from kdistill.losses.teacher import distillation_loss
from kdistill.text.tokenizer import PreTrainedTokenizerFast
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.trainers import DistillationTrainer

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:the teacher's", "ignore:.*teacher.* no better than")


def arguments(directory: Path, **changes: Any) -> DistillationTrainingArguments:
    fields = {"eval_strategy": "no", "save_strategy": "no", "report_to": "none", "max_steps": 3} | changes
    return DistillationTrainingArguments(**run_fields(directory, fields))


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return kd.BertTokenizerFast.from_pretrained(tmp_path)


def answers_of(model: Any, dataset: Any) -> np.ndarray:
    return np.asarray(model.forward(dataset.batch(np.arange(len(dataset)))[0]))


def learned(directory: Path, student: Any, train: Any, **given: Any) -> tuple[list[float], np.ndarray]:
    """Train a student for some steps; return the losses of the steps and its weights."""
    trainer = DistillationTrainer(student, arguments(directory, logging_steps=1), train_dataset=train, **given)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    return losses, weights(trainer.model)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_student_learns_the_same_as_from_the_model(tmp_path: Path, problem_type: str) -> None:
    changes: dict[str, Any] = {"problem_type": problem_type}
    rows = small_dataset(24)
    if problem_type == "multi_label_classification":
        labels: Any = np.stack([rows.labels, 1 - rows.labels], axis=1).astype(np.float32)
    elif problem_type == "regression":
        labels, changes["id2label"] = rows.labels.astype(np.float32), {0: "LABEL_0"}
    else:
        labels = rows.labels
    rows = kd.Dataset(rows.ids, rows.types, rows.starts, labels)
    teacher = small_model(9, **changes)
    from_model = learned(tmp_path / "model", small_model(2, **changes), rows, teacher_model=teacher)
    given = learned(tmp_path / "given", small_model(2, **changes), rows, teacher_logits=answers_of(teacher, rows))
    assert given[0] == from_model[0]
    np.testing.assert_array_equal(given[1], from_model[1])


def averaged(temperature: float) -> tuple[list[Any], dict[str, Any]]:
    """Two teachers, and a training set with the average of their probabilities at a temperature."""
    rows, teachers = small_dataset(24), [small_model(9), small_model(10)]
    logits = [answers_of(of, rows).astype(np.float64) / temperature for of in teachers]
    softened = [np.exp(of) / np.exp(of).sum(axis=1, keepdims=True) for of in logits]
    columns: dict[str, Any] = {"input_ids": [row.tolist() for row in np.split(*_flat(rows))]}
    columns |= {"label": rows.labels.tolist(), "teacher_temperature": [temperature] * 24}
    columns["teacher_logits"] = (temperature * np.log((softened[0] + softened[1]) / 2)).tolist()
    return teachers, columns


def test_an_average_teaches_the_same_as_its_teachers_at_its_temperature(tmp_path: Path) -> None:
    teachers, columns = averaged(2.0)
    rows = {name: columns[name] for name in ("input_ids", "label")}
    found = []
    for name, train, given in (("each", rows, {"teacher_model": teachers}), ("average", columns, {})):
        args = arguments(tmp_path / name, logging_steps=1, temperature=2.0)
        trainer = DistillationTrainer(small_model(2), args, train_dataset=train, **given)
        trainer.train()
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "now"),
    [
        ({"temperature": 4.0}, "temperature is 4,"),
        (
            {"temperature": 2.0, "temperature_schedule": "linear", "temperature_end": 1.0},
            "temperature is 2 in the first step alone,",
        ),
    ],
)
def test_an_average_at_another_temperature_is_said(tmp_path: Path, changes: dict[str, Any], now: str) -> None:
    with pytest.warns(UserWarning, match=rf"^several teachers were averaged at temperature 2 \(.*\), and {now}"):
        DistillationTrainer(small_model(2), arguments(tmp_path, **changes), train_dataset=averaged(2.0)[1])


@pytest.mark.parametrize("width", [1, 3])
def test_a_data_set_with_answers_of_another_width_is_refused(tmp_path: Path, width: int) -> None:
    rows = replace(small_dataset(8), teacher_logits=np.zeros((8, width), np.float32))
    with pytest.raises(
        ValueError, match=f"^the teacher's answers have {width} numbers and the student's 2; expected as"
    ):
        DistillationTrainer(small_model(2), arguments(tmp_path), train_dataset=rows)


def test_tags_of_words_too(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tags = dict(enumerate(["O", *sorted(set(TAG_OF.values()))]))
    columns = {
        "tokens": [[word for word, _ in row] for row in tagged_sentences(24)],
        "tags": [[tag for _, tag in row] for row in tagged_sentences(24)],
    }

    def model(seed: int) -> kd.BertForTokenClassification:
        return kd.BertForTokenClassification(small_config(id2label=tags, initializer_range=0.2), seed=seed)

    teacher = model(9)
    args: dict[str, Any] = {"processing_class": tokenizer}
    from_model = learned(tmp_path / "model", model(2), columns, teacher_model=teacher, **args)
    answers = []
    for words in columns["tokens"]:  # each word is a token
        ids = [2, *(VOCABULARY.index(word) for word in words), 3]
        answers.append(teacher.forward(kd.pack([ids]))[1:-1].tolist())
    given = learned(tmp_path / "given", model(2), {**columns, "teacher_logits": answers}, **args)
    assert given[0] == pytest.approx(from_model[0], rel=1e-6)  # a teacher in a batch of one row has the same bits
    np.testing.assert_array_equal(given[1], from_model[1])


def test_rows_are_counted_that_have_words_to_learn_and_an_answer_for_none(tmp_path: Path) -> None:
    """Of four tokens each: one row has nothing to learn, one an answer, and one an answer where nothing is learned."""
    labels = np.array([[NO_LABEL] * 4, [NO_LABEL, 0, 1, NO_LABEL], [NO_LABEL, 1, 0, NO_LABEL]])
    logits = np.full((3, 4, 2), np.nan, np.float32)
    logits[1, 2] = logits[2, 3] = 1.0
    ids = np.array([[2, 5, 9, 3]] * 3, np.int32)
    rows = kd.Dataset(
        ids.ravel(), np.zeros(12, np.int32), np.array([0, 4, 8, 12]), labels.ravel(), per_token=True,
        teacher_logits=logits.reshape(12, 2),
    )  # fmt: skip
    student = kd.BertForTokenClassification(small_config(), seed=2)
    with pytest.warns(UserWarning, match=r"^1 of 3 training rows have no answer of the teacher; on these the student"):
        DistillationTrainer(student, arguments(tmp_path), train_dataset=rows)


@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_that_are_wider_are_as_long_as_the_students(tmp_path: Path, normalize: bool) -> None:
    given = np.random.default_rng(0).standard_normal((24, 32)).astype(np.float32)
    student: Any = kd.BertModel(small_config(), seed=2).with_pooling("mean", normalize=normalize)
    rows = {"input_ids": [row.tolist() for row in np.split(*_flat(small_dataset(24)))]}
    trainer = DistillationTrainer(student, arguments(tmp_path), train_dataset=rows, teacher_logits=given)
    (found,) = trainer.objective.teachers.outputs(trainer.train_dataset, trainer.args, what="rows")
    lengths = np.linalg.norm(found, axis=1)
    assert found.shape == (24, 16)
    assert (np.abs(lengths - 1).max() < 1e-6) == normalize


def test_embeddings_too(tmp_path: Path) -> None:
    def model(seed: int, **changes: Any) -> Any:
        return kd.BertModel(small_config(initializer_range=0.3, **changes), seed=seed).with_pooling("mean")

    rows = {"input_ids": [row.tolist() for row in np.split(*_flat(small_dataset(24)))]}
    dataset = small_dataset(24)
    for width in (16, 32):  # the same, and one that is learned along the longest directions
        teacher = model(9, hidden_size=width)
        from_model = learned(tmp_path / f"model{width}", model(2), rows, teacher_model=teacher)
        logits = answers_of(teacher, dataset)
        given = learned(tmp_path / f"given{width}", model(2), rows, teacher_logits=logits)
        assert given[0] == from_model[0]
        np.testing.assert_array_equal(given[1], from_model[1])


def _flat(dataset: kd.Dataset) -> tuple[np.ndarray, list[int]]:
    return dataset.ids, dataset.starts[1:-1].tolist()


@pytest.mark.filterwarnings("ignore:.* training rows have no")
def test_each_row_learns_from_what_it_has(tmp_path: Path) -> None:
    """The loss of a step is the mean over its rows of alpha hard + (1 - alpha) soft, alpha 1 without an answer."""
    dataset = small_dataset(12)
    labels = dataset.labels.copy()
    labels[:4] = NO_LABEL
    rows = kd.Dataset(dataset.ids, dataset.types, dataset.starts, labels)
    teacher, student = small_model(9), small_model(2, **NO_DROPOUT)
    answers = answers_of(teacher, rows)
    answers[8:] = np.nan
    logits = answers_of(student, rows)
    settings = {"alpha": 0.3, "temperature": 2.0}
    both = distillation_loss(logits[:8], answers[:8], labels[:8], **settings)[0]
    expected = (8 * both + 4 * kd.cross_entropy(logits[8:], labels[8:])[0]) / 12
    args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=12, logging_steps=1, **settings)
    trainer = DistillationTrainer(student, args, train_dataset=rows, teacher_logits=answers)
    trainer.train()
    assert trainer.results["train_loss"] == pytest.approx(expected, rel=1e-5)
    logged = trainer.state.log_history[0]
    assert logged["hard_loss"] == pytest.approx(kd.cross_entropy(logits[4:], labels[4:])[0], rel=1e-5)
    assert logged["soft_loss"] == pytest.approx(distillation_loss(logits[:8], answers[:8], **settings)[0], rel=1e-5)


@pytest.mark.parametrize("answered", [20, 10])
def test_a_run_tells_of_the_answers_and_measures_them(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, answered: int
) -> None:
    """The rows to evaluate on are found by text, and the teacher is measured where it has answers for all of them."""
    teacher = small_model(9)
    train, dev = sentences(24), sentences(20, seed=1)
    texts = [text for text, _ in (*train[1:], *dev[:answered])]
    logits = np.concatenate([teacher.forward(kd.pack(tokenizer([text]))) for text in texts])
    with (tmp_path / "answers.jsonl").open("w") as file:
        for text, row in zip(texts, logits.tolist(), strict=True):
            answer = dict(zip(LABELS.values(), row, strict=True))
            file.write(json.dumps({"text": text, "teacher_logits": answer}) + "\n")
    with pytest.warns(UserWarning, match=r"^1 of 24 training rows have no answer of answers.jsonl; on these the stud"):
        trainer = DistillationTrainer(
            small_model(2),
            arguments(tmp_path, eval_strategy="epoch"),
            teacher_logits=tmp_path / "answers.jsonl",
            train_dataset={"text": [text for text, _ in train], "label": [label for _, label in train]},
            eval_dataset={"text": [text for text, _ in dev], "label": [label for _, label in dev]},
            processing_class=tokenizer,
        )
    trainer.train()
    card = (tmp_path / "out/README.md").read_text()
    assert "distilled from the teacher `answers.jsonl`" in card
    if answered == 20:
        right = logits[23:].argmax(axis=1) == [label for _, label in dev]
        assert trainer.results["teacher_accuracy"] == pytest.approx(right.mean())
        assert row_of(card, "teacher `answers.jsonl`")["accuracy"] == f"{right.mean():.4f}"
    else:
        assert "teacher_accuracy" not in trainer.results
    figures = trainer.create_model_card(measure_speed=False)["teacher"]
    assert (figures["matched_by"], figures["rows"], figures["rows_covered"]) == ("text", 24, 23)
    assert figures["sha256"] == hashlib.sha256((tmp_path / "answers.jsonl").read_bytes()).hexdigest()
    assert "answers for 23 of 24 training rows, found by text" in card


def test_a_resumed_run_must_have_the_same_answers(tmp_path: Path) -> None:
    rows, teacher = small_dataset(24), small_model(9)
    answers = answers_of(teacher, rows)

    def trainer(logits: np.ndarray, **changes: Any) -> DistillationTrainer:
        args = arguments(tmp_path, save_strategy="steps", save_steps=1, **changes)
        return DistillationTrainer(small_model(2), args, train_dataset=rows, teacher_logits=logits)

    trainer(answers, max_steps=2).train()
    with pytest.raises(ValueError, match="teacher"):
        trainer(answers + 1, max_steps=2).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the training rows have no answers of a teacher: no column 'teacher_logits' or 'teacher_probs' with any"),
        ({"teacher_logits": np.full((24, 2), np.nan)}, "the training rows have no answers of a teacher"),
        ({"teacher_logits": np.zeros((23, 2))}, "has 23 rows, and the data set 24; expected a row for each"),
        ({"teacher_logits": np.zeros((24, 3))}, "'teacher_logits' has 3 numbers; the student has 2 outputs"),
    ],
)
def test_answers_that_cannot_teach(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message.replace("'teacher_logits' has 3", "teacher_logits has 3"))):
        DistillationTrainer(small_model(2), arguments(tmp_path), train_dataset=small_dataset(24), **given)


def test_a_row_with_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    rows = small_dataset(24)
    labels, answers = rows.labels.copy(), np.zeros((24, 2))
    labels[[3, 7]], answers[[3, 5]] = NO_LABEL, np.nan
    rows = kd.Dataset(rows.ids, rows.types, rows.starts, labels)
    with pytest.raises(ValueError, match=r"1 of 24 training rows have neither a label nor an answer .* is row 3"):
        DistillationTrainer(small_model(2), arguments(tmp_path), train_dataset=rows, teacher_logits=answers)


def test_what_columns_cannot_teach(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="the answers of a teacher to questions are logits of all tokens of a window"):
        DistillationTrainer(
            question_model(), arguments(tmp_path), train_dataset=questions(8), processing_class=tokenizer
        )
    args = arguments(tmp_path, augment=1)
    trainer = DistillationTrainer(
        small_model(2),
        args,
        train_dataset=small_dataset(24),
        teacher_logits=np.zeros((24, 2)),
        processing_class=tokenizer,
    )
    with pytest.raises(ValueError, match="augment is 1"):
        trainer.train()
