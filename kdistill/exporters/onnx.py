"""The format ONNX (https://onnx.ai): a model as a graph of operators, for ONNX Runtime, transformers.js and OpenVINO.

Files in a directory have the names that transformers.js gives them; optimum finds them, too.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ..data.dataset import Dataset
from ..models.head_names import MASKED
from ..models.model import Model
from ..text.tokenizer import PreTrainedTokenizerFast
from .format import Built, Format
from .onnx_check import CheckedRows, compared
from .onnx_graph import graph_of, inputs_of, outputs_of
from .onnx_int8 import with_int8_weights
from .onnx_qdq import raised, with_int8_products

_MOST_BYTES = (1 << 31) - 1  # of a message of protobuf


def require(dtype: str) -> None:
    """Raise ImportError, which names the extra, where a package for this type is not installed."""
    needed = {"onnx": f"exporting to {ONNX.name}"}
    if dtype == "int8":
        needed["onnxruntime"] = f"exporting to {ONNX.name} with dtype int8"
    for package, what in needed.items():
        if find_spec(package) is None:
            raise ImportError(f'{what} needs the package {package}: pip install "kdistill[export]"', name=package)


def build(model: Model, dtype: str, tokenizer: PreTrainedTokenizerFast | None, rows: Dataset | None) -> Built:
    """Return the model as an ONNX file of one graph, which was compared with kdistill in ONNX Runtime if that is here.

    Args:
        model: holds float32 weights.
        dtype: "float32"; "float16": of weights and activations; "int8": weights of products and tables, see
            `with_int8_weights`. Outputs are float32.
        tokenizer: not in the graph, which takes tokens.
        rows: of "int8": whose activations show the ranges of a graph in the form QDQ, see `with_int8_products`; None:
            the ranges are found while it is computed.

    Raises:
        ValueError: the model is too large for one file of the format, or a weight for float16, or its logits are not
            finite.
        RuntimeError: ONNX Runtime gives other logits.
    """
    if rows is not None:
        return _with_ranges(model, dtype, rows)
    if dtype == "int8":
        graph = graph_of(model, "float32", one_table=False)
        _checked(graph)
        compared(graph.SerializeToString(), model, "float32")  # what is rounded is right
        content = with_int8_weights(graph, in_float=_head_nodes(model, graph))
    else:
        graph = graph_of(model, dtype)
        _checked(graph)
        content = graph.SerializeToString()
    return _built(model, content, compared(content, model, dtype))


def _with_ranges(model: Model, dtype: str, rows: Dataset) -> Built:
    """Return the model as a graph in the form QDQ, which is compared on the rows of its ranges."""
    import onnx

    alone = [CheckedRows.taken(model, rows, row) for row in range(len(rows))]
    graph = raised(graph_of(model, "float32"))
    _checked(graph)
    compared(graph.SerializeToString(), model, "float32", [CheckedRows.of(model), *alone])  # what is rounded is right
    content = with_int8_products(graph, [row.padded for row in alone])
    _checked(onnx.load_from_string(content))
    return _built(model, content, compared(content, model, dtype, alone))


def _built(model: Model, content: bytes, difference: float | None) -> Built:
    with_version = None if difference is None else f"onnxruntime {_version('onnxruntime')}"
    return Built(content, inputs_of(model), outputs_of(model), with_version, difference)


def _head_nodes(model: Model, graph: Any) -> list[str]:
    """Return the nodes of a head, which kdistill computes in float32 in every type; of words they are the largest."""
    return [] if model.head == MASKED else [node.name for node in graph.graph.node if node.name.startswith("head.")]


def _checked(graph: Any) -> None:
    """Raise ValueError for a graph that is too large, and whatever `onnx.checker` raises for one that is malformed."""
    import onnx

    if graph.ByteSize() > _MOST_BYTES:
        raise ValueError(
            f"the model takes {graph.ByteSize():,} bytes; expected at most {_MOST_BYTES:,}, which an ONNX file can hold"
        )
    onnx.checker.check_model(graph, full_check=True)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


ONNX = Format(
    name="onnx",
    ending=".onnx",
    files={
        "float32": "onnx/model.onnx",
        "float16": "onnx/model_fp16.onnx",
        "int8": "onnx/model_quantized.onnx",
    },
    with_ranges=("int8",),
    require=require,
    build=build,
)
