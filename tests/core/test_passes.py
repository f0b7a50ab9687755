"""The whole model, forward and backward, against the float64 reference and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from support import reference
from support.bert_cases import (
    SMALL,
    Rows,
    batch_of,
    dropout_masks,
    exact,
    gradient,
    random_dlogits,
    random_rows,
    wide_model,
)

from kdistill.models.classes import BertForSequenceClassification
from kdistill.models.parameters import TensorViews

DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
MIXED = [1, 40, 2, 17, 16, 15, 5]
CASES = {
    "odd": ({}, MIXED),
    "odd, dropout": (DROPOUT, MIXED),
    "gelu_new, one label, dropout": ({**SMALL, **DROPOUT, "hidden_act": "gelu_new", "num_labels": 1}, [3, 1, 9]),
    "relu, one layer, dropout": ({**SMALL, **DROPOUT, "hidden_act": "relu", "num_hidden_layers": 1}, [8, 1, 12]),
    "three layers, one head": ({**SMALL, "num_hidden_layers": 3, "num_attention_heads": 1}, [6, 4]),
    "one type": ({**SMALL, "type_vocab_size": 1}, [4]),
    "eight labels, more types": ({**SMALL, "num_labels": 8, "type_vocab_size": 4, "layer_norm_eps": 0.1}, [1, 1, 7]),
}  # fmt: skip
# More tokens than one item of work takes (192): whole sequences are dealt out, one may fill an item alone, and
# more than 48 sequences make a second item of [CLS] rows.
LONG = {**SMALL, **DROPOUT, "hidden_size": 12, "intermediate_size": 20, "max_position_embeddings": 230}
CASES["longer than a chunk, dropout"] = (LONG, [191, 1, 1, 230, 100, 92, 193])
# Wider than the tiles of a weight's gradient (128 x 256), a strip of the embeddings' (64), a strip of vectors' (16384).
WIDE = {"hidden_size": 132, "num_attention_heads": 3, "intermediate_size": 300, "hidden_act": "relu"}
CASES["wider than every tile"] = (WIDE, [9, 1, 4])
# Sums along the input of the activation that are cut: it must be applied once, to the whole sum.
WIDER = {"hidden_size": 400, "num_attention_heads": 5, "intermediate_size": 20, "std": 0.1}
for activation in ("gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh"):
    CASES[f"sums longer than a run, {activation}"] = ({**WIDER, "hidden_act": activation}, [3, 1, 14])
LONG_VECTOR = {"hidden_size": 4, "num_attention_heads": 2, "intermediate_size": 17000, "num_hidden_layers": 1}
CASES["vectors in two strips"] = ({**LONG_VECTOR, "hidden_act": "relu"}, [3, 2])
CASES["more rows than a tail item, dropout"] = (LONG, [1, 2, 3, 4, 5] * 10)


def logits_tolerance(logits: reference.Array) -> float:
    """Each layer's sums of up to 100 float32 terms carry a relative error of a few 1e-7 that LayerNorm keeps
    at that size; some ten layers of them stay well below 5e-6 of the largest logit."""
    return 5e-6 * float(np.abs(logits).max())


@pytest.mark.parametrize("case", CASES)
def test_logits(case: str) -> None:
    changes, lengths = CASES[case]
    model = wide_model(**changes)
    ids, types = random_rows(lengths, model.config)
    expected = reference.forward(exact(model), model.config, ids, types)
    logits = model.forward(batch_of(ids, types))
    assert logits.shape == (len(lengths), model.config.num_labels)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=logits_tolerance(expected))


@pytest.mark.parametrize("case", [name for name in CASES if "dropout" in name])
def test_training_logits_use_the_masks_of_their_place(case: str) -> None:
    changes, lengths = CASES[case]
    model = wide_model(**changes)
    model.dropout_seed, model.optimizer_step, model.tokens_in_step = 2**63 + 5, 3, 1000
    ids, types = random_rows(lengths, model.config)
    expected = reference.forward(exact(model), model.config, ids, types, dropout_masks(model, lengths, place=1000))
    logits = model.forward(batch_of(ids, types), train=True)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=logits_tolerance(expected))
    assert model.tokens_in_step == 1000 + sum(lengths)
    plain = model.forward(batch_of(ids, types))
    assert np.abs(plain - logits).max() > 1000 * logits_tolerance(expected)


def weighted_logits(
    model: BertForSequenceClassification, ids: Rows, types: Rows, dlogits: reference.Array
) -> reference.Callable[[reference.Parameters], float]:
    """sum(logits * dlogits) as a function of the parameters, with the masks of the model's next training pass."""
    masks = dropout_masks(model, [len(row) for row in ids])

    def loss(parameters: reference.Parameters) -> float:
        return float((reference.forward(parameters, model.config, ids, types, masks) * dlogits).sum())

    return loss


