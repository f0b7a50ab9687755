"""What a model is told to differ in from the one that it was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.small_run import small_config, small_dataset, small_model

import kdistill as kd
from kdistill.compress.before_after import compared
from kdistill.compress.int8_card import card
from kdistill.train.arguments import TrainingArguments

ARGS = TrainingArguments(disable_tqdm=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean KL(reference || logits)."""
    p, q = log_softmax(reference), log_softmax(logits)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def test_agreement_divergence_and_mcnemar_have_the_first_model_as_reference() -> None:
    before, after, rows = small_model(1), small_model(5), small_dataset(60)
    figures = compared(before, after, rows, ARGS, names=("before", "after"))
    first, second = (model.forward(rows.batch(np.arange(60))[0]) for model in (before, after))
    same = (first.argmax(axis=1) == second.argmax(axis=1)).mean()
    assert 0 < same < 1
    assert figures["agreement"] == same
    np.testing.assert_allclose(figures["divergence"], divergence(first, second), rtol=1e-5)
    assert abs(divergence(first, second) / divergence(second, first) - 1) > 1e-3
    right = [logits.argmax(axis=1) == rows.labels for logits in (first, second)]
    alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert alone[0] != alone[1]
    assert [figures["mcnemar"]["only_first"], figures["mcnemar"]["only_second"]] == alone
    shown: Any = figures | {"embeddings": "int8", "bytes_after": 1, "size_ratio": 0.25}
    text = card(before, "me/model", "rows.tsv", "int8", shown | {"golden_rows": 8, "golden_tolerance": 0.1})
    assert f"The original alone has {alone[0]} right, int8 alone {alone[1]}: McNemar's test" in text
    assert 'base_model: "me/model"' in text
    for name in ("model", "a/b/model", None):
        of_a_path = card(before, name, "rows.tsv", "int8", shown | {"golden_rows": 8, "golden_tolerance": 0.1})
        assert "base_model" not in of_a_path


def test_tokens_that_are_not_labelled_do_not_count() -> None:
    config = small_config(initializer_range=0.4, id2label={0: "O", 1: "B-x", 2: "I-x"})
    before, after = (kd.BertForTokenClassification(config, seed=seed) for seed in (1, 2))
    words = small_dataset(20)
    labels = np.where((words.ids >= 5) & (words.ids < 9), words.ids % 3, -100).astype(np.int64)
    rows = kd.Dataset(words.ids, words.types, words.starts, labels, per_token=True)
    figures = compared(before, after, rows, ARGS, names=("before", "after"))
    batch = rows.batch(np.arange(20))[0]
    first, second = (model.forward(batch) for model in (before, after))
    counted = labels != -100
    same = first.argmax(axis=1) == second.argmax(axis=1)
    assert same[counted].mean() != same.mean()
    assert figures["agreement"] == same[counted].mean()
    np.testing.assert_allclose(figures["divergence"], divergence(first[counted], second[counted]), rtol=1e-5)
