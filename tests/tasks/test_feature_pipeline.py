"""`FeatureExtractionPipeline`: vectors of tokens and embeddings of texts, in batches as alone; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_questions import question_tokenizer
from support.small_run import small_config

import kdistill as kd
from kdistill.models.trained_with import TrainedWith

TEXTS = ["good film", "bad", "great plot actor scene"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return question_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def model() -> Any:
    return kd.BertModel(small_config(initializer_range=0.3), seed=1)


def test_vectors_of_tokens_are_nested_lists(model: Any, tokenizer: Any) -> None:
    pipe = kd.pipeline("feature-extraction", model, tokenizer, batch_size=2)
    found = pipe(TEXTS)
    for one, row in zip(found, model(tokenizer(TEXTS)["input_ids"]).last_hidden_state, strict=True):
        assert isinstance(one, list)
        np.testing.assert_array_equal(np.float32(one), row[None])
    assert pipe(TEXTS[0]) == found[0]
    array = pipe(TEXTS[0], return_tensors=True)
    assert (array.shape, array.dtype) == ((1, 4, 16), np.float32)


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_embeddings_are_the_same_alone_and_in_a_batch(model: Any, tokenizer: Any, mode: str) -> None:
    pipe = kd.pipeline("feature-extraction", model, tokenizer, pooling=mode, normalize=True, batch_size=2)
    found = pipe(TEXTS)
    assert (found.shape, found.dtype) == ((3, 16), np.float32)
    for row, text in zip(found, TEXTS, strict=True):
        np.testing.assert_array_equal(row, pipe(text))
    np.testing.assert_array_equal(found, pipe(iter(TEXTS)))
    assert pipe([]).shape == (0, 16)


def test_a_pooling_of_the_model_is_used_as_it_is(model: Any, tokenizer: Any) -> None:
    pooled = model.with_pooling("mean", normalize=True)
    pipe = kd.pipeline("feature-extraction", pooled, tokenizer, pooling="model")
    assert pipe.model is pooled
    plain = kd.pipeline("feature-extraction", pooled, tokenizer, pooling="model", normalize=False)(TEXTS)
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), pipe(TEXTS), rtol=1e-5)
    assert len(kd.pipeline("feature-extraction", pooled, tokenizer)(TEXTS[0])[0]) == 4  # tokens, as in transformers


def test_long_texts_are_cut_or_refused(model: Any, tokenizer: Any) -> None:
    long = " ".join(["film"] * 30)
    with pytest.warns(UserWarning, match="1 of 1 texts .* were longer than 16 tokens"):
        assert np.shape(kd.pipeline("feature-extraction", model, tokenizer)(long)) == (1, 16, 16)
    assert (
        np.shape(kd.pipeline("feature-extraction", model, tokenizer, tokenize_kwargs={"max_length": 5})(long))[1] == 5
    )
    trained = kd.BertModel(model.config, seed=1)
    trained.config = trained.config.with_trained(TrainedWith(max_length=7))
    with pytest.warns(UserWarning, match="longer than 7 tokens"):
        assert np.shape(kd.pipeline("feature-extraction", trained, tokenizer)(long)) == (1, 7, 16)
    with pytest.raises(ValueError, match="32 tokens"):
        kd.pipeline("feature-extraction", model, tokenizer, truncation=False)(long)


def test_what_it_cannot_do_is_refused(model: Any, tokenizer: Any) -> None:
    for keywords, message in (
        ({"pooling": "max"}, "pooling is 'max'; expected None or one of 'model', 'mean', 'cls'"),
        ({"pooling": "model"}, "pooling is 'model', and the model states none"),
        ({"normalize": True}, "normalize is True without a pooling"),
        (
            {"truncation": True, "tokenize_kwargs": {"truncation": True}},
            "truncation is given, and in tokenize_kwargs too",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            kd.pipeline("feature-extraction", model, tokenizer, **keywords)
    classifier = kd.BertForSequenceClassification(small_config(), seed=1)
    with pytest.raises(
        ValueError, match=r"is a BertForSequenceClassification; expected one for feature-extraction: AutoModel\.from_p"
    ):
        kd.pipeline("feature-extraction", classifier, tokenizer)


def test_a_directory_is_loaded_as_an_encoder(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model.with_pooling("cls").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pipe = kd.pipeline("feature-extraction", tmp_path, pooling="model")
    np.testing.assert_array_equal(pipe(TEXTS), model.with_pooling("cls").freeze().forward(tokenizer(TEXTS)))
