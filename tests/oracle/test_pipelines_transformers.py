"""Pipeline, collator and state_dict against those of transformers and torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import torch_models
import transformers
from support.small_run import VOCABULARY, sentences, write_model

import kdistill as kd

LABELS = {0: "negative", 1: "neutral", 2: "positive"}
TEXTS = [text for text, _ in sentences(12)]


def both_pipelines(directory: Path, **settings: Any) -> tuple[Any, Any]:
    tokenizer = transformers.BertTokenizer(vocab=str(directory / "vocab.txt"))
    theirs = transformers.pipeline("text-classification", str(directory), tokenizer=tokenizer, device="cpu", **settings)
    return kd.pipeline("text-classification", str(directory), **settings), theirs


def check_equal(ours: Any, theirs: Any) -> None:
    """The same lists and dictionaries, with scores to the rounding of float32."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            check_equal(one, other)
    else:
        assert ours.keys() == theirs.keys()
        assert ours["label"] == theirs["label"]
        assert ours["score"] == pytest.approx(theirs["score"], rel=2e-5, abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": LABELS},
        {"id2label": LABELS, "problem_type": "single_label_classification"},
        {"id2label": LABELS, "problem_type": "multi_label_classification"},
        {"id2label": {0: "stars"}, "problem_type": "regression"},
        {"id2label": {0: "stars"}},
    ],
    ids=lambda changes: f"{len(changes['id2label'])} {changes.get('problem_type')}",
)
@pytest.mark.parametrize("settings", [{}, {"top_k": None}, {"top_k": 1}, {"top_k": 2}, {"function_to_apply": "none"}])
def test_results_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any]) -> None:
    directory = write_model(tmp_path / "model", **changes)
    pairs = [{"text": text, "text_pair": "great plot"} for text in TEXTS]
    ours, theirs = both_pipelines(directory, **settings)
    for inputs in (TEXTS[0], TEXTS, TEXTS[:1], pairs[0], pairs):
        check_equal(ours(inputs), theirs(inputs))
    ours, theirs = both_pipelines(directory)
    for inputs in (TEXTS[0], TEXTS, pairs[0]):
        check_equal(ours(inputs, **settings), theirs(inputs, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "longest"},
        {"padding": "max_length", "max_length": 20},
        {"pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 13, "pad_to_multiple_of": 8},
    ],
)
def test_collator_is_that_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    theirs = transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
    ours = kd.AutoTokenizer.from_pretrained(tmp_path)
    rows = [{**ours(text), "label": label} for text, label in sentences(5)]
    expected = transformers.DataCollatorWithPadding(theirs, return_tensors="np", **settings)(rows)
    result = kd.DataCollatorWithPadding(ours, **settings)(rows)
    assert set(result) == set(expected)
    for name, array in result.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    model = kd.BertForSequenceClassification(kd.BertConfig(**torch_models.BERT_TINY))
    del result["labels"]
    np.testing.assert_array_equal(model(**result).logits, model([row["input_ids"] for row in rows]).logits)


def test_state_dict_goes_both_ways() -> None:
    ours, theirs = torch_models.pair(torch_models.ODD, std=0.05, seed=1)
    state = ours.state_dict()
    assert set(state) == set(theirs.state_dict())
    fresh = torch_models.torch_model(torch_models.ODD, std=0.05, seed=2)
    fresh.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
    for name, value in theirs.named_parameters():
        np.testing.assert_array_equal(fresh.get_parameter(name).detach().numpy(), value.detach().numpy())

    other = kd.BertForSequenceClassification(ours.config, seed=5)
    assert other.load_state_dict(theirs.state_dict()) == ([], [])
    np.testing.assert_array_equal(other.flat_parameters, ours.flat_parameters)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for settings in ({}, {"exclude_embeddings": True}, {"only_trainable": True}):
        assert ours.num_parameters(**settings) == theirs.num_parameters(**settings)
