"""Floating-point operations: those of a model's passes, and how many a second this machine can do."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .config import BertConfig

_TRIES = 12
_TRY_ROUNDS = 6_000_000  # some 20 ms on a fast core: long beside a thread's wake-up and a moment of a higher clock


def forward_flops(config: BertConfig, lengths: NDArray[np.integer[Any]], *, cls_only: bool = True) -> float:
    """Operations of the matrix products in one evaluation of sequences of these lengths, real tokens only.

    A product of (m, k) with (k, n) counts 2 m k n. Nothing else counts: no padding, no activation, no norm.

    Args:
        config: the model's shape.
        lengths: (B,), tokens of each sequence.
        cls_only: the last layer for the [CLS] rows alone, with the weights of keys and values absorbed by the query, as
            kdistill executes it; False: for all tokens, as PyTorch and ONNX Runtime do.
    """
    linear, attention = _products(config, lengths, cls_only)
    return linear + attention


def training_flops(config: BertConfig, lengths: NDArray[np.integer[Any]], *, cls_only: bool = True) -> float:
    """The same of a forward pass and a backward pass.

    Backward has two products for each one with a weight (the gradients of both operands), and five for attention's
    two: the scores again, and the gradients of values, probabilities, queries and keys.
    """
    linear, attention = _products(config, lengths, cls_only)
    return 3.0 * linear + 3.5 * attention


def _products(config: BertConfig, lengths: NDArray[np.integer[Any]], cls_only: bool) -> tuple[float, float]:
    """Operations of the products with weights, and of attention's own two."""
    lengths = np.asarray(lengths, np.float64)
    sequences, tokens, squares = float(len(lengths)), float(lengths.sum()), float(np.square(lengths).sum())
    C, F = float(config.hidden_size), float(config.intermediate_size)
    full_layers = config.num_hidden_layers - (1 if cls_only else 0)
    linear = full_layers * tokens * (8 * C * C + 4 * C * F) + sequences * 2 * C * (C + config.num_labels)
    attention = full_layers * squares * 4 * C
    if cls_only:
        linear += sequences * (8 * C * C + 4 * C * F)
        attention += tokens * 4 * C * config.num_attention_heads
    return linear, attention


def peak_flops(threads: int) -> float:
    """float32 operations a second that `threads` threads do together in multiply-adds without memory, measured.

    With the instruction set in use (`isa_level()`); takes about 0.2 s.
    """
    best = 0.0
    for _ in range(_TRIES):
        started = time.perf_counter()
        operations = _core.multiply_adds(_TRY_ROUNDS, threads)
        best = max(best, operations / (time.perf_counter() - started))
    return best
