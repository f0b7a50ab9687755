"""Models that hold the weights of their products packed alone, and are filled tensor by tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .. import _core
from .initialization import WORD_EMBEDDINGS
from .parameters import EMBEDDINGS, Flat, Tensor, TensorViews

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of a weight of the encoder's products


def is_product(tensor: Tensor) -> bool:
    """Return whether a pass reads the tensor only as the packed weight of a product: all matrices but embeddings."""
    return tensor.decay and tensor.canonical not in EMBEDDINGS


def bytes_without_products(layout: Sequence[Tensor]) -> int:
    """Return the bytes of the tensors that stay in float32 beside packed weights."""
    return sum(4 * tensor.size for tensor in layout if not is_product(tensor))


def bytes_packed_alone(layout: Sequence[Tensor], compute: str) -> int:
    """Return about how many bytes the weights of a model take that holds those of its products packed alone."""
    products = sum(tensor.size for tensor in layout if is_product(tensor))
    return bytes_without_products(layout) + _BYTES[compute] * products


class PackedFilling:
    """Fills the core of a model that holds packed weights alone.

    Tensors are filled in the order of the layout. A product's weight is packed from memory that all of them share; what
    a pass reads in float32 is written to its place in the flat array.

    Args:
        layout: the tensors.
        flat: zeros that take no memory until they are written, see `sparse_zeros`; the core's parameters.
        core: a frozen one over `flat`.
    """

    def __init__(self, layout: Sequence[Tensor], flat: Flat, core: _core.Model) -> None:
        self._index = {tensor.name: index for index, tensor in enumerate(layout)}
        names = {tensor.canonical for tensor in layout}
        self._tied = "head.output.bias" in names and "head.output" not in names
        self._views, self._core = TensorViews(flat, layout), core
        self._shared = np.empty(max(tensor.size for tensor in layout if is_product(tensor)), np.float32)
        self._digest, self._position, self._size = hashlib.sha256(), 0, flat.size

    @contextmanager
    def __call__(self, tensor: Tensor) -> Iterator[Flat]:
        """Yield the array to write a tensor to, and take it over."""
        product = is_product(tensor)
        values = self._shared[: tensor.size].reshape(tensor.shape) if product else self._views[tensor.name]
        yield values
        self._skip_to(tensor.offset)
        self._digest.update(values.data)
        self._position += tensor.size
        if product or (self._tied and tensor.canonical == WORD_EMBEDDINGS):
            self._core.pack(self._index[tensor.name], values)

    def _skip_to(self, position: int) -> None:
        """Take the zeros between tensors into the digest."""
        self._digest.update(bytes(4 * (position - self._position)))
        self._position = position

    def digest(self) -> str:
        """Return the sha256 of the flat array as it would be with all tensors in float32."""
        self._skip_to(self._size)
        return self._digest.hexdigest()
