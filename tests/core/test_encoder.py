"""Shapes and heads beside those of a BERT classifier, against the float64 reference and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.encoder_cases import CLASSIFIER, ENCODER, LISTED, MASKED, ROWS, TAGGER, Case

from kdistill import _core

RELATIVE = {"relative_buckets": 12, "relative_distance": 20, "types": 0, "first_position": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pruned layers": ({"layers": ((2, 20), (1, 7), (3, 33))}, CLASSIFIER),
    "an odd attention width": ({"head_width": 7, "layers": ((3, 20), (2, 9))}, CLASSIFIER),
    "attention wider than the hidden size": ({"hidden": 16, "head_width": 20}, CLASSIFIER),
    "one pruned layer": ({"layers": ((1, 5),)}, CLASSIFIER),
    "no token types, later positions": ({"types": 0, "first_position": 2, "positions": 42}, CLASSIFIER),
    "narrow embeddings": ({"embedding_width": 10}, CLASSIFIER),
    "narrow embeddings, one layer, no types": ({"embedding_width": 7, "layers": ((2, 9),), "types": 0}, CLASSIFIER),
    "narrow embeddings of tokens": ({"embedding_width": 10, "first_position": 2, "positions": 42}, TAGGER),
    "embeddings wider than the encoder": ({"embedding_width": 70}, TAGGER),
    "a product behind embeddings of the encoder's width": ({"embedding_width": 24}, CLASSIFIER),
    "shared layers": ({"shared": True, "layers": ((2, 20),) * 3}, CLASSIFIER),
    "shared layers of tokens": ({"shared": True, "layers": ((3, 9),) * 4, "head_width": 7}, TAGGER),
    "one shared layer": ({"shared": True, "layers": ((2, 20),)}, CLASSIFIER),
    "shared layers, narrow embeddings": (
        {"shared": True, "embedding_width": 10, "feed_forward_dropout": 0.0, "activation": "gelu_new"}, CLASSIFIER
    ),
    "relative positions": ({**RELATIVE}, CLASSIFIER),
    "relative positions of tokens": ({**RELATIVE, "head_width": 7, "layers": ((3, 20),) * 3}, TAGGER),
    "relative positions, one layer": ({**RELATIVE, "layers": ((2, 20),)}, CLASSIFIER),
    "relative positions in shared layers": ({**RELATIVE, "shared": True, "embedding_width": 5}, CLASSIFIER),
    "relative positions of pruned layers": (
        {**RELATIVE, "layers": ((2, 20), (1, 7), (3, 9)), "relative_heads": (4, ((3, 1), (2,), (0, 1, 3)))}, CLASSIFIER
    ),
    "relative positions of tokens in pruned layers": (
        {**RELATIVE, "layers": ((1, 20), (2, 7)), "relative_heads": (2, ((1,), (0, 1)))}, TAGGER
    ),
    "few relative positions": ({"relative_buckets": 5, "relative_distance": 2}, CLASSIFIER),
    "no dropout behind attention": ({"output_dropout": 0.0}, CLASSIFIER),
    "no dropout behind the feed-forward": ({"feed_forward_dropout": 0.0}, TAGGER),
    "another rate of dropout at each place": ({"output_dropout": 0.3, "feed_forward_dropout": 0.4}, CLASSIFIER),
    "dropout before the dense product": ({}, {**CLASSIFIER, "dropout_before": 0.2}),
    "relu behind the dense product": ({}, {**CLASSIFIER, "dense": "relu"}),
    "gelu behind the dense product": ({}, {**CLASSIFIER, "dense": "gelu", "dropout_after": 0.0}),
    "no dense product": ({}, {**CLASSIFIER, "dense": None, "dropout_before": 0.1}),
    "tokens": ({}, TAGGER),
    "tokens of pruned layers": ({"layers": ((1, 9), (2, 20))}, {**TAGGER, "dropout_before": 0.1, "dropout_after": 0.0}),
    "tokens, the first layer widest": ({"layers": ((3, 90), (1, 5))}, TAGGER),
    "tokens, gelu_new behind a dense product": ({"layers": ((2, 20),)}, {**TAGGER, "dense": "gelu_new"}),
    "a narrower dense product": ({}, {**CLASSIFIER, "dense_width": 10}),
    "a wider dense product with a norm": ({}, {**TAGGER, "dense": "relu", "dense_width": 37, "norm": True}),
    "rows, no products": ({}, {**TAGGER, "outputs": 0, "dropout_before": 0.1}),
    "first rows without dropout, no products": ({}, {**CLASSIFIER, "dense": None, "outputs": 0, "dropout_after": 0.0}),
    "pooled rows": ({}, {**CLASSIFIER, "outputs": 0}),
    "pooled rows with a norm": ({}, {**CLASSIFIER, "dense_width": 9, "norm": True, "outputs": 0, "dropout_after": 0.0}),
    "means": ({}, {**CLASSIFIER, "pick": "mean", "dropout_before": 0.2}),
    "means, no products": ({}, {**TAGGER, "pick": "mean", "outputs": 0, "dropout_after": 0.0}),
    "means of length 1": ({}, {**TAGGER, "pick": "mean", "outputs": 0, "dropout_after": 0.0, "unit": True}),
    "first rows of length 1": (
        {}, {**CLASSIFIER, "dense": None, "outputs": 0, "dropout_before": 0.1, "dropout_after": 0.0, "unit": True},
    ),
    "pooled rows of length 1": ({}, {**CLASSIFIER, "dense_width": 9, "outputs": 0, "unit": True}),
    "listed tokens": ({}, {**LISTED, "dropout_before": 0.1}),
    "listed tokens with a norm": ({}, {**LISTED, "dense": "gelu", "norm": True, "dropout_after": 0.0}),
    "listed tokens, no products": ({}, {**LISTED, "dense": None, "outputs": 0}),
    "listed tokens, tied": ({}, MASKED),
    "listed tokens, an output of their own": ({}, {**MASKED, "tied": False}),
    "listed tokens, tied to narrow embeddings": ({"embedding_width": 10}, {**MASKED, "dense_width": 10}),
    "means, tied": ({}, {**TAGGER, "pick": "mean", "outputs": 31, "tied": True}),
    "first rows, tied": ({}, {**CLASSIFIER, "outputs": 31, "tied": True}),
    "listed tokens, none given": ({}, {**LISTED, "dense": "gelu", "norm": True}),
}  # fmt: skip


def case_of(name: str) -> Case:
    encoder, head = CASES[name]
    listed = name.startswith("listed") and not name.endswith("none given")
    return Case({**ENCODER, **encoder}, head, rows=ROWS if listed else None)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("whole_last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_outputs(name: str, whole_last: bool, train: bool) -> None:
    case = case_of(name)
    expected, _ = case.expected(case.exact, train=train)
    outputs = case.forward(train=train, whole_last=whole_last)
    assert outputs.shape == expected.shape
    # As test_passes.py: some ten sums of float32 terms.
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("whole_last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, whole_last: bool) -> None:
    case = case_of(name)
    case.forward(train=True, whole_last=whole_last)
    case.core.backward(case.dlogits, 2)

    def loss(parameters: reference.Parameters) -> float:
        return float((case.expected(parameters, train=True)[0] * case.dlogits).sum())

    case.check_gradients(loss)


@pytest.mark.parametrize(
    "name",
    [
        "pruned layers",
        "tokens",
        "tokens, gelu_new behind a dense product",
        "narrow embeddings of tokens",
        "shared layers",
        "means",
        "means of length 1",
        "listed tokens, tied",
        "relative positions",
        "relative positions of tokens",
        "relative positions of pruned layers",
    ],
)
def test_any_number_of_threads(name: str) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case = case_of(name)
        plain, outputs = case.forward(train=False, threads=threads), case.forward(train=True, threads=threads)
        case.core.backward(case.dlogits, threads)
        results.append((plain, outputs, case.gradients))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", CASES)
def test_a_pass_stays_within_the_workspace_it_asked_for(name: str) -> None:
    """What lies behind the workspace stays as it was; one layer's buffers serve all, so the widest counts."""
    case, made = case_of(name), []

    def workspace(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
        made.append(np.full(size + 65536, 77, np.int8))
        return made[-1][:size]

    for threads in (1, 2):
        core = _core.Model(case.encoder, case.head, case.flat, case.gradients, workspace)
        listed = {} if case.rows is None else {"rows": np.array(case.rows)}
        core.forward(*case.batch, False, 0, 0, 0, threads, **listed)
        core.forward(*case.batch, True, 0, 0, 0, threads, **listed)
        core.backward(case.dlogits, threads)
    assert len(made) >= 4
    assert all((memory[-65536:] == 77).all() for memory in made)


def test_more_threads_on_the_way_back() -> None:
    """A workspace has room for the threads of its forward pass; no more may work in it."""
    one, two = case_of("pruned layers"), case_of("pruned layers")
    for case, threads in ((one, 1), (two, 7)):
        case.forward(train=True, threads=1)
        case.core.backward(case.dlogits, threads)
    np.testing.assert_array_equal(one.gradients, two.gradients)


def test_a_token_has_the_same_bits_alone_and_in_any_batch() -> None:
    whole = case_of("tokens of pruned layers")
    outputs, first = whole.forward(train=False), 0
    for row, length in enumerate(whole.lengths):
        alone = Case(whole.encoder, whole.head, [length])
        alone.ids, alone.types = [whole.ids[row]], [whole.types[row]]
        np.testing.assert_array_equal(alone.forward(train=False), outputs[first : first + length])
        first += length


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "output_dropout", "feed_forward_dropout"])
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_rates_that_no_dropout_has(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is {rate:g}; expected at least 0 and less than 1$"):
        _core.layout({**ENCODER, name: rate}, CLASSIFIER)


@pytest.mark.parametrize("name", ["listed tokens", "listed tokens with a norm"])
def test_a_listed_token_has_the_bits_it_has_among_all_tokens(name: str) -> None:
    some, every = case_of(name), case_of(name)
    every.rows = None
    for train in (False, True):
        np.testing.assert_array_equal(some.forward(train=train), every.forward(train=train)[ROWS])


def test_a_batch_may_list_no_token() -> None:
    case = case_of("listed tokens")
    case.rows = []
    assert case.forward(train=False).shape == (0, 3)
    case.forward(train=True)
    case.core.backward(np.zeros((0, 3), np.float32), 2)
    assert not case.gradients.any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3, 3], r"rows\[1\] is 3; expected ascending tokens of the batch, 0 to 106"),
        ([0, 107], r"rows\[1\] is 107; expected ascending tokens of the batch, 0 to 106"),
        ([-1], r"rows\[0\] is -1; expected ascending tokens of the batch"),
    ],
)
def test_listed_tokens_are_ascending_tokens_of_the_batch(rows: list[int], message: str) -> None:
    case = case_of("listed tokens")
    case.rows = rows
    with pytest.raises(ValueError, match=message):
        case.forward(train=True)


