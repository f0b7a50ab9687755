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
OF_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
OTHERS = ("Roberta", "MPNet")  # whose positions depend on the padding's id
SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}


OF_RUNTIMES = [f"{name}-float32" for name in ("kdistill", "onnxruntime", "openvino", "pytorch")]


def quick(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    for name, value in {"ROUNDS": 1, "PAUSE_SECONDS": 0.0, "SINGLES": 2}.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(
    "kind", [*(f"Bert{ending}" for ending in OF_TASKS), *(f"{name}ForQuestionAnswering" for name in OTHERS)]
)
def test_peers_give_the_same_logits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    config = getattr(kd, f"{kind.partition('For')[0]}Config")(**SIZES, num_labels=2 if "Question" in kind else 3)
    _compare(monkeypatch, getattr(kd, kind)(config, seed=1))


@pytest.mark.parametrize(
    ("name", "pooling", "normalize"),
    [("Bert", "mean", True), ("MPNet", "cls", False)],
)
def test_peers_give_the_same_embeddings(
    monkeypatch: pytest.MonkeyPatch, name: str, pooling: str, normalize: bool
) -> None:
    encoder = getattr(kd, f"{name}Model")(getattr(kd, f"{name}Config")(**SIZES), seed=1)
    _compare(monkeypatch, encoder.with_pooling(pooling, normalize))


def _compare(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    quick(monkeypatch, bench)
    programs = bench.bench(model, bench.synthetic_rows(model.config, 20), batch_size=4)["programs"]
    assert programs["PyTorch"]["largest_difference"] < TOLERANCE
    assert programs["PyTorch"]["p99_ms"] >= programs["PyTorch"]["median_ms"] > 0
    for name, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if all(map(importlib.util.find_spec, ("onnx", package))):
            assert programs[name]["largest_difference"] < TOLERANCE
            assert "left_out" not in programs[name]
        else:
            assert programs[name].startswith("not installed (o")


def small_bert(**changes: Any) -> kd.BertForSequenceClassification:
    return kd.BertForSequenceClassification(kd.BertConfig(**(SIZES | changes), num_labels=3), seed=1)


def test_pruned_heads_are_measured_where_a_program_has_a_form_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch, bench)
    model = small_bert(pruned_heads={0: [1], 1: [0, 2]}, intermediate_sizes=[64, 24])
    programs = bench.bench(model, bench.synthetic_rows(model.config, 9), batch_size=4)["programs"]
    assert programs["PyTorch"].startswith("cannot run it: its config.json has pruned_heads")
    for name, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if all(map(importlib.util.find_spec, ("onnx", package))):
            assert programs[name]["largest_difference"] < TOLERANCE
            assert "left_out" not in programs[name]


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "openvino"))), reason="needs onnx")
@pytest.mark.parametrize(
    ("model", "programs"),
    [
        (small_bert(), [name for name in exports.PROGRAMS if name != "artefact"]),
        (kd.BertForMaskedLM(kd.BertConfig(**SIZES), seed=1), OF_RUNTIMES),
        (kd.MPNetModel(kd.MPNetConfig(**SIZES), seed=1).with_pooling("mean", True), OF_RUNTIMES),
    ],
    ids=["classifier", "language model", "embedder"],
)
def test_all_forms_of_a_model_answer_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, programs: list[str]
) -> None:
    quick(monkeypatch, exports)
    model.save_pretrained(tmp_path)
    rows = bench.synthetic_rows(model.config, 9)
    seen: list[Any] = []
    of_logits = exports._of_logits
    monkeypatch.setattr(exports, "_of_logits", lambda logits, *rest: seen.append(logits) or of_logits(logits, *rest))
    figures = exports.bench_exports([(exports.Subject("it", tmp_path, rows), programs)], batch_size=4)
    assert [of.get("left_out") for of in figures["measured"]] == [None] * len(programs)
    for name, logits in zip(programs, seen, strict=True):
        np.testing.assert_allclose(logits, seen[0], atol=TOLERANCE if name.endswith("float32") else 0.2, err_msg=name)
