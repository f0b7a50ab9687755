"""Write an ONNX file without the package, field by field as onnx.proto has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from support.sentencepiece_files import text_field, varint

FLOAT, FLOAT16 = 1, 10


def number_field(number: int, value: int) -> bytes:
    """Return a field of a whole number; of a negative one as it is written, as 64 bits."""
    return varint(number << 3) + varint(value % 2**64)


def tensor(name: str, shape: Sequence[int], content: bytes, kind: int = FLOAT) -> bytes:
    """Return an initializer."""
    written = b"".join(number_field(1, size) for size in shape) + number_field(2, kind)
    return written + text_field(8, name.encode()) + text_field(9, content)


def node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    """Return a node."""
    written = b"".join(text_field(1, name.encode()) for name in inputs)
    return written + text_field(2, output.encode()) + text_field(4, kind.encode())


def onnx_file(tensors: Sequence[bytes], nodes: Sequence[bytes] = ()) -> bytes:
    """Return the content of a file."""
    graph = b"".join(text_field(1, each) for each in nodes) + b"".join(text_field(5, each) for each in tensors)
    return number_field(1, 8) + text_field(7, graph)


def sound_onnx_file() -> bytes:
    """A product whose weight has no name and whose bias has one, and what is no weight."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = [
        tensor("onnx::MatMul_7", (2, 3), weight.tobytes()),
        tensor("a.dense.bias", (3,), np.arange(3, dtype=np.float16).tobytes(), FLOAT16),
        tensor("places", (1,), bytes(8), kind=7),
    ]
    return onnx_file(tensors, [node("MatMul", ["x", "onnx::MatMul_7"], "y"), node("Add", ["a.dense.bias", "y"], "z")])
