"""Gradients of whole models that are trained in bfloat16, against float64 with rounded operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import rounded_gradients
from support.encoder_cases import CLASSIFIER, ENCODER, TAGGER, Case

from kdistill import _core
from kdistill.models.parameters import TensorViews

PLAIN: dict[str, Any] = {**ENCODER, "dropout": 0.0, "attention_dropout": 0.0}
# Weights of several tiles in both directions, and more tokens than one run of a sum.
TILED: dict[str, Any] = {**PLAIN, "layers": ((2, 300), (3, 20))}
PROJECTED: dict[str, Any] = {**PLAIN, "embedding_width": 17, "layers": ((2, 20),)}
SHARED: dict[str, Any] = {**PLAIN, "shared": True}
RELATIVE: dict[str, Any] = {**PLAIN, "relative_buckets": 12, "relative_distance": 20, "layers": ((2, 20),)}
ALL_TOKENS = {**TAGGER, "dropout_after": 0.0}
LONG = [40, 1, 17] * 10


def gradients_of(case: Case) -> dict[str, NDArray[np.float32]]:
    case.forward(train=True)
    case.core.backward(case.dlogits, 2)
    return dict(TensorViews(case.gradients, case.layout).items())


@pytest.mark.parametrize(
    "encoder",
    [PLAIN, TILED, PROJECTED, SHARED, RELATIVE],
    ids=["one tile", "many tiles", "projected", "shared", "relative positions"],
)
def test_gradients_are_those_of_rounded_operands(encoder: dict[str, Any]) -> None:
    """An operand next to the middle of two bfloat16 numbers may be rounded to the other one than in float64.

    That is a part of what rounding does to the gradients, and grows from product to product: up to a fifth here. A
    product that rounded one operand less would be off by more than 0.3 of it.
    """
    case = Case(encoder, ALL_TOKENS, LONG, dtype="bfloat16")
    found = gradients_of(case)
    rows = list(zip(case.ids, case.types, strict=True))
    expected = rounded_gradients.gradients(case.exact, encoder, rows, case.dlogits)
    exact = rounded_gradients.gradients(case.exact, encoder, rows, case.dlogits, near=lambda x: x)
    for name, gradient in expected.items():
        # The exact gradient of a key's bias is 0, and the classifier's is a sum of what it is given.
        size = np.linalg.norm(expected[name.replace("self.key.bias", "self.query.bias")])
        assert size > 1e-3, name
        rounding = np.linalg.norm(exact[name] - gradient)
        assert rounding < 0.02 * size, name
        assert np.linalg.norm(found[name] - gradient) <= 0.3 * rounding + 1e-6 * size, name


@pytest.mark.parametrize("encoder", [TILED, PROJECTED, RELATIVE], ids=["many tiles", "projected", "relative positions"])
def test_the_same_formulas_without_rounding_give_float32_s_gradients(encoder: dict[str, Any]) -> None:
    """So a difference from them in bfloat16 is rounding, not another formula."""
    case = Case(encoder, ALL_TOKENS, LONG)
    found = gradients_of(case)
    rows = list(zip(case.ids, case.types, strict=True))
    exact = rounded_gradients.gradients(case.exact, encoder, rows, case.dlogits, near=lambda x: x)
    for name, gradient in exact.items():
        size = np.linalg.norm(exact[name.replace("self.key.bias", "self.query.bias")])
        assert np.linalg.norm(found[name] - gradient) <= 5e-6 * size, name


@pytest.mark.parametrize("head", [ALL_TOKENS, CLASSIFIER], ids=["all tokens", "first tokens"])
def test_any_number_of_threads_has_the_same_bits(head: dict[str, Any]) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case = Case({**TILED, "dropout": 0.1}, head, LONG, dtype="bfloat16")
        case.forward(train=True, threads=threads)
        case.core.backward(case.dlogits, threads)
        results.append(case.gradients)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_micro_batches_add_up_to_the_batch() -> None:
    """Operands have the same bits in any batch, so only the order of the sum over tokens differs, as in float32."""
    whole, parts = (Case(TILED, ALL_TOKENS, LONG, dtype="bfloat16") for _ in range(2))
    gradients_of(whole)
    ids, types, dlogits = parts.ids, parts.types, whole.dlogits
    token = 0
    for first, last in ((0, 1), (1, 20), (20, 30)):
        parts.ids, parts.types = ids[first:last], types[first:last]
        parts.forward(train=True)
        count = sum(LONG[first:last])
        parts.core.backward(dlogits[token : token + count].copy(), 2)
        token += count
    difference = np.linalg.norm(parts.gradients - whole.gradients) / np.linalg.norm(whole.gradients)
    assert 0 < difference <= 1e-6


def test_a_classifier_s_gradients_are_near_those_of_float32() -> None:
    """The last layer's keys and values are absorbed in float32.

    Each operand is off by at most 2^-9 of itself, and a path through two layers and back passes some 24 products with
    two operands each.
    """
    rounded, exact = (Case(TILED, CLASSIFIER, LONG, dtype=dtype) for dtype in ("bfloat16", "float32"))
    found, expected = gradients_of(rounded), gradients_of(exact)
    for name, gradient in expected.items():
        size = np.linalg.norm(expected[name.replace("self.key.bias", "self.query.bias")])
        assert np.linalg.norm(found[name] - gradient) <= 48 * 2.0**-9 * size, name
        if "encoder" in name and name.endswith("query.weight"):
            assert (found[name] != gradient).any()


@pytest.mark.parametrize("encoder", [TILED, {**PLAIN, "embedding_width": 500}], ids=["many tiles", "projected"])
def test_training_in_bfloat16_stays_within_its_workspace(encoder: dict[str, Any]) -> None:
    case = Case(encoder, CLASSIFIER, LONG)
    made: list[NDArray[np.int8]] = []

    def workspace(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
        made.append(np.full(size + 65536, 77, np.int8))
        return made[-1][:size]

    for threads in (1, 2):
        core = _core.Model(case.encoder, case.head, case.flat, case.gradients, workspace, dtype="bfloat16")
        core.forward(*case.batch, True, 0, 0, 0, threads)
        core.backward(case.dlogits, threads)
    assert made
    assert all((memory[-65536:] == 77).all() for memory in made)
