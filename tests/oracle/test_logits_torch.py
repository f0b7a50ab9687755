"""Logits beside PyTorch's, f32 both."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers
from support import reference

import kdistill as kd
from kdistill.tasks.registry import task_for

DEV_BATCH = 128
LENGTHS = [1, 512, 2, 37, 9, 128, 300, 65, 3, 16, 17, 511, 64, 1]


def test_fine_tuned_teacher_on_all_dev_rows(shared_dir: Path) -> None:
    directory = shared_dir / "models" / "minilm-l6-sst2"
    with (shared_dir / "data" / "SST-2" / "dev.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = np.array([int(row["label"]) for row in rows])
    ids = transformers.AutoTokenizer.from_pretrained(directory)([row["sentence"] for row in rows])["input_ids"]
    theirs = transformers.BertForSequenceClassification.from_pretrained(directory).eval()
    ours = kd.BertForSequenceClassification.from_pretrained(directory)
    with torch.inference_mode():
        expected = torch_models.torch_logits(theirs, ids).numpy()
    logits = np.concatenate([ours.forward(kd.pack(ids[i : i + DEV_BATCH])) for i in range(0, len(ids), DEV_BATCH)])
    assert logits.shape == (872, 2)
    assert np.abs(logits - expected).max() <= 1e-4
    assert (logits.argmax(axis=1) == labels).sum() == (expected.argmax(axis=1) == labels).sum()


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        (torch_models.BERT_BASE, [1, 512, 2, 37, 9, 128]),
        (torch_models.BERT_TINY, LENGTHS),
        *(({**torch_models.ODD, "hidden_act": name}, LENGTHS) for name in reference.ACTIVATIONS),
    ],
    ids=["BERT-base", "BERT-Tiny", *(f"odd-{name}" for name in reference.ACTIVATIONS)],
)
def test_wide_random_weights_and_all_lengths_in_one_batch(config: Mapping[str, Any], lengths: list[int]) -> None:
    ours, theirs = torch_models.pair(config, std=0.06, seed=1)
    ids, types = torch_models.random_rows(lengths, config, seed=2)
    with torch.inference_mode():
        expected = torch_models.torch_logits(theirs, ids, types).numpy()
    logits = ours.forward(kd.pack(torch_models.encodings(ids, types)))
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("num_labels", "labels"),
    [
        (1, np.array([0.5, -2.0, 4.0], np.float32)),
        (3, np.array([0, 2, 1])),
        (3, np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]], np.float32)),
    ],
    ids=["regression", "single_label", "multi_label"],
)
def test_the_loss_of_a_call_and_the_deduced_problem_type(num_labels: int, labels: NDArray[Any]) -> None:
    ours, theirs = torch_models.pair({**torch_models.ODD, "num_labels": num_labels}, std=0.06, seed=1)
    ids = [[2, 7, 3], [2, 5, 3], [2, 9, 3]]
    with torch.inference_mode():
        expected = theirs(torch.tensor(ids), labels=torch.tensor(labels)).loss.item()
    assert ours(ids, labels=labels).loss == pytest.approx(expected, rel=1e-5)
    assert task_for(ours.config, labels).name == theirs.config.problem_type
