"""Students that learn a teacher's embeddings, in Python: losses, metrics, resumed runs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_tokenizer
from support.small_run import run_fields, sentences, small_config

import kdistill as kd
from kdistill.data.sentence_rows import encode_sentences
from kdistill.distill import projection

TEXTS = {"sentence": [text for text, _ in sentences(120)]}
PAIRS = {
    "sentence1": [text for text, _ in sentences(30, 1)],
    "sentence2": [text for text, _ in sentences(30, 2)],
    "score": list(np.random.default_rng(0).random(30)),
}


def teacher_of(normalize: bool = True, **changes: Any) -> Any:
    model = kd.BertModel(small_config(initializer_range=0.3, **changes), seed=1)
    return model.with_pooling("mean", normalize)


def trainer_of(tmp_path: Path, loss: str = "mse", **changes: Any) -> kd.DistillationTrainer:
    teacher = teacher_of()
    length = {} if "max_steps" in changes else {"num_train_epochs": 3}
    fields = run_fields(tmp_path, {"embedding_loss": loss, "seed": 3, **length, **changes})
    return kd.DistillationTrainer(
        kd.BertModel.from_teacher(teacher, small_config(num_hidden_layers=1)),
        kd.DistillationTrainingArguments(**fields),
        teacher_model=teacher,
        train_dataset=TEXTS,
        eval_dataset=PAIRS,
        processing_class=question_tokenizer(tmp_path),
    )


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_a_student_comes_close_to_its_teacher(tmp_path: Path, loss: str) -> None:
    trainer = trainer_of(tmp_path, loss)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("loss", False)
    assert after["eval_mse"] < 0.5 * before["eval_mse"]
    assert after["eval_cosine"] > before["eval_cosine"]
    assert after["eval_loss"] == after["eval_mse"]
    assert after["eval_n"] == 30
    assert trainer.teacher_metrics["mse"] == 0
    assert trainer.results["teacher_spearman_cosine"] == trainer.teacher_metrics["spearman_cosine"]


def test_metrics_are_their_formulas(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    found = trainer.evaluate()
    rows = encode_sentences(PAIRS, trainer.processing_class, max_length=16)
    batch, _ = rows.batch(np.arange(60))
    ours, theirs = (model.forward(batch).astype(np.float64) for model in (trainer.model, trainer.teacher_model))
    assert found["eval_mse"] == pytest.approx(((ours - theirs) ** 2).mean(), rel=1e-9)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert found["eval_cosine"] == pytest.approx(((ours * theirs).sum(axis=1) / lengths).mean(), rel=1e-9)
    cosines = (ours[::2] * ours[1::2]).sum(1) / np.linalg.norm(ours[::2], axis=1) / np.linalg.norm(ours[1::2], axis=1)
    scores = np.float32(PAIRS["score"]).astype(np.float64)
    ranks = [values.argsort().argsort() for values in (cosines, scores)]  # no two are equal
    assert found["eval_spearman_cosine"] == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-9)
    assert found["eval_pearson_cosine"] == pytest.approx(np.corrcoef(cosines, scores)[0, 1], rel=1e-9)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
    whole = trainer_of(tmp_path / "whole", save_strategy="epoch", eval_strategy="epoch")
    whole.train()
    again = trainer_of(tmp_path / "half", save_strategy="epoch", eval_strategy="epoch")
    again.train(resume_from_checkpoint=tmp_path / "whole/out/checkpoint-15")
    assert again.state.global_step == 45
    np.testing.assert_array_equal(again.model.flat_parameters, whole.model.flat_parameters)


def test_a_finished_model_is_one_of_sentence_transformers(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, num_train_epochs=1)
    trainer.train()
    assert (tmp_path / "out/modules.json").is_file()
    assert 'pipeline_tag: "feature-extraction"' in (tmp_path / "out/README.md").read_text()
    model = kd.AutoModel.from_pretrained(tmp_path / "out")
    embeddings = kd.pipeline("feature-extraction", model, trainer.processing_class, pooling="model")(["good film"])
    np.testing.assert_array_equal(embeddings, trainer.model.forward([[2, 5, 9, 3]]))


def test_arguments_about_labels_have_no_effect(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="alpha, temperature have no effect here: embeddings are learned from the te"):
        trainer_of(tmp_path, alpha=0.3, temperature=2.0, max_steps=1).train()


def test_what_cannot_be_learned_is_refused(tmp_path: Path) -> None:
    tokenizer, teacher = question_tokenizer(tmp_path), teacher_of()
    args = kd.TrainingArguments(str(tmp_path / "x"), disable_tqdm=True)
    trainer = kd.Trainer(teacher_of(), args, train_dataset=TEXTS, processing_class=tokenizer)
    with pytest.raises(ValueError, match="model embeds texts, which have no labels to learn; expected a teacher"):
        trainer.train()
    with pytest.raises(ValueError, match=r"have no scores; expected pairs of texts with a score"):
        trainer.evaluate(TEXTS)
    fields: dict[str, Any] = {"teacher_model": teacher, "train_dataset": TEXTS, "processing_class": tokenizer}
    distilled = kd.DistillationTrainingArguments(str(tmp_path / "x"), disable_tqdm=True)
    with pytest.raises(ValueError, match=r"whose head has no task to train for; .* from_pretrained.*pooling='mean'"):
        kd.DistillationTrainer(kd.BertModel(small_config()), distilled, **fields)
    wide = kd.BertModel(small_config(hidden_size=32)).with_pooling("mean")
    with pytest.raises(ValueError, match=r"teacher's embeddings have 16 numbers and the student's 32; .* L2-H16-A2"):
        kd.DistillationTrainer(wide, distilled, **fields)
    labelled = kd.DistillationTrainingArguments(str(tmp_path / "x"), embedding_loss="cosine", disable_tqdm=True)
    classifier = kd.BertForSequenceClassification(small_config(), seed=1)
    other = kd.BertForSequenceClassification(small_config(), seed=2)
    with pytest.raises(ValueError, match="embedding_loss is 'cosine', and model is a BertForSequenceClassification"):
        kd.DistillationTrainer(classifier, labelled, teacher_model=other)
    with pytest.raises(ValueError, match="class_weights is given with problem_type 'feature-extraction'"):
        trainer_of(tmp_path, class_weights=[1.0, 2.0], max_steps=1).train()


def test_directions_are_those_of_all_rows_with_one_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BLOCK_ROWS", 7)
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * np.float32([1, 5, 2, 4, 3, 6])
    found = projection.principal_directions(rows, 3)
    _, _, right = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(right[:3] @ found), np.eye(3), atol=1e-9)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=0, keepdims=True), axis=0)
    assert (largest > 0).all()
    along = projection.projected(rows, found, unit=False)
    np.testing.assert_allclose(along, rows.astype(np.float64) @ found, rtol=1e-5, atol=1e-6)


def test_a_narrower_student_learns_the_main_directions(tmp_path: Path) -> None:
    teacher = teacher_of()
    student = kd.BertModel.from_teacher(teacher, small_config(hidden_size=6, intermediate_size=24))
    trainer = kd.DistillationTrainer(
        student,
        kd.DistillationTrainingArguments(**run_fields(tmp_path, {"num_train_epochs": 4, "seed": 1})),
        teacher_model=teacher,
        train_dataset=TEXTS,
        eval_dataset=PAIRS,
        processing_class=question_tokenizer(tmp_path),
    )
    before = trainer.evaluate()["eval_mse"]
    trainer.train()
    assert trainer.evaluate()["eval_mse"] < 0.7 * before
    dataset = trainer.train_dataset
    assert dataset is not None
    whole = teacher.forward(dataset.batch(np.arange(len(dataset)))[0]).astype(np.float64)
    _, _, directions = np.linalg.svd(whole, full_matrices=False)
    expected = whole @ directions[:6].T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    products = trainer.objective.answers[0] @ trainer.objective.answers[0].T
    np.testing.assert_allclose(products, expected @ expected.T, atol=1e-5)  # whatever the signs of the directions
    assert trainer.teacher_metrics["mse"] == 0
    assert {"teacher", "model"} <= trainer.summary().keys()  # which measures the speed of the whole teacher
    assert not trainer.failed


def test_augmented_texts_teach_too(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, augment=1, max_steps=2)
    trainer.train()
    assert len(trainer.objective.answers[0]) == 240
