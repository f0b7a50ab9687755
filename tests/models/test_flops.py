"""Counts of floating-point operations against a list of products, and the peak against products."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kdistill as kd
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


def one_layer(length: int) -> int:
    """All products of a layer of 12 columns and 4 heads for one sequence."""
    C, F, H, D = 12, 20, 4, 3
    linear = 4 * product(length, C, C) + product(length, C, F) + product(length, F, C)
    return linear + H * (product(length, D, length) + product(length, length, D))


TINY: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
SIX, WORDS = 6, 50
OF_HEADS = {
    ("Bert", "ForTokenClassification"): product(SIX, 12, 3),
    ("Bert", "ForQuestionAnswering"): product(SIX, 12, 2),
    ("Bert", "ForMaskedLM"): product(SIX, 12, 12) + product(SIX, 12, WORDS),
    ("DistilBert", "ForQuestionAnswering"): product(SIX, 12, 2),
    ("Roberta", "ForSequenceClassification"): product(1, 12, 12) + product(1, 12, 3),
    ("Albert", "ForSequenceClassification"): product(SIX, 8, 12) + product(1, 12, 12) + product(1, 12, 3),
    ("Electra", "ForTokenClassification"): product(SIX, 8, 12) + product(SIX, 12, 3),
    ("Electra", "ForMaskedLM"): product(SIX, 8, 12) + product(SIX, 12, 8) + product(SIX, 8, WORDS),
    ("MPNet", "ForQuestionAnswering"): product(SIX, 12, 2),
    ("DistilBert", "Model"): 0,
}


@pytest.mark.parametrize(("architecture", "ending"), OF_HEADS)
def test_heads_and_the_projection_of_the_embeddings_count(architecture: str, ending: str) -> None:
    """All products of a model, beside those of two layers that compute every token."""
    changes = {"embedding_size": 8} if architecture in ("Albert", "Electra") else {}
    labels = 2 if ending == "ForQuestionAnswering" else 3
    config = getattr(kd, f"{architecture}Config")(vocab_size=WORDS, num_labels=labels, **TINY, **changes)
    model = getattr(kd, f"{architecture}{ending}")(config, seed=0)
    counted = forward_flops(model.config, np.array([SIX]), cls_only=False)
    assert counted == 2 * one_layer(SIX) + OF_HEADS[architecture, ending]
    if "Sequence" not in ending:  # what is read of every token is computed for every token
        assert counted == forward_flops(model.config, np.array([SIX]))


def test_peak_is_the_best_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """6e9 operations in 3, 2, 1, 2, 3, ... seconds: 6e9 a second at best."""
    seconds = itertools.cycle([3.0, 2.0, 1.0, 2.0])
    clock = itertools.accumulate(itertools.chain.from_iterable([0.5, next(seconds)] for _ in itertools.count()))
    asked = []
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(flops._core, "multiply_adds", lambda rounds, threads: asked.append(threads) or 6e9)
    assert peak_flops(3) == 6e9
    assert set(asked) == {3}
