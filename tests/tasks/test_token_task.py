"""Token classification: losses of the tokens that take part, metrics of tags and of entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.eight_tokenizers import write_vocabulary
from support.small_run import run_fields, small_config

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.data.labels import NO_LABEL, UNTAGGED
from kdistill.data.ragged import Ragged, starts_of
from kdistill.metrics.prediction import EvalPrediction
from kdistill.models.classes import BertForTokenClassification
from kdistill.models.config import BertConfig
from kdistill.tasks.registry import choose_metrics, task_for
from kdistill.tasks.token import TASK
from kdistill.train.arguments import DistillationTrainingArguments, TrainingArguments
from kdistill.train.evaluate import predict
from kdistill.trainers import DistillationTrainer, Trainer

TAGS = {0: "O", 1: "B-person", 2: "I-person", 3: "B-place"}
TASK_OF_TAGS = task_for(BertConfig(id2label=TAGS).with_head("token-classification"))


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def logits_and_labels(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, a teacher's and labels of tokens: some take no part, some are unknown."""
    random = np.random.default_rng(seed)
    tokens = sum(lengths)
    z, t = (random.normal(0, 3, (tokens, len(TAGS))).astype(np.float32) for _ in range(2))
    return z, t, random.choice([NO_LABEL, UNTAGGED, 0, 1, 2, 3], tokens)


