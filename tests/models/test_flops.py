"""Counts of floating-point operations against a list of products, and the peak against products."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdistill.models import flops
from kdistill.models.config import BertConfig
from kdistill.models.flops import forward_flops, peak_flops, training_flops

CONFIG = BertConfig(hidden_size=12, num_hidden_layers=3, num_attention_heads=4, intermediate_size=20, num_labels=5)
LENGTHS = np.array([3, 1, 7])


def product(m: int, k: int, n: int) -> int:
    return 2 * m * k * n


def products(*, cls_only: bool) -> tuple[int, int]:
    """Sums over a written-out list of all products: with weights, and inside attention."""
    C, F, H, D = 12, 20, 4, 3
    linear = attention = 0
    for length in LENGTHS.tolist():
        for layer in range(3):
            absorbed = cls_only and layer == 2
            rows = 1 if absorbed else length
            linear += 2 * product(rows, C, C) + product(rows, C, F) + product(rows, F, C)  # queries, output; up, down
            if absorbed:  # each head: the query on the side of the inputs; scores, their sum; from there to the values
                linear += H * (product(1, D, C) + product(1, C, D))
                attention += H * (product(1, C, length) + product(1, length, C))
            else:
                linear += 2 * product(length, C, C)  # keys, values
                attention += H * (product(length, D, length) + product(length, length, D))
        linear += product(1, C, C) + product(1, C, 5)  # pooler, classifier
    return linear, attention


@pytest.mark.parametrize("cls_only", [True, False])
def test_counts_are_those_of_a_written_out_list(cls_only: bool) -> None:
    linear, attention = products(cls_only=cls_only)
    assert forward_flops(CONFIG, LENGTHS, cls_only=cls_only) == linear + attention
    assert training_flops(CONFIG, LENGTHS, cls_only=cls_only) == 3 * linear + 3.5 * attention


def test_peak_is_the_best_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """6e9 operations in 3, 2, 1, 2, 3, ... seconds: 6e9 a second at best."""
    seconds = itertools.cycle([3.0, 2.0, 1.0, 2.0])
    clock = itertools.accumulate(itertools.chain.from_iterable([0.5, next(seconds)] for _ in itertools.count()))
    asked = []
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(flops._core, "multiply_adds", lambda rounds, threads: asked.append(threads) or 6e9)
    assert peak_flops(3) == 6e9
    assert set(asked) == {3}
