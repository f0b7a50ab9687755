"""`pipeline("text-classification")`: the forms of its results, and its scores against their formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_run import small_model, write_model

import kdistill as kd

TEXTS = ["good film", "bad plot scene", "awful actor film plot film"]
LABELS = {0: "negative", 1: "neutral", 2: "positive"}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", id2label=LABELS)


def logits_of(directory: Path, *texts: Any) -> np.ndarray:
    tokenizer = kd.AutoTokenizer.from_pretrained(directory)
    model = kd.AutoModelForSequenceClassification.from_pretrained(directory)
    return model(**tokenizer(*texts)).logits.astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_best_label_of_each_text(model_dir: Path) -> None:
    classify = kd.pipeline("text-classification", model=str(model_dir))
    expected = softmax(logits_of(model_dir, TEXTS))
    results = classify(TEXTS)
    assert [result["label"] for result in results] == [LABELS[int(row.argmax())] for row in expected]
    np.testing.assert_allclose([result["score"] for result in results], expected.max(axis=1), rtol=1e-6)
    assert classify(TEXTS[0]) == results[:1]
    assert classify(iter(TEXTS)) == results
    assert classify(TEXTS, batch_size=2) == results
    assert classify([]) == []


@pytest.mark.parametrize("top_k", [None, 1, 2, 9])
def test_labels_by_score(model_dir: Path, top_k: int | None) -> None:
    classify = kd.pipeline(model=model_dir, top_k=top_k)
    expected = softmax(logits_of(model_dir, TEXTS))
    results = classify(TEXTS)
    for result, row in zip(results, expected, strict=True):
        order = np.argsort(-row)[:top_k]
        assert [entry["label"] for entry in result] == [LABELS[int(index)] for index in order]
        np.testing.assert_allclose([entry["score"] for entry in result], row[order], rtol=1e-6)
    assert classify(TEXTS[0]) == results[:1]
    assert classify(TEXTS[0], top_k=top_k) == results[0]
    assert kd.pipeline(model=model_dir)(TEXTS, top_k=top_k) == results


def test_pairs(model_dir: Path) -> None:
    classify = kd.pipeline("sentiment-analysis", model_dir)
    pairs = [{"text": text, "text_pair": "great scene"} for text in TEXTS]
    results = classify(pairs)
    expected = softmax(logits_of(model_dir, TEXTS, ["great scene"] * 3))
    np.testing.assert_allclose([result["score"] for result in results], expected.max(axis=1), rtol=1e-6)
    assert classify(pairs[1]) == results[1]
    with pytest.raises(ValueError, match="single texts and pairs; expected one kind"):
        classify([*pairs, "good film"])
    with pytest.raises(ValueError, match=r"inputs\[1\] is \['good', 'bad'\]; expected a text or"):
        classify(["good film", ["good", "bad"]])


@pytest.mark.parametrize(
    ("changes", "function"),
    [
        ({"problem_type": "regression", "num_labels": 1}, lambda x: x),
        ({"num_labels": 1}, lambda x: 1 / (1 + np.exp(-x))),
        ({"problem_type": "multi_label_classification"}, lambda x: 1 / (1 + np.exp(-x))),
        ({"problem_type": "single_label_classification"}, softmax),
    ],
)
def test_scores_by_problem_type(tmp_path: Path, changes: dict[str, Any], function: Any) -> None:
    labels = {} if "num_labels" in changes else {"id2label": LABELS}
    directory = write_model(tmp_path / "model", **({"id2label": None} | labels | changes))
    expected = function(logits_of(directory, TEXTS))
    results = kd.pipeline(model=directory, top_k=1)(TEXTS)
    np.testing.assert_allclose([result[0]["score"] for result in results], expected.max(axis=1), rtol=1e-6)
    raw = kd.pipeline(model=directory, function_to_apply="none")(TEXTS)
    np.testing.assert_allclose([result["score"] for result in raw], logits_of(directory, TEXTS).max(axis=1), rtol=1e-6)


def test_long_texts_are_cut_to_what_the_model_reads(model_dir: Path) -> None:
    classify = kd.pipeline(model=model_dir)
    with pytest.warns(UserWarning, match=r"1 of 2 texts \(50.0%\) were longer than 16 tokens and truncated"):
        long, short = classify(["good " * 40, "good " * 14])
    assert long == short
    assert classify("good " * 40) == classify("good " * 14)  # said once
    assert classify("good " * 40, max_length=5) == classify("good " * 3)
    with pytest.raises(ValueError, match="16"):
        classify("good " * 40, truncation=False, max_length=None)


def test_what_it_is_made_from(model_dir: Path) -> None:
    model, tokenizer = small_model(), kd.AutoTokenizer.from_pretrained(model_dir)
    assert kd.pipeline(model=model, tokenizer=tokenizer)("good film") == kd.TextClassificationPipeline(
        model, tokenizer
    )("good film")
    assert kd.pipeline(model=model, tokenizer=str(model_dir), device="cpu")("good film")
    with pytest.raises(ValueError, match="tokenizer is None; expected that of the model"):
        kd.pipeline(model=model)
    with pytest.raises(ValueError, match="model is None"):
        kd.pipeline("text-classification")
    with pytest.raises(ValueError, match=r"task is 'text-clas'; expected .*did you mean 'text-classification'"):
        kd.pipeline("text-clas", model)
    with pytest.raises(ValueError, match="device is 'cuda:0'; expected 'cpu'"):
        kd.pipeline(model=model_dir, device="cuda:0")
    with pytest.raises(TypeError, match="inputs is 3 of type int; expected a text or several"):
        kd.pipeline(model=model_dir)(3)
    with pytest.raises(ValueError, match="function_to_apply is 'relu'; expected one of"):
        kd.pipeline(model=model_dir)("good", function_to_apply="relu")
