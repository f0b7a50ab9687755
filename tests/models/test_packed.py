"""Models that hold packed weights alone, of encoders beside BERT's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.encoder_cases import CLASSIFIER, ENCODER, TAGGER, Case

from kdistill import _core
from kdistill.models.packed import PackedFilling, bytes_without_products, is_product
from kdistill.models.parameters import TensorViews
from kdistill.system.memory import workspace
from kdistill.system.threads import sparse_zeros

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "narrow embeddings": {"embedding_width": 10},
    "shared layers": {"shared": True, "embedding_width": 24},
    "relative positions": {"relative_buckets": 12, "relative_distance": 20, "types": 0},
}


@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ENCODERS)
def test_logits_have_the_bits_of_a_model_that_keeps_its_parameters(name: str, dtype: str, head: dict[str, Any]) -> None:
    case = Case({**ENCODER, **ENCODERS[name]}, head)
    flat, values = sparse_zeros(case.flat.size), TensorViews(case.flat, case.layout)
    kept = _core.Model(case.encoder, case.head, case.flat, None, workspace, dtype=dtype)
    alone = _core.Model(case.encoder, case.head, flat, None, workspace, dtype=dtype)
    filling = PackedFilling(case.layout, flat, alone)
    for tensor in case.layout:
        with filling(tensor) as place:
            place[:] = values[tensor.name]
    expected = kept.forward(*case.batch, False, 0, 0, 0, 2)
    np.testing.assert_array_equal(alone.forward(*case.batch, False, 0, 0, 0, 2), expected)
    assert 4 * np.count_nonzero(flat) <= bytes_without_products(case.layout)


def test_products_are_all_matrices_but_tables() -> None:
    case = Case({**ENCODER, **ENCODERS["relative positions"], "embedding_width": 10, "types": 2}, CLASSIFIER)
    tables = {tensor.canonical for tensor in case.layout if len(tensor.shape) == 2 and not is_product(tensor)}
    assert tables == {"embeddings.word", "embeddings.position", "embeddings.type", "relative_bias"}
