"""A model whose layers share their tensors beside one that has a copy of them in each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.encoder_cases import CLASSIFIER, ENCODER, TAGGER, Case

from kdistill import _core
from kdistill.models.parameters import TensorViews
from kdistill.system.memory import workspace

LAYERS = 4
ENCODER_OF_LAYERS: dict[str, Any] = {**ENCODER, "layers": ((2, 20),) * LAYERS, "embedding_width": 9}
HEADS = pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
TRAINABLE = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def own_name(name: str) -> str:
    """Return what the shared model calls a tensor of the model with copies."""
    parts = name.split(".")
    if "layer" in parts:
        parts[parts.index("layer") + 1] = "0"
    return ".".join(parts)


def both(head: dict[str, Any], dtype: str = "float32") -> tuple[Case, Case]:
    """Return the shared model and the one with copies."""
    shared, copies = (
        Case({**ENCODER_OF_LAYERS, "shared": True}, head, dtype=dtype),
        Case(ENCODER_OF_LAYERS, head, dtype=dtype),
    )
    values = TensorViews(shared.flat, shared.layout)
    for name, view in TensorViews(copies.flat, copies.layout).items():
        view[:] = values[own_name(name)]
    return shared, copies


def test_the_tensors_are_those_of_one_layer() -> None:
    shared, copies = both(CLASSIFIER)
    assert [tensor.name for tensor in shared.layout] == list(dict.fromkeys(own_name(t.name) for t in copies.layout))


@HEADS
@pytest.mark.parametrize("whole_last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_outputs_have_the_same_bits(dtype: str, whole_last: bool, head: dict[str, Any]) -> None:
    outputs, packed = [], []
    for case in both(head):
        core = _core.Model(case.encoder, case.head, case.flat, None, workspace, dtype=dtype)
        outputs.append(core.forward(*case.batch, False, 0, 0, 0, 2, whole_last))
        packed.append(core.packed_bytes)
    np.testing.assert_array_equal(*outputs)
    assert packed[0] < packed[1] / 2  # once for all layers


def gradients(case: Case, threads: int, whole_last: bool) -> dict[str, NDArray[np.float32]]:
    case.forward(train=True, threads=threads, whole_last=whole_last)
    case.core.backward(case.dlogits, threads)
    return dict(TensorViews(case.gradients, case.layout).items())


@HEADS
@TRAINABLE
@pytest.mark.parametrize("whole_last", [False, True])
def test_a_gradient_is_the_sum_over_the_layers(dtype: str, whole_last: bool, head: dict[str, Any]) -> None:
    shared, copies = (gradients(case, 2, whole_last) for case in both(head, dtype))
    layers = {name: [array for other, array in copies.items() if own_name(other) == name] for name in shared}
    for name, gradient in shared.items():
        total = np.sum(layers[name], axis=0, dtype=np.float64)
        # The exact gradient of a key's bias is 0.
        size = sum(np.linalg.norm(part) for part in layers[name.replace("self.key.bias", "self.query.bias")])
        assert len(layers[name]) == (LAYERS if ".layer." in name else 1)
        assert np.linalg.norm(gradient - total) <= 1e-6 * size, name  # one more rounding for each layer


@HEADS
@TRAINABLE
def test_any_number_of_threads_has_the_same_bits(dtype: str, head: dict[str, Any]) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        case, _ = both(head, dtype)
        gradients(case, threads, whole_last=False)
        results.append(case.gradients)
    assert results[0].any()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
