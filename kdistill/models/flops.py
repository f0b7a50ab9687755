"""Floating-point operations of a model's passes, and the machine's peak of them per second."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .configuration import Config
from .registry import ARCHITECTURES

_TRIES = 12
_TRY_ROUNDS = 6_000_000  # about 20 ms on a fast core, much longer than a thread's wake-up and short bursts of the clock


def forward_flops(config: Config, lengths: NDArray[np.integer[Any]], *, cls_only: bool = True) -> float:
    """Return the operations of all matrix products in one evaluation of sequences of these lengths.

    A product of (m, k) with (k, n) counts 2 m k n. Padding, activations and norms do not count. The head is that of
    `config.head`; one that predicts masked words counts as if every token were one.

    Args:
        config: the model's shape.
        lengths: integers (B,), tokens of each sequence.
        cls_only: True when the last layer computes the [CLS] rows alone and the query absorbs the weights of keys and
            values, as kdistill does where the head reads no others; False when it computes all tokens, as PyTorch and
            ONNX Runtime do.
    """
    linear, attention = _products(config, lengths, cls_only)
    return linear + attention


def training_flops(config: Config, lengths: NDArray[np.integer[Any]], *, cls_only: bool = True) -> float:
    """Return the operations of a forward and a backward pass, for the arguments of `forward_flops`.

    Backward has two products for each one with a weight (the gradients of both operands), and five for attention's
    two: the scores again, and the gradients of values, probabilities, queries and keys.
    """
    linear, attention = _products(config, lengths, cls_only)
    return 3.0 * linear + 3.5 * attention


def _products(config: Config, lengths: NDArray[np.integer[Any]], cls_only: bool) -> tuple[float, float]:
    """Return the operations of the products with weights, and those of attention's two products."""
    lengths = np.asarray(lengths, np.float64)
    sequences, tokens, squares = float(len(lengths)), float(lengths.sum()), float(np.square(lengths).sum())
    C, D = float(config.hidden_size), config.head_width
    architecture = ARCHITECTURES[config.model_type]
    tables, head = architecture.encoder(config).get("embedding_width", 0), architecture.head(config.head, config)
    reads_first = head["pick"] == "first"
    cls_only = cls_only and reads_first
    weights = [4 * C * shape.heads * D + 2 * C * shape.feed_forward for shape in config.layer_shapes()]
    widths = [shape.heads * D for shape in config.layer_shapes()]
    full_layers = config.num_hidden_layers - (1 if cls_only else 0)
    dense = head.get("dense_width", C) if head["dense"] else 0
    outputs = (sequences if reads_first else tokens) * 2 * (C * dense + (dense or C) * head["outputs"])
    linear = tokens * 2 * tables * C + tokens * 2 * sum(weights[:full_layers]) + outputs
    attention = squares * 4 * sum(widths[:full_layers])
    if cls_only:
        linear += sequences * 2 * weights[-1]
        attention += tokens * 4 * C * config.layer_shapes()[-1].heads
    return linear, attention


def peak_flops(threads: int) -> float:
    """Measure the peak of float32 operations per second, in multiply-adds on registers with the ISA level in use.

    Takes about 0.2 s.

    Args:
        threads: how many threads work together.

    Returns:
        Operations per second of all threads together.
    """
    best = 0.0
    for _ in range(_TRIES):
        started = time.perf_counter()
        operations = _core.multiply_adds(_TRY_ROUNDS, threads)
        best = max(best, operations / (time.perf_counter() - started))
    return best
