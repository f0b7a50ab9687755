"""Passes with fewer chunks than threads, whose items several threads do together: the bits of one thread alone.

In every compute type, by the CPU's best engine of it; test_engines.py shares products out in every engine. Tests of
smaller shapes compare one thread with the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.encoder_cases import CLASSIFIER, ENCODER, LISTED, MASKED, TAGGER, Case

from kdistill import _core
from kdistill.system.memory import workspace

# Large enough to be shared out (see kd_run_sharers), with columns, heads and rows that the threads cannot share evenly.
WIDE = {**ENCODER, "hidden": 180, "head_width": 36, "layers": ((5, 300), (3, 200), (5, 300)), "positions": 310}
RELATIVE = {"relative_buckets": 12, "relative_distance": 20, "types": 0, "first_position": 2}
MEAN = {**CLASSIFIER, "pick": "mean"}
ONE, SEVERAL = [301], [150, 2, 149]
ROWS = [0, 7, 8, 200, 300]
TAPS = [("hidden", 0), ("hidden", 3), *((kind, 1) for kind in ("query", "key", "value", "scores"))]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[int], list[int] | None]] = {
    "one sentence": ({}, CLASSIFIER, ONE, None),
    "two chunks": ({}, CLASSIFIER, SEVERAL, None),
    "every token": ({}, TAGGER, ONE, None),
    "some tokens": ({}, LISTED, ONE, ROWS),
    "masked tokens": ({}, MASKED, ONE, ROWS),
    "mean": ({}, MEAN, SEVERAL, None),
    "relative positions": ({**RELATIVE, "layers": ((5, 300),) * 3}, CLASSIFIER, ONE, None),
    "shared layers, projected embeddings": (
        {"shared": True, "embedding_width": 20, "layers": ((5, 300),) * 3},
        CLASSIFIER,
        ONE,
        None,
    ),
}


every_type = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])


def case_of(
    dtype: str, head: dict[str, Any], lengths: list[int], rows: list[int] | None = None, **changes: Any
) -> Case:
    """Return a frozen model."""
    case = Case({**WIDE, **changes}, head, lengths, rows=rows)
    case.core = _core.Model(case.encoder, head, case.flat, None, workspace, dtype=dtype)
    return case


@every_type
@pytest.mark.parametrize("name", CASES)
def test_threads_that_share_an_item_have_the_bits_of_one(name: str, dtype: str) -> None:
    changes, head, lengths, rows = CASES[name]
    case = case_of(dtype, head, lengths, rows, **changes)
    alone = case.forward(train=False, threads=1)
    assert np.isfinite(alone).all()
    assert alone.std() > 0.1
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(case.forward(train=False, threads=threads), alone)


@every_type
@pytest.mark.parametrize("head", [CLASSIFIER, TAGGER], ids=["classifier", "tagger"])
def test_threads_that_share_an_item_hand_out_the_same_arrays(head: dict[str, Any], dtype: str) -> None:
    case = case_of(dtype, head, ONE)
    logits, arrays = case.forward(train=False, threads=1, taps=TAPS)
    for threads in (2, 5):
        others, found = case.forward(train=False, threads=threads, taps=TAPS)
        np.testing.assert_array_equal(others, logits)
        for tap, array in arrays.items():
            np.testing.assert_array_equal(found[tap], array, err_msg=str(tap))


@every_type
def test_a_sentence_alone_and_in_a_batch(dtype: str) -> None:
    alone = case_of(dtype, CLASSIFIER, ONE).forward(train=False, threads=3)
    batch = case_of(dtype, CLASSIFIER, ONE * 4)
    batch.ids, batch.types = batch.ids[:1] * 4, batch.types[:1] * 4
    np.testing.assert_array_equal(batch.forward(train=False, threads=1), np.repeat(alone, 4, axis=0))
