"""A language model that a run has trained, beside transformers: the same loss of the same hidden words there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from support.small_questions import question_tokenizer
from support.small_texts import documents, language_model, text_fields

import kdistill as kd


def test_a_trained_model_opens_in_transformers_with_the_loss_of_its_evaluation(tmp_path: Path) -> None:
    tokenizer = question_tokenizer(tmp_path)
    args = kd.TrainingArguments(**text_fields(tmp_path))
    texts: Any = {"train_dataset": documents(48), "eval_dataset": documents(24, 1), "processing_class": tokenizer}
    made = kd.Trainer(language_model(), args, **texts)
    made.train()
    rows: Any = made.eval_dataset
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    losses = []
    for start, end in zip(rows.starts, rows.starts[1:], strict=False):
        labels = torch.tensor(rows.labels[start:end])
        with torch.inference_mode():
            logits = theirs(input_ids=torch.tensor(rows.ids[None, start:end])).logits[0]
        losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none")[labels != -100].tolist()
    assert made.results["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    fill = transformers.pipeline("fill-mask", model=theirs, tokenizer=words)
    text = "good [MASK] good great"
    ours = kd.pipeline("fill-mask", str(tmp_path / "out"))(text)
    assert [word["token_str"] for word in ours] == [word["token_str"] for word in fill(text)]
