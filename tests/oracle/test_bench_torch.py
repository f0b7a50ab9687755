"""`kdistill bench` beside real peers: they evaluate the same model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdistill.bench import bench
from kdistill.bench.other_runtimes import PaddedBatch, load_torch, torch_forward
from kdistill.data.batch import pack
from kdistill.models.classes import BertForSequenceClassification, MPNetForSequenceClassification
from kdistill.models.config import BertConfig, MPNetConfig

# Logits here are of the order 1; the peers differ by roundings of sums of up to 64 products.
TOLERANCE = 1e-5


def test_peers_give_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=3,
        initializer_range=0.3,
    )
    model = BertForSequenceClassification(config, seed=1)
    programs = bench.bench(model, bench.synthetic_rows(config, 20), batch_size=4)["programs"]
    assert programs["PyTorch"]["largest_difference"] < TOLERANCE
    assert programs["PyTorch"]["p99_ms"] >= programs["PyTorch"]["median_ms"] > 0
    if all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        assert programs["ONNX Runtime"]["largest_difference"] < TOLERANCE
    else:
        assert programs["ONNX Runtime"].startswith("not installed (onnx")


def test_pytorch_evaluates_an_architecture_without_fused_attention(tmp_path: Path) -> None:
    """MPNet, whose scores have a bias by position, is computed without it by transformers."""
    config = MPNetConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.3,
    )  # fmt: skip
    model = MPNetForSequenceClassification(config, seed=1)
    model.save_pretrained(tmp_path)
    ids = np.arange(5, 35).reshape(2, 15)
    batch = PaddedBatch(np.arange(2), ids, np.ones_like(ids), full=True)
    logits = torch_forward(load_torch(tmp_path))(batch)
    assert np.abs(logits - model.forward(pack(ids.tolist()))).max() < TOLERANCE
