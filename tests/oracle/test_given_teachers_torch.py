"""A teacher of another family, a DeBERTa of transformers with random weights, teaches by its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import VOCABULARY, run_fields, sentences, small_model, weights

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import kdistill as kd

ALPHA, TEMPERATURE, ROWS, STEPS = 0.4, 3.0, 32, 6
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore:.*the teacher's accuracy is", "ignore:.*no better than")


class Deberta:
    """Answers texts, each by itself, so that its bits do not depend on what it is asked together."""

    def __init__(self, tokenizer: Any) -> None:
        torch.manual_seed(0)
        config = transformers.DebertaV2Config(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            pooler_hidden_size=16,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            initializer_range=0.4,
            num_labels=2,
        )
        self.model = transformers.DebertaV2ForSequenceClassification(config).eval()
        self.tokenizer = tokenizer

    def __call__(self, texts: list[Any]) -> np.ndarray:
        with torch.no_grad():
            ids = [torch.tensor([self.tokenizer(str(text))["input_ids"]]) for text in texts]
            return np.concatenate([self.model(input_ids=of).logits.numpy() for of in ids])


def train(directory: Path, tokenizer: Any, rows: dict[str, Any], **given: Any) -> kd.DistillationTrainer:
    fields = {"alpha": ALPHA, "temperature": TEMPERATURE, "max_steps": STEPS, "logging_steps": 1, "eval_strategy": "no"}
    args = kd.DistillationTrainingArguments(**run_fields(directory, fields | {"report_to": "none"}))
    trainer = kd.DistillationTrainer(
        small_model(2, **NO_DROPOUT), args, train_dataset=rows, processing_class=tokenizer, **given
    )
    trainer.train()
    return trainer


def losses(trainer: kd.DistillationTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return kd.BertTokenizerFast.from_pretrained(tmp_path)


def test_logits_of_a_deberta_in_a_column_have_pytorchs_loss(tmp_path: Path, tokenizer: Any) -> None:
    texts, labels = zip(*sentences(ROWS), strict=True)
    logits = Deberta(tokenizer)(list(texts))
    assert np.ptp(logits, axis=0).min() > 0.01  # it tells the texts apart
    rows = {"text": list(texts), "label": list(labels), "teacher_logits": logits.tolist()}
    trainer = train(tmp_path, tokenizer, rows)
    rows_of_run = trainer.train_dataset
    assert rows_of_run is not None
    np.testing.assert_array_equal(rows_of_run.teacher_logits, logits)
    student, step = small_model(2, **NO_DROPOUT), next(trainer.recipe.new_plan(rows_of_run).rows_of_epoch(0, 0))
    z = torch.tensor(student.forward(rows_of_run.batch(step)[0]), dtype=torch.float64)
    t, y = torch.tensor(logits[step], dtype=torch.float64), torch.tensor(np.array(labels)[step])
    soft = torch.nn.functional.kl_div(
        (z / TEMPERATURE).log_softmax(1), (t / TEMPERATURE).softmax(1), reduction="batchmean"
    )
    expected = ALPHA * torch.nn.functional.cross_entropy(z, y) + (1 - ALPHA) * TEMPERATURE**2 * soft
    assert losses(trainer)[0] == pytest.approx(expected.item(), rel=1e-5)
    assert losses(trainer)[-1] < losses(trainer)[0]


def test_a_column_teaches_as_the_model_as_callable_does(tmp_path: Path, tokenizer: Any) -> None:
    texts, labels = zip(*sentences(ROWS), strict=True)
    deberta = Deberta(tokenizer)
    rows = {"text": list(texts), "label": list(labels)}
    asked = train(tmp_path / "asked", tokenizer, rows, teacher_model=deberta)
    column = {**rows, "teacher_logits": deberta(list(texts)).tolist()}
    given = train(tmp_path / "given", tokenizer, column)
    assert losses(given) == losses(asked)
    np.testing.assert_array_equal(weights(given.model), weights(asked.model))