def tagged_rows(n: int, seed: int = 0) -> Dataset:
    """Rows of 3 to 14 tokens, in which the tag of a token follows from its id; the first and last take no part."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 15, n)
    ids = random.integers(5, 13, lengths.sum()).astype(np.int32)
    labels = (ids % 4).astype(np.int64)
    starts = starts_of(lengths)
    labels[starts[:-1]] = labels[starts[1:] - 1] = NO_LABEL
    ids[starts[:-1]], ids[starts[1:] - 1] = 2, 3
    return Dataset(ids, np.zeros_like(ids), starts, labels, per_token=True)


def tagger(seed: int = 1, **changes: object) -> BertForTokenClassification:
    config = small_config(initializer_range=0.2, id2label=TAGS, **changes)
    return BertForTokenClassification(config, seed=seed)


def test_the_label_loss_is_the_mean_over_tokens_with_a_label() -> None:
    z, _, labels = logits_and_labels([4, 6, 3])
    loss, gradient = TASK.label_loss(Ragged(z, np.array([0, 4, 10, 13])), labels)
    rows = np.flatnonzero(labels >= 0)
    expected = -log_softmax(z)[rows, labels[rows]].mean()
    assert loss == pytest.approx(expected, rel=1e-6)
    wanted = np.zeros((13, 4))
    wanted[rows] = np.exp(log_softmax(z))[rows]
    wanted[rows, labels[rows]] -= 1
    np.testing.assert_allclose(gradient, wanted / len(rows), atol=1e-7)


def test_the_distillation_loss_leaves_out_tokens_that_take_no_part() -> None:
    z, t, labels = logits_and_labels([5, 8, 7], seed=3)
    alpha, temperature = 0.3, 2.0
    parts = TASK.teacher_loss(z, t, labels, alpha=alpha, temperature=temperature)
    q, p = log_softmax(z / temperature), log_softmax(t / temperature)
    soft = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1)
    hard = np.array([-log_softmax(z)[row, max(label, 0)] for row, label in enumerate(labels)])
    each = np.where(labels >= 0, alpha * hard + (1 - alpha) * soft, soft)
    part = labels != NO_LABEL
    assert parts.loss == pytest.approx(each[part].mean(), rel=1e-6)
    assert not parts.dlogits[~part].any()
    assert parts.dlogits[part].any(axis=1).all()
    assert parts.soft == pytest.approx(soft[part].mean(), rel=1e-6)


def test_a_batch_without_labels_has_no_loss_and_no_gradient() -> None:
    z, t, _ = logits_and_labels([2, 3])
    nothing = np.full(5, NO_LABEL)
    for loss, gradient in (
        TASK.label_loss(z, nothing),
        TASK.teacher_loss(z, t, nothing, alpha=0.5, temperature=2.0)[:2],
    ):
        assert loss == 0
        assert not gradient.any()


def test_entities_count_as_seqeval_counts_them() -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    random = np.random.default_rng(5)
    lengths = random.integers(1, 9, 40)
    tokens = int(lengths.sum())
    labels = random.choice([NO_LABEL, 0, 1, 2, 3], tokens)
    logits = random.normal(size=(tokens, 4)).astype(np.float32)
    found = TASK_OF_TAGS.evaluate(Ragged(logits, starts_of(lengths)), Ragged(labels, starts_of(lengths)))
    true: list[list[str]] = []
    predicted: list[list[str]] = []
    for row, of in zip(
        np.split(labels, np.cumsum(lengths)[:-1]), np.split(logits, np.cumsum(lengths)[:-1]), strict=True
    ):
        if (row != NO_LABEL).any():
            true.append([TAGS[label] for label in row if label != NO_LABEL])
            predicted.append([TAGS[int(z.argmax())] for z, label in zip(of, row, strict=True) if label != NO_LABEL])
    assert found["f1"] == pytest.approx(f1_score(true, predicted))
    assert found["precision"] == pytest.approx(precision_score(true, predicted))
    assert found["recall"] == pytest.approx(recall_score(true, predicted))
    flat = [a == b for x, y in zip(true, predicted, strict=True) for a, b in zip(x, y, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(flat))
    assert found["n"] == len(true)


def test_micro_batches_add_up_to_the_gradient_of_one_batch(tmp_path: Path) -> None:
    trained = []
    for directory, batch, steps in (("one", 12, 1), ("three", 4, 3)):
        model = tagger(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        args = TrainingArguments(
            **run_fields(
                tmp_path / directory,
                {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_steps": 2},
            )
        )
        Trainer(model, args, train_dataset=tagged_rows(24), eval_dataset=tagged_rows(4, seed=1)).train()
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        if not name.endswith("key.bias"):  # whose gradients are rounding alone
            np.testing.assert_allclose(value, trained[1][name], atol=2e-5, err_msg=name)


def test_a_tagger_learns_and_its_student_learns_from_it(tmp_path: Path) -> None:
    rows, other = tagged_rows(96), tagged_rows(40, seed=1)
    args = TrainingArguments(**run_fields(tmp_path / "teacher", {"num_train_epochs": 10}))
    trainer = Trainer(tagger(), args, train_dataset=rows, eval_dataset=other)
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_f1"] > 0.95
    assert metrics["eval_n"] == 40
    unlabelled = Dataset(
        rows.ids, rows.types, rows.starts, np.where(rows.labels >= 0, UNTAGGED, NO_LABEL), per_token=True
    )
    fields = {"num_train_epochs": 10, "teacher_dtype": "float32"}
    distillation = DistillationTrainer(
        tagger(seed=2),
        DistillationTrainingArguments(**run_fields(tmp_path / "student", fields), alpha=0.0),
        teacher_model=trainer.model,
        train_dataset=unlabelled,
        eval_dataset=other,
    )
    distillation.train()
    assert distillation.evaluate()["eval_accuracy"] > 0.95
    assert distillation.teacher_metrics["f1"] == pytest.approx(metrics["eval_f1"])
    again = BertForTokenClassification.from_pretrained(tmp_path / "student" / "out")
    found = predict(again, other, batch_size=7, prefix="test", progress=lambda done, total: None)
    assert isinstance(found.predictions, Ragged)
    np.testing.assert_array_equal(found.predictions.starts, other.starts)
    assert found.metrics["test_f1"] == pytest.approx(distillation.evaluate()["eval_f1"])


def test_a_user_measures_padded_arrays_as_in_transformers() -> None:
    seen: list[EvalPrediction] = []

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"mine": float((prediction.predictions.argmax(2) == prediction.label_ids).sum())}

    rows, model = tagged_rows(9), tagger()
    plain = {"batch_size": 4, "prefix": "eval", "progress": lambda done, total: None}
    found = predict(model, rows, compute_metrics=compute, **plain).metrics
    longest = max(int((row != NO_LABEL).sum()) for row in rows.targets)
    assert seen[0].predictions.shape == (9, longest, 4)
    assert seen[0].label_ids.shape == (9, longest)
    known = seen[0].label_ids != NO_LABEL
    assert known.sum() == (rows.labels != NO_LABEL).sum()
    assert found["eval_mine"] == pytest.approx(found["eval_accuracy"] * known.sum())
    chosen = predict(model, rows, compute_metrics=choose_metrics("f1_macro"), **plain).metrics
    assert 0 <= chosen["eval_f1_macro"] <= 1


@pytest.mark.filterwarnings("ignore:the teacher.s F1")
def test_a_roberta_tagger_reads_the_first_word_of_a_text_as_it_was_trained(tmp_path: Path) -> None:
    """As the examples of transformers, which save a tokenizer with add_prefix_space=True."""
    plain = kd.AutoTokenizer.from_pretrained(write_vocabulary("roberta", tmp_path / "files"))
    config = kd.RobertaConfig(
        vocab_size=len(plain), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=32, id2label=TAGS,
    )  # fmt: skip
    rows = {"tokens": [["film", "the", "film"], ["the"]], "ner_tags": [[0, 1, 0], [1]]}
    teacher = kd.RobertaForTokenClassification(config, seed=1)
    trainer = DistillationTrainer(
        kd.RobertaForTokenClassification(config, seed=2),
        DistillationTrainingArguments(
            **run_fields(tmp_path, {"max_steps": 1, "eval_strategy": "no", "teacher_cache": False})
        ),
        teacher_model=teacher,
        teacher_processing_class=kd.AutoTokenizer.from_pretrained(tmp_path / "files", add_prefix_space=True),
        train_dataset=rows,
        processing_class=plain,
    )
    trainer.train()
    saved = kd.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(saved) is kd.RobertaTokenizer
    text = plain(" film the film")["input_ids"]
    assert saved("film the film")["input_ids"] == text != plain("film the film")["input_ids"]
    dataset = trainer.train_dataset
    assert dataset is not None
    assert dataset.ids[: len(text)].tolist() == text