@pytest.mark.parametrize("case", CASES)
def test_gradients_against_finite_differences(case: str) -> None:
    """Along random directions: one direction weighs every element of a tensor, a wrong one cannot hide.

    An element's error is a rounding error of sums over tokens and features, and its size is that of the tensor's
    typical element; a scalar product with a random direction adds them up as squares. So the bound is on the
    norm of the gradient; four sigma of 1e-5 of it.
    """
    changes, lengths = CASES[case]
    model = wide_model(**changes)
    ids, types = random_rows(lengths, model.config)
    dlogits = random_dlogits(model, len(ids))
    loss, parameters = weighted_logits(model, ids, types, dlogits.astype(np.float64)), exact(model)
    gradients = TensorViews(gradient(model, batch_of(ids, types), dlogits), model.layout)
    rng = np.random.default_rng(2)
    for name, value in parameters.items():
        direction = rng.standard_normal(value.shape)

        def along(at: reference.Array, name: str = name, direction: reference.Array = direction) -> float:
            return loss({**parameters, name: parameters[name] + at * direction})

        # A small step, so that hardly a relu is stepped over; float64 leaves 1e-9 of the difference.
        expected = reference.finite_difference(along, np.zeros(()), step=1e-6)
        # The true gradient of a key's bias is zero; its noise is that of the query's.
        size = np.linalg.norm(gradients[name.replace("self.key.bias", "self.query.bias")])
        assert size > 1e-3, name
        assert abs(float((gradients[name] * direction).sum()) - expected) <= 4e-5 * size, name


def test_gradients_element_by_element() -> None:
    """Every parameter of a model of a thousand, so that a mistake that directions average out would show."""
    changes = {"hidden_size": 6, "num_attention_heads": 2, "intermediate_size": 7, "num_labels": 3, "vocab_size": 9}
    model = wide_model(**changes, **DROPOUT, max_position_embeddings=6, num_hidden_layers=2)
    ids, types = random_rows([5, 1, 3], model.config)
    dlogits = random_dlogits(model, len(ids))
    loss, parameters = weighted_logits(model, ids, types, dlogits.astype(np.float64)), exact(model)
    gradients = TensorViews(gradient(model, batch_of(ids, types), dlogits), model.layout)
    for name in parameters:
        expected = reference.parameter_gradient(loss, parameters, name, step=1e-6)
        # 1e-5 of the largest element, as above; 1e-6 where all are zero (key biases, unused types).
        np.testing.assert_allclose(
            gradients[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-6, err_msg=name
        )


def test_tanh() -> None:
    """A pooler that gives its bias and a classifier that gives what it gets: the logits are tanh itself."""
    model = wide_model(hidden_size=500, num_attention_heads=1, intermediate_size=1, num_labels=500)
    x = np.concatenate((np.linspace(-10, 10, 400), np.linspace(-1e-3, 1e-3, 100))).astype(np.float32)
    changes = {"bert.pooler.dense.weight": 0, "bert.pooler.dense.bias": x, "classifier.bias": 0}
    for name, value in {**changes, "classifier.weight": np.eye(500)}.items():
        model.parameters[name][:] = value
    # Relative, see kd_vec.h.
    np.testing.assert_allclose(model.forward([[1]])[0], np.tanh(x.astype(np.float64)), rtol=5e-7)
    gradients = TensorViews(gradient(model, batch_of([[1]], [[0]]), np.ones((1, 500), np.float32)), model.layout)
    # 1 - tanh^2 loses what tanh has in common with 1.
    expected = 1 - np.tanh(x.astype(np.float64)) ** 2
    np.testing.assert_allclose(gradients["bert.pooler.dense.bias"], expected, rtol=0, atol=1e-6)


def test_rows_of_the_tables_that_were_not_read_get_no_gradient() -> None:
    model = wide_model(**SMALL)
    gradients = TensorViews(
        gradient(model, batch_of([[4, 9, 4], [7]], [[0, 0, 0], [0]]), random_dlogits(model, 2)), model.layout
    )
    words, positions, types = (
        gradients[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    assert np.flatnonzero(words.any(axis=1)).tolist() == [4, 7, 9]
    assert np.flatnonzero(positions.any(axis=1)).tolist() == [0, 1, 2]
    assert np.flatnonzero(types.any(axis=1)).tolist() == [0]


def test_gradients_are_added_to_what_is_there() -> None:
    model = wide_model(**SMALL)
    ids, types = random_rows([5, 3], model.config)
    dlogits = random_dlogits(model, 2)
    once = gradient(model, batch_of(ids, types), dlogits)
    model.forward(batch_of(ids, types), train=True)
    model.backward(dlogits)
    # One more rounding for each element added.
    np.testing.assert_allclose(model.flat_gradients, 2 * once, rtol=0, atol=3e-7 * np.abs(once).max())


def test_nan_in_a_weight_reaches_the_logits() -> None:
    """Clamps and maxima must not swallow it: a finite loss of a broken model would go unnoticed."""
    for activation in ("gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh"):
        for tensor in wide_model(**SMALL).layout:
            if tensor.name.endswith(("_embeddings.weight", "self.key.bias")):
                continue  # one row may not be read; checked below
            model = wide_model(**SMALL, hidden_act=activation)
            model.parameters[tensor.name][...] = np.nan
            assert np.isnan(model.forward([[1, 2, 3], [4, 5]])).all(), tensor.name
