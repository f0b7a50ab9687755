"""Arrays inside the encoder, handed out and given gradients, against the float64 reference and finite differences."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference
from support.encoder_cases import CLASSIFIER, ENCODER, TAGGER, Case

LAYERS = ((2, 20), (1, 7), (3, 9))
KINDS = ("query", "key", "value", "scores")
ALL: list[reference.Tap] = [("hidden", layer) for layer in range(4)]
ALL += [(kind, layer) for kind in KINDS for layer in range(3)]
PROJECTED: list[reference.Tap] = [("query", 2), ("key", 2), ("value", 2)]  # of the last layer
Taps = dict[reference.Tap, NDArray[np.float32]]


def case_of(*, dropout: bool = True, head: dict[str, Any] = CLASSIFIER, changes: dict[str, Any] | None = None) -> Case:
    rates = {} if dropout else {"dropout": 0.0, "attention_dropout": 0.0}
    return Case({**ENCODER, "layers": LAYERS, "head_width": 10, **rates, **(changes or {})}, head)


def joined(by_row: list[dict[reference.Tap, reference.Array]], tap: reference.Tap) -> reference.Array:
    """A tap of all rows: tokens one behind the other, of scores every number."""
    parts = [taps[tap] for taps in by_row]
    return np.concatenate([part.ravel() for part in parts] if tap[0] == "scores" else parts)


def random_gradients(arrays: Taps) -> Taps:
    rng = np.random.default_rng(4)
    return {tap: rng.standard_normal(array.shape).astype(np.float32) for tap, array in arrays.items()}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
def test_arrays(head: dict[str, Any], train: bool) -> None:
    case = case_of(head=head)
    outputs, arrays = case.forward(train=train, taps=ALL)
    expected, by_row = case.expected(case.exact, train=train)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=5e-6 * np.abs(expected).max())
    assert list(arrays) == ALL
    for tap, array in arrays.items():
        value = joined(by_row, tap)
        assert array.shape == value.shape, tap
        np.testing.assert_allclose(array, value, rtol=0, atol=5e-6 * np.abs(value).max(), err_msg=str(tap))


def check_doors(case: Case, taps: list[reference.Tap], dlogits: NDArray[np.float32]) -> None:
    _, arrays = case.forward(train=True, taps=taps)
    gradients = random_gradients(arrays)
    case.core.backward(dlogits, 2, gradients)

    def loss(parameters: reference.Parameters) -> float:
        outputs, by_row = case.expected(parameters, train=True)
        return float((outputs * dlogits).sum()) + sum(
            float((joined(by_row, tap) * gradient).sum()) for tap, gradient in gradients.items()
        )

    case.check_gradients(loss)


@pytest.mark.parametrize("tap", ALL, ids=str)
def test_a_gradient_through_one_door(tap: reference.Tap) -> None:
    case = case_of()
    check_doors(case, [tap], case.dlogits)


@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_through_all_doors(dropout: bool, head: dict[str, Any]) -> None:
    case = case_of(dropout=dropout, head=head)
    check_doors(case, ALL, case.dlogits)


def test_gradients_through_all_doors_without_token_types_and_with_later_positions() -> None:
    case = case_of(changes={"types": 0, "first_position": 2, "positions": 42})
    check_doors(case, ALL, case.dlogits)


def test_gradients_through_all_doors_behind_narrow_embeddings() -> None:
    case = case_of(changes={"embedding_width": 11})
    check_doors(case, ALL, case.dlogits)


@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
def test_gradients_through_all_doors_of_shared_layers(head: dict[str, Any]) -> None:
    case = case_of(changes={"shared": True, "layers": ((2, 20),) * 3}, head=head)
    check_doors(case, ALL, case.dlogits)


@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
def test_gradients_through_all_doors_with_relative_positions(head: dict[str, Any]) -> None:
    changes = {"layers": ((2, 20),) * 3, "relative_buckets": 12, "relative_distance": 20}
    case = case_of(changes=changes, head=head)
    check_doors(case, ALL, case.dlogits)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.0, "attention_dropout": 0.0},
        {"embedding_width": 11},
        {"shared": True, "layers": ((2, 20),) * 3},
        {"layers": ((2, 20),) * 3, "relative_buckets": 12, "relative_distance": 20},
    ],
    ids=["", "no dropout", "narrow embeddings", "shared layers", "relative positions"],
)
@pytest.mark.parametrize("taps", [PROJECTED, PROJECTED[1:2]], ids=["all three", "keys"])
def test_gradients_through_queries_keys_and_values_of_a_last_layer_computed_for_cls(
    taps: list[reference.Tap], changes: dict[str, Any]
) -> None:
    case = case_of(changes=changes)
    check_doors(case, [*taps, ("hidden", 2)], case.dlogits)


def test_gradients_through_queries_keys_and_values_of_the_only_layer() -> None:
    case = case_of(changes={"layers": ((2, 20),)})
    check_doors(case, [("query", 0), ("key", 0), ("value", 0)], case.dlogits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [False, True])
def test_queries_keys_and_values_have_the_bits_of_a_last_layer_computed_for_all_rows(train: bool, dtype: str) -> None:
    case = case_of()
    case = Case(case.encoder, case.head, dtype=dtype)
    _, alone = case.forward(train=train, taps=PROJECTED)
    _, whole = case.forward(train=train, taps=PROJECTED, whole_last=True)
    for tap in PROJECTED:
        np.testing.assert_array_equal(alone[tap], whole[tap], err_msg=str(tap))


def test_a_loss_on_a_tap_alone_leaves_what_comes_after_it_alone() -> None:
    case = case_of()
    _, arrays = case.forward(train=True, taps=[("value", 1)])
    case.core.backward(np.zeros_like(case.dlogits), 2, random_gradients(arrays))
    for tensor in case.layout:
        gradient = case.gradients[tensor.offset : tensor.offset + int(np.prod(tensor.shape))]
        reached = tensor.canonical.startswith(("embeddings.", "layer.0.", "layer.1.value"))
        assert gradient.any() == reached, tensor.canonical


@pytest.mark.parametrize("taps", [ALL, PROJECTED], ids=["all", "projected"])
def test_any_number_of_threads(taps: list[reference.Tap]) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case = case_of()
        _, plain = case.forward(train=False, threads=threads, taps=taps)
        _, arrays = case.forward(train=True, threads=threads, taps=taps)
        case.core.backward(case.dlogits, threads, random_gradients(arrays))
        results.append([*plain.values(), *arrays.values(), case.gradients])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("taps", "whole_last"),
    [
        ([("hidden", 0), ("hidden", 2), ("scores", 1)], False),
        ([("hidden", 3)], True),
        ([("scores", 2)], True),
        ([("query", 2)], False),
        (PROJECTED, False),
    ],
)
def test_a_tap_changes_nothing(taps: list[reference.Tap], whole_last: bool) -> None:
    """The last layer's scores and output have it computed in full; any other tap leaves the pass as it is."""
    tapped, plain = case_of(), case_of()
    outputs, _ = tapped.forward(train=True, taps=taps)
    np.testing.assert_array_equal(outputs, plain.forward(train=True, whole_last=whole_last))
    tapped.core.backward(tapped.dlogits, 2)
    plain.core.backward(plain.dlogits, 2)
    np.testing.assert_array_equal(tapped.gradients, plain.gradients)
    evaluated, _ = tapped.forward(train=False, taps=taps)
    np.testing.assert_array_equal(evaluated, plain.forward(train=False, whole_last=whole_last))


