"""Weights of an ONNX file (https://onnx.ai), read through a memory map under the names that a checkpoint has.

The files are those of PyTorch's exporter, of optimum and of `kdistill export`. There every parameter has the name of a
checkpoint but the weight of a product, which is transposed and often has none: it is the one behind which the bias
"x.bias" is added, so it is "x.weight". Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .mapped_tensor import ELEMENT_TYPES, StoredTensor, contiguous_strides, map_file
from .protobuf import fields, numbers

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # of a model, and of its graph
_ELEMENT_TYPES = {1: "F32", 10: "F16", 11: "F64", 16: "BF16"}  # those of weights that are not quantised
_WEIGHT, _BIAS = ".weight", ".bias"
_QUANTISED = ("MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "MatMulNBits")
_MOST_AXES = 8


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> dict[str, StoredTensor]:
    """Return the weights of a file by the names of a checkpoint, not yet read.

    Raises:
        ValueError: the file violates the format, its weights are quantised or lie in other files, or they have no
            names.
    """
    try:
        tensors, nodes = _graph(map_file(path).data)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith(str(path)) else f"{path} is not an ONNX model: {said}") from error
    quantised = next((node.kind for node in nodes if node.kind in _QUANTISED), None)
    if quantised is not None:
        raise ValueError(f"{path} has quantised weights ({quantised}); expected a model in float32 or float16")
    for node in nodes:
        if (
            node.kind == "Identity" and node.inputs[:1] and node.inputs[0] in tensors
        ):  # of equal values the file has one
            tensors |= dict.fromkeys(node.outputs, tensors[node.inputs[0]])
    found = {name: tensor for name, tensor in tensors.items() if name.endswith((_WEIGHT, _BIAS))}
    for name, weight in _products(nodes, tensors):
        if found.setdefault(name, weight).storage.ctypes.data != weight.storage.ctypes.data:
            raise ValueError(f"{path} has two weights for {name!r}")
    if not any(name.endswith(_WEIGHT) for name in found):
        raise ValueError(
            f"{path} has no weights under the names of a checkpoint, such as 'embeddings.word_embeddings.weight'; "
            "expected a file of optimum, of PyTorch's exporter or of `kdistill export`"
        )
    return found


def _graph(data: memoryview) -> tuple[dict[str, StoredTensor], list[_Node]]:
    tensors: dict[str, StoredTensor] = {}
    nodes = []
    for graph in _messages(data, _GRAPH):
        for number, value in fields(graph):
            if not isinstance(value, memoryview):
                continue
            if number == _INITIALIZER:
                name, tensor = _tensor(value)
                if name in tensors:
                    raise ValueError(f"the name {name!r} occurs twice")
                if tensor is not None:
                    tensors[name] = tensor
            elif number == _NODE:
                nodes.append(_node(value))
    if not tensors:
        raise ValueError("it has no weights")
    return tensors, nodes


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def _text(value: memoryview) -> str:
    return value.tobytes().decode("utf-8")


def _node(data: memoryview) -> _Node:
    inputs, outputs, kind = [], [], ""
    for number, value in fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
    return _Node(kind, tuple(inputs), tuple(outputs))


def _tensor(data: memoryview) -> tuple[str, StoredTensor | None]:
    """Return a tensor's name, and the tensor if it holds floating-point numbers."""
    shape: list[int] = []
    name, kind, content, elsewhere = "", 0, data[:0], False
    for number, value in fields(data):
        if number == 1:
            shape += numbers(value) if isinstance(value, memoryview) else [value] if isinstance(value, int) else []
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = _text(value)
        elif number in (4, 9, 10) and isinstance(value, memoryview):  # floats, bytes, doubles
            content = value
        elif number in (13, 14):
            elsewhere = elsewhere or value != 0
    if elsewhere:
        raise ValueError(f"tensor {name!r} lies in another file; expected one file")
    if kind not in _ELEMENT_TYPES:
        return name, None
    element_type = _ELEMENT_TYPES[kind]
    size = math.prod(shape) * ELEMENT_TYPES[element_type].itemsize
    if len(shape) > _MOST_AXES or size != len(content):
        raise ValueError(f"tensor {name!r} of shape {shape[:_MOST_AXES]} takes {size} bytes and has {len(content)}")
    storage = np.frombuffer(content, np.uint8)
    return name, StoredTensor(element_type, tuple(shape), contiguous_strides(tuple(shape)), 0, storage)


def _products(nodes: list[_Node], tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, StoredTensor]]:
    """Yield (name, weight) of products behind which a bias with a name is added."""
    weights = {
        node.outputs[0]: tensors[node.inputs[1]]
        for node in nodes
        if node.kind == "MatMul" and len(node.inputs) == 2 and node.outputs and node.inputs[1] in tensors
    }
    for node in nodes:
        if node.kind != "Add" or len(node.inputs) != 2:
            continue
        for product, bias in (node.inputs, node.inputs[::-1]):
            if product in weights and bias in tensors and bias.endswith(_BIAS) and len(weights[product].shape) == 2:
                weight = weights[product]
                turned = replace(weight, shape=weight.shape[::-1], strides=weight.strides[::-1])
                yield bias.removesuffix(_BIAS) + _WEIGHT, turned
