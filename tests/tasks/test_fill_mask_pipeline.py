"""`FillMaskPipeline`: scores are the softmax of the model's logits; its forms of answers and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import reference

import kdistill as kd
from kdistill.tasks.fill_mask_pipeline import FillMaskPipeline

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "on", "a", "mat", "##s", "."]
ONE, TWO = "the [MASK] sat on a mat .", "the [MASK] sat on a [MASK]"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("words")
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return kd.AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def model() -> kd.BertForMaskedLM:
    config = kd.BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    return kd.BertForMaskedLM(config, seed=1)


@pytest.fixture(scope="module")
def pipeline(model: kd.BertForMaskedLM, tokenizer: Any) -> FillMaskPipeline:
    return FillMaskPipeline(model, tokenizer)


def probabilities(model: kd.BertForMaskedLM, tokenizer: Any, text: str) -> tuple[list[int], reference.Array]:
    """Return the ids of a text and the probabilities of its masks, from all logits."""
    ids = tokenizer(text)["input_ids"]
    return ids, reference.softmax(model([ids]).logits[0][np.array(ids) == 4].astype(np.float64))


def test_the_most_probable_words_come_first(pipeline: FillMaskPipeline, model: Any, tokenizer: Any) -> None:
    ids, expected = probabilities(model, tokenizer, ONE)
    words = pipeline(ONE)
    assert [word["token"] for word in words] == np.argsort(-expected[0])[:5].tolist()
    for word in words:
        assert word["score"] == pytest.approx(expected[0, word["token"]], rel=1e-6)
        assert word["token_str"] == tokenizer.decode([word["token"]])
        filled = [word["token"] if i == 4 else i for i in ids]
        assert word["sequence"] == tokenizer.decode(filled, skip_special_tokens=True)


def test_each_mask_of_a_text_has_its_words(pipeline: FillMaskPipeline, model: Any, tokenizer: Any) -> None:
    _, expected = probabilities(model, tokenizer, TWO)
    first, second = pipeline(TWO, top_k=2)
    assert [word["token"] for word in first] == np.argsort(-expected[0])[:2].tolist()
    assert [word["token"] for word in second] == np.argsort(-expected[1])[:2].tolist()
    assert first[0]["sequence"].count("[MASK]") == second[0]["sequence"].count("[MASK]") == 1


def test_many_texts_have_the_answers_of_each_alone(pipeline: FillMaskPipeline) -> None:
    texts = [ONE, TWO, "a [MASK]", ONE]
    assert pipeline(texts, batch_size=3) == [pipeline(text) for text in texts]
    assert pipeline([ONE]) == pipeline(ONE)


def test_targets_are_compared_alone(pipeline: FillMaskPipeline) -> None:
    every = {word["token_str"]: word["score"] for word in pipeline(ONE, top_k=len(WORDS))}
    words = pipeline(ONE, targets=["dog", "cat"])
    assert {word["token_str"]: word["score"] for word in words} == {name: every[name] for name in ("dog", "cat")}
    with pytest.warns(UserWarning, match=r"targets has 'cats', which is no word; 'cat' takes its place"):
        assert pipeline(ONE, targets="cats")[0]["token_str"] == "cat"


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        ("the cat", {}, r"inputs\[0\] has no \[MASK\] among its first 16 tokens; expected one where a word"),
        ([ONE, "the cat"], {}, r"inputs\[1\] has no \[MASK\]"),
        (f"film {ONE}", {"tokenizer_kwargs": {"truncation": True, "max_length": 3}}, "among its first 3 tokens"),
        (ONE, {"top_k": 0}, "top_k is 0; expected at least 1"),
        (ONE, {"targets": []}, "targets has no word of the vocabulary"),
        (ONE, {"targets": ["cat", 3]}, "targets has 3 of type int; expected words"),
        (ONE, {"targets": 3}, "targets has 3 of type int; expected words"),
        (ONE, {"tokenizer_kwargs": True}, "tokenizer_kwargs is True of type bool; expected a dict of arguments"),
    ],
)
def test_what_it_cannot_fill_is_refused(
    pipeline: FillMaskPipeline, inputs: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipeline(inputs, **settings)


def test_the_function_pipeline_loads_the_model(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = kd.pipeline("fill-mask", str(tmp_path), top_k=2)
    assert loaded(ONE) == FillMaskPipeline(model, tokenizer)(ONE)[:2]


def test_a_classifier_is_refused(model: kd.BertForMaskedLM, tokenizer: Any) -> None:
    classifier: Any = kd.BertForSequenceClassification(model.config)
    with pytest.raises(
        ValueError, match="model is a BertForSequenceClassification; expected one for masked-lm: AutoModelForMaskedLM"
    ):
        FillMaskPipeline(classifier, tokenizer)
