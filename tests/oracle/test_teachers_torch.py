"""Models of PyTorch that teach as functions, alone and beside a model of kdistill, against the loss in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_run import run_fields, sentences, small_model, write_model

import kdistill as kd

pytestmark = pytest.mark.filterwarnings("ignore:the teacher", "ignore:no eval_dataset", "ignore:teacher")
TEXTS = [text for text, _ in sentences(8)]
LABELS = [label for _, label in sentences(8)]
ALPHA, TEMPERATURE, WEIGHTS = 0.25, 3.0, (0.6, 0.4)


class Letters(torch.nn.Module):
    """A model of another family: a GRU over the letters of a text."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embed, self.read = torch.nn.Embedding(128, 8), torch.nn.GRU(8, 16, batch_first=True)
        self.classify = torch.nn.Linear(16, 2)

    def forward(self, texts: list[str]) -> torch.Tensor:
        last = [self.read(self.embed(torch.tensor([[ord(letter) for letter in text]])))[1][0, 0] for text in texts]
        found: torch.Tensor = self.classify(torch.stack(last)) * 8
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_of_pytorch_teaches_beside_one_of_kdistill(tmp_path: Path, dtype: torch.dtype) -> None:
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "bert"))
    letters, teacher = Letters(), small_model(7)
    student = small_model(2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    batch = kd.pack(dict(tokenizer(TEXTS)))
    each = [letters(TEXTS).detach().to(dtype).double(), torch.tensor(teacher.forward(batch)).double()]
    logits = torch.tensor(student.forward(batch)).double()
    target = sum(w * torch.softmax(of / TEMPERATURE, dim=1) for w, of in zip(WEIGHTS, each, strict=True))
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(logits / TEMPERATURE, dim=1), torch.as_tensor(target), reduction="batchmean"
    )
    hard = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    expected = float(ALPHA * hard + (1 - ALPHA) * TEMPERATURE**2 * soft)

    def function(texts: list[str]) -> Any:
        return letters(texts).to(dtype)  # with its gradient

    fields = {
        "max_steps": 1,
        "alpha": ALPHA,
        "temperature": TEMPERATURE,
        "logging_steps": 1,
        "logging_strategy": "steps",
    }
    trainer = kd.DistillationTrainer(
        student,
        kd.DistillationTrainingArguments(**run_fields(tmp_path, {**fields, "teacher_dtype": "float32"})),
        teacher_model=[function, teacher],
        teacher_weights=WEIGHTS,
        train_dataset=[{"sentence": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_module_is_a_function_and_a_model_of_transformers_is_neither(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "bert"))
    given: dict[str, Any] = {"train_dataset": TEXTS, "processing_class": tokenizer}
    args = kd.DistillationTrainingArguments(**run_fields(tmp_path, {"max_steps": 1, "alpha": 0.0}))
    letters = Letters()
    trainer = kd.DistillationTrainer(small_model(2), args, teacher_model=letters, **given)
    trainer.train()
    np.testing.assert_allclose(trainer.objective.answers[0], letters(TEXTS).detach().numpy(), atol=1e-6)
    config = transformers.DebertaV2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.DebertaV2ForSequenceClassification(config)
    with pytest.raises(TypeError, match=r"expected a model of kdistill: .* or a function that gives texts its logits"):
        kd.DistillationTrainer(small_model(2), args, teacher_model=model, **given)