@pytest.mark.parametrize("name", ["pruned layers", "tokens", "means"])
def test_a_head_that_chooses_its_rows_takes_no_list(name: str) -> None:
    case = case_of(name)
    case.rows = [0]
    with pytest.raises(
        ValueError, match="rows were given; expected None, as this model's head chooses its rows itself"
    ):
        case.forward(train=False)


def test_positions_end_earlier_when_they_begin_later() -> None:
    case = Case({**ENCODER, "first_position": 2, "positions": 41}, CLASSIFIER)
    with pytest.raises(ValueError, match=r"input_ids\[3\] has 40 tokens; the model has 39 positions"):
        case.forward(train=False)


def test_a_model_without_token_types_takes_zeros_alone() -> None:
    case = Case({**ENCODER, "types": 0}, CLASSIFIER)
    case.types[1][3] = 1
    with pytest.raises(ValueError, match=r"token_type_ids\[1\]\[3\] is 1; the model has 0 token types"):
        case.forward(train=False)


def test_matrices_decay_but_the_table_of_relative_positions() -> None:
    """As transformers' Trainer.get_decay_parameter_names: its name there has "bias" in it."""
    case = case_of("relative positions in shared layers")
    decay = {tensor.canonical: tensor.decay for tensor in case.layout}
    assert decay["relative_bias"] is False
    assert decay["embeddings.projection"] is True
    assert all(
        tensor.decay == (len(tensor.shape) == 2) for tensor in case.layout if tensor.canonical != "relative_bias"
    )


def test_the_products_are_float32() -> None:
    assert case_of("tokens").core.compute == "float32"
