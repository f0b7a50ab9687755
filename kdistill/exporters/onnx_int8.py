"""An ONNX graph with int8 weights, as ONNX Runtime's dynamic quantisation makes it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


def with_int8_weights(graph: Any, *, in_float: Collection[str] = ()) -> bytes:
    """Return the content of a graph's file with the weights of its products, and its tables, in int8.

    The products' activations are rounded to uint8 by their own range while they are computed
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        graph: an `onnx.ModelProto` in float32; it is changed.
        in_float: names of nodes that stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    mark_prepared(graph)
    with tempfile.TemporaryDirectory(prefix="kdistill-") as directory:
        target = Path(directory) / "quantized.onnx"
        quantize_dynamic(graph, target, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=list(in_float))
        return target.read_bytes()


def mark_prepared(graph: Any) -> None:
    """Keep ONNX Runtime from advising to fold and fuse first, which suits graphs that a tracer has written."""
    from onnx import helper

    helper.set_model_props(graph, dict([_PREPARED]))
