"""An ONNX graph in the form QDQ: products in int8, whose activations are rounded in ranges that rows have shown."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_int8 import mark_prepared

_OPSET = 13  # the first in which a weight has a scale for each of its columns
# Without `down`, whose inputs have the widest ranges: see docs/how-to/export.md for what it would bring and cost. Of
# layers that share their weights, all but the first have a number behind the name.
_PRODUCT = re.compile(r"layer\.\d+\.(query|key|value|output|up)/MatMul(_\d+)?")


def raised(graph: Any) -> Any:
    """Return an `onnx.ModelProto` in the opset that `with_int8_products` needs."""
    from onnx.version_converter import convert_version

    return convert_version(graph, _OPSET)


def products(graph: Any) -> list[str]:
    """Return the names of the nodes that become int8: in all layers the products query, key, value, output and up."""
    return [node.name for node in graph.graph.node if _PRODUCT.fullmatch(node.name)]


def with_int8_products(graph: Any, rows: Iterable[Mapping[str, NDArray[np.int64]]]) -> bytes:
    """Return the content of a graph's file with the layers' products in int8, as ONNX Runtime's quantiser writes them.

    Weights have a scale for each output. The input of each product is rounded to uint8 between the least and the
    greatest number that it has in `rows`. Its output stays float32, and so does what others read of its input: that is
    nearer to the model, and faster in OpenVINO (docs/how-to/export.md).

    Args:
        graph: an `onnx.ModelProto` in float32, see `raised`; it is changed.
        rows: what the graph is computed on for the ranges, by the names of its inputs.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    mark_prepared(graph)
    names = products(graph)
    with tempfile.TemporaryDirectory(prefix="kdistill-") as directory:
        target = Path(directory) / "quantized.onnx"
        quantize_static(
            graph,
            target,
            _Reader(rows),
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=names,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        written = onnx.load(target)
    _give_others_what_is_not_rounded(written.graph, names)
    content: bytes = written.SerializeToString()
    return content


def _give_others_what_is_not_rounded(graph: Any, products: Collection[str]) -> None:
    """Let all nodes but products read a value as it is: the quantiser gives what it has rounded to all that read it."""
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in products or node.op_type == "DequantizeLinear":
            continue
        for place, name in enumerate(node.input):
            widened = made.get(name)
            if widened is not None and widened.op_type == "DequantizeLinear" and widened.input[0] in made:
                node.input[place] = made[widened.input[0]].input[0]


class _Reader:
    """Rows as the quantiser takes them: a `CalibrationDataReader`."""

    def __init__(self, rows: Iterable[Mapping[str, NDArray[np.int64]]]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> Mapping[str, NDArray[np.int64]] | None:
        """Return the next row; None: there is none."""
        return next(self._rows, None)