def test_no_taps_and_an_empty_list_give_the_outputs_alone() -> None:
    case = case_of()
    np.testing.assert_array_equal(case.forward(train=False, taps=[]), case.forward(train=False))


@pytest.mark.parametrize(
    ("taps", "error", "message"),
    [
        ([("hidden", 4)], ValueError, "tap ('hidden', 4) does not exist; its layer can be 0 to 3"),
        ([("key", 3)], ValueError, "tap ('key', 3) does not exist; its layer can be 0 to 2"),
        ([("scores", -1)], ValueError, "tap ('scores', -1) does not exist"),
        ([("output", 0)], ValueError, "kind is 'output'; expected hidden, query, key, value or scores"),
        ([("query", 1), ("query", 1)], ValueError, "tap ('query', 1) is asked for twice"),
        (["hidden"], TypeError, "a tap is a pair such as ('hidden', 2), not 'hidden'"),
        (3, TypeError, "not iterable"),
    ],
)
def test_taps_that_are_refused(taps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        case_of().forward(train=False, taps=taps)


def test_gradients_that_are_refused() -> None:
    case = case_of()
    _, arrays = case.forward(train=True, taps=[("hidden", 1), ("scores", 0)])
    good = random_gradients(arrays)
    bad: list[tuple[Any, type[Exception], str]] = [
        ({("hidden", 2): good["hidden", 1]}, ValueError, "gradients has ('hidden', 2), which was no tap"),
        ({("hidden", 1): good["hidden", 1][:-1]}, ValueError, "the gradient of ('hidden', 1) has another shape"),
        ({("hidden", 1): np.ascontiguousarray(good["hidden", 1].T)}, ValueError, "has another shape than the tap"),
        ({("scores", 0): good["scores", 0][1:]}, ValueError, "the gradient of ('scores', 0) has another shape"),
        ({("hidden", 1): good["hidden", 1].astype(np.float64)}, TypeError, "a tap's gradient must be an array"),
        ([good], TypeError, "gradients must be a dict or None"),
    ]  # fmt: skip
    for gradients, error, message in bad:
        with pytest.raises(error, match=re.escape(message)):
            case.core.backward(case.dlogits, 2, gradients)
    assert not case.gradients.any()
    case.core.backward(case.dlogits, 2, good)  # the pass is still there
    assert case.gradients.any()
