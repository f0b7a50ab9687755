"""`kdistill bench` beside real peers: they evaluate the same model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdistill as kd
from kdistill.bench import bench, exports

# Logits here are of the order 1; the peers differ by roundings of sums of up to 64 products.
TOLERANCE = 1e-5
OF_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
OTHERS = ("Roberta", "MPNet")  # whose positions depend on the padding's id


@pytest.mark.parametrize(
    "kind", [*(f"Bert{ending}" for ending in OF_TASKS), *(f"{name}ForQuestionAnswering" for name in OTHERS)]
)
def test_peers_give_the_same_logits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(bench, "SINGLES", 3)
    config = getattr(kd, f"{kind.partition('For')[0]}Config")(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=2 if "Question" in kind else 3,
        initializer_range=0.3,
    )
    model = getattr(kd, kind)(config, seed=1)
    programs = bench.bench(model, bench.synthetic_rows(config, 20), batch_size=4)["programs"]
    assert programs["PyTorch"]["largest_difference"] < TOLERANCE
    assert programs["PyTorch"]["p99_ms"] >= programs["PyTorch"]["median_ms"] > 0
    for name, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if all(map(importlib.util.find_spec, ("onnx", package))):
            assert programs[name]["largest_difference"] < TOLERANCE
            assert "left_out" not in programs[name]
        else:
            assert programs[name].startswith("not installed (o")


def small_bert(**changes: Any) -> kd.BertForSequenceClassification:
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = kd.BertConfig(**sizes, intermediate_size=64, num_labels=3, initializer_range=0.3, **changes)
    return kd.BertForSequenceClassification(config, seed=1)


def test_pruned_heads_are_measured_where_a_program_has_a_form_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 1, "PAUSE_SECONDS": 0.0, "SINGLES": 2}.items():
        monkeypatch.setattr(bench, name, value)
    model = small_bert(pruned_heads={0: [1], 1: [0, 2]}, intermediate_sizes=[64, 24])
    programs = bench.bench(model, bench.synthetic_rows(model.config, 9), batch_size=4)["programs"]
    assert programs["PyTorch"].startswith("cannot run it: its config.json has pruned_heads")
    for name, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if all(map(importlib.util.find_spec, ("onnx", package))):
            assert programs[name]["largest_difference"] < TOLERANCE
            assert "left_out" not in programs[name]


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "openvino"))), reason="needs onnx")
def test_all_forms_of_a_model_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 1, "PAUSE_SECONDS": 0.0, "SINGLES": 2}.items():
        monkeypatch.setattr(exports, name, value)
    model = small_bert()
    model.save_pretrained(tmp_path)
    rows = bench.synthetic_rows(model.config, 9)
    seen: list[Any] = []
    of_logits = exports._of_logits
    monkeypatch.setattr(exports, "_of_logits", lambda logits, *rest: seen.append(logits) or of_logits(logits, *rest))
    names = [name for name in exports.PROGRAMS if name != "artefact"]
    figures = exports.bench_exports([(exports.Subject("it", tmp_path, rows), names)], batch_size=4)
    assert [of.get("left_out") for of in figures["measured"]] == [None] * len(names)
    for name, logits in zip(names, seen, strict=True):
        np.testing.assert_allclose(logits, seen[0], atol=TOLERANCE if name.endswith("float32") else 0.2, err_msg=name)
