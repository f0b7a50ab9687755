"""What a person hands to another process or copies comes out equal, to the bit."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bert_cases import SMALL, gradient, random_dlogits, wide_model
from support.small_run import write_model

import kdistill as kd
from kdistill.metrics.prediction import EvalPrediction


@pytest.fixture
def words(tmp_path: Path) -> kd.PreTrainedTokenizerFast:
    return kd.AutoTokenizer.from_pretrained(write_model(tmp_path / "model"))


ROWS = [[1, 2, 3], [4], [5, 6, 7, 8]]
WAYS = pytest.mark.parametrize("way", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])


def trained(frozen: bool) -> kd.BertForSequenceClassification:
    """A model with updates that it still has to apply, unless they are applied by freezing."""
    model = wide_model(**SMALL, hidden_dropout_prob=0.1)
    optimizer = kd.AdamW(model, lr=0.1)
    for _ in range(2):
        gradient(model, kd.pack(ROWS), random_dlogits(model, 3))
        optimizer.step()
    return model.freeze() if frozen else model


@WAYS
@pytest.mark.parametrize("frozen", [False, True])
def test_a_model(way: Callable[[Any], Any], frozen: bool) -> None:
    model = trained(frozen)
    other = way(model)
    np.testing.assert_array_equal(other.forward([[9, 10], [1]]), model.forward([[9, 10], [1]]))
    assert other.weights_hash() == model.weights_hash()
    assert other.config == model.config
    assert not np.shares_memory(other.flat_parameters, model.flat_parameters)
    if way is not copy.deepcopy:  # which makes a new student of a model
        assert other.frozen == frozen
        assert (other.optimizer_step, other.tokens_in_step) == (model.optimizer_step, model.tokens_in_step)
        if not frozen:
            np.testing.assert_array_equal(other.forward(ROWS, train=True), model.forward(ROWS, train=True))


def answer(model: kd.BertForSequenceClassification, rows: list[list[int]], words: Any) -> NDArray[np.float32]:
    return np.append(model.forward(rows).ravel(), words(["a text", "another"])["input_ids"][0])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_and_a_tokenizer_in_another_process(frozen: bool, words: kd.PreTrainedTokenizerFast) -> None:
    model = trained(frozen)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(answer, (model, ROWS, words))
    np.testing.assert_array_equal(found, answer(model, ROWS, words))


@WAYS
@pytest.mark.parametrize(
    "value",
    [
        kd.BertConfig(id2label={0: "no", 1: "yes"}, hidden_act="silu"),
        kd.pack(ROWS),
        kd.Dataset(*kd.pack(ROWS), np.array([0, 1, 0])),
        kd.TrainingArguments(output_dir="out", learning_rate=1e-4),
        kd.DistillationTrainingArguments(output_dir="out", alpha=0.3),
        EvalPrediction(np.ones((2, 2), np.float32), np.array([0, 1])),
        kd.TrainerState(global_step=3),
        kd.SequenceClassifierOutput(0.5, np.ones((1, 2), np.float32)),
        kd.EarlyStoppingCallback(early_stopping_patience=2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_belongs_to_a_model(way: Callable[[Any], Any], value: Any) -> None:
    other = way(value)
    assert type(other) is type(value)
    fields = getattr(value, "__dict__", None) or getattr(value, "_asdict", dict)()
    for name, field in fields.items():
        np.testing.assert_array_equal(getattr(other, name), field)


@WAYS
def test_a_tokenizer(way: Callable[[Any], Any], words: kd.PreTrainedTokenizerFast) -> None:
    other = way(words)
    assert other(["A text, another"]) == words(["A text, another"])
    assert other.vocab == words.vocab


@WAYS
def test_metrics_and_a_pipeline(way: Callable[[Any], Any], words: kd.PreTrainedTokenizerFast) -> None:
    prediction = EvalPrediction(np.eye(2, dtype=np.float32), np.array([0, 0]))
    metrics = kd.choose_metrics("accuracy", "f1")
    assert way(metrics)(prediction) == metrics(prediction)
    model = wide_model(**SMALL, vocab_size=len(words.vocab))
    classify = kd.TextClassificationPipeline(model, words)
    assert way(classify)("a text") == classify("a text")
