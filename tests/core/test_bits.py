"""Passes that must give the same bits: any number of threads, any batch around a sentence, the same pass again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bert_cases import SMALL, Rows, batch_of, gradient, random_dlogits, random_rows, wide_model

from kdistill import _core
from kdistill.data.batch import Batch
from kdistill.models.architectures.bert import BERT
from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.parameters import TensorViews
from kdistill.system.memory import workspace
from kdistill.system.threads import aligned_zeros, get_num_threads, set_num_threads

DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
# Many chunks of 192 tokens and two tails of 48 sequences, so that threads have something to share.
LENGTHS = [40, 1, 17, 33, 2, 40, 39, 38, 5, 1] * 6
SHAPES = {
    "odd": {},
    "small": SMALL,
    "wide feed-forward": {**SMALL, "intermediate_size": 600},  # sums that are cut at the kernels' longest run
    "three layers, one label": {**SMALL, "num_hidden_layers": 3, "num_labels": 1, "hidden_act": "gelu_new"},
}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def rows_of(model: BertForSequenceClassification) -> tuple[Rows, Rows]:
    return random_rows(LENGTHS, model.config, seed=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_threads(shape: str) -> None:
    model = wide_model(**SHAPES[shape], **DROPOUT)
    batch = batch_of(*rows_of(model))
    dlogits = random_dlogits(model, len(LENGTHS))
    results = []
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        results.append((model.forward(batch), gradient(model, batch, dlogits), model.forward(batch, train=True)))
    assert np.isfinite(results[0][0]).all()
    assert np.isfinite(results[0][1]).all()
    assert results[0][1].any()
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sentence_alone_and_in_any_batch(shape: str) -> None:
    model = wide_model(**SHAPES[shape])
    ids, types = rows_of(model)
    whole = model.forward(batch_of(ids, types))
    assert len(np.unique(whole, axis=0)) > 50  # some rows of one token are the same row
    for row in (0, 1, 2, 9, 47, 48, 59):
        np.testing.assert_array_equal(model.forward(batch_of([ids[row]], [types[row]]))[0], whole[row])
    order = np.random.default_rng(4).permutation(len(ids))
    shuffled = model.forward(batch_of([ids[i] for i in order], [types[i] for i in order]))
    np.testing.assert_array_equal(shuffled, whole[order])
    for first, last in ((3, 8), (11, 60)):
        part = model.forward(batch_of(ids[first:last], types[first:last]))
        np.testing.assert_array_equal(part, whole[first:last])


def test_a_sentence_longer_than_a_chunk_beside_short_ones() -> None:
    model = wide_model(**SMALL, max_position_embeddings=300)
    ids, types = random_rows([7, 300, 1, 192, 193, 2], model.config)
    whole = model.forward(batch_of(ids, types))
    for row in range(len(ids)):
        np.testing.assert_array_equal(model.forward(batch_of([ids[row]], [types[row]]))[0], whole[row])


@pytest.mark.parametrize("whole_last", [True, False])
def test_a_large_model_goes_through_its_layers_in_stages(whole_last: bool) -> None:
    """BERT-base's width and 600 tokens: four layers are one item's work. A training pass takes all five at once.

    More threads than chunks: one would begin the next stage too early if nothing held it back.
    """
    model = wide_model(num_hidden_layers=5, hidden_size=768, num_attention_heads=12, intermediate_size=3072)
    batch = batch_of(*random_rows([40] * 15, model.config))
    core = model.trainable_core()
    staged = core.forward(*batch, False, 0, 0, 0, 5, whole_last=whole_last)
    np.testing.assert_array_equal(staged, core.forward(*batch, True, 0, 0, 0, 2, whole_last=whole_last))


def test_padding_changes_nothing() -> None:
    model = wide_model(**SMALL)
    ids, _ = random_rows([3, 9, 1], model.config)
    padded = [row + [0] * (12 - len(row)) for row in ids]
    mask = [[1] * len(row) + [0] * (12 - len(row)) for row in ids]
    np.testing.assert_array_equal(model(padded, attention_mask=mask).logits, model.forward(ids))


def test_evaluation_is_a_training_pass_without_dropout() -> None:
    model = wide_model()
    batch = batch_of(*rows_of(model))
    np.testing.assert_array_equal(model.forward(batch), model.forward(batch, train=True))


def test_a_pass_and_its_gradient_repeat() -> None:
    model = wide_model(**SMALL, **DROPOUT)
    batch, dlogits = batch_of(*rows_of(model)), random_dlogits(model, len(LENGTHS))
    first = gradient(model, batch, dlogits)
    model.forward([[1, 2, 3]])  # another workspace in between
    np.testing.assert_array_equal(gradient(model, batch, dlogits), first)


def core_pass(
    model: BertForSequenceClassification, batch: Batch, dlogits: NDArray[np.float32], *, train: bool, whole_last: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and gradients of a model of the core's own, with the last layer for [CLS] alone or for all tokens."""
    config = model.config.replace(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3)
    parameters = model.flat_parameters.copy()
    gradients = aligned_zeros(parameters.size)
    shape = BERT.encoder(config), BERT.head(model.head, config)
    core = _core.Model(*shape, parameters, gradients, workspace)
    logits = core.forward(*batch, train, 5, 6, 7, 2, whole_last=whole_last)
    if train:
        core.backward(dlogits, 2)
    return logits, gradients


@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_layer_for_cls_alone_or_for_all(shape: str) -> None:
    """[CLS] alone absorbs the weights of keys and values: the same sums in another order, so both agree to rounding.

    Two roundings of one number differ by more than either from it: 5e-6, where 2.5e-6 is seen without FMA.
    """
    model = wide_model(**SHAPES[shape])
    batch, dlogits = batch_of(*rows_of(model)), random_dlogits(model, len(LENGTHS))
    for train in (False, True):
        cls, cls_gradients = core_pass(model, batch, dlogits, train=train, whole_last=False)
        full, full_gradients = core_pass(model, batch, dlogits, train=train, whole_last=True)
        assert np.abs(cls - full).max() <= 2e-6 * np.abs(full).max()
    views = TensorViews(cls_gradients, model.layout)
    for name, other in TensorViews(full_gradients, model.layout).items():
        # Key biases have no true gradient: their noise is measured by the query's.
        size = np.linalg.norm(views[name.replace("self.key.bias", "self.query.bias")])
        assert np.linalg.norm(views[name] - other) <= 5e-6 * size, name
