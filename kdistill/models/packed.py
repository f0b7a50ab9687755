"""Models that hold the weights of their products packed alone, and are filled tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .. import _core
from ..formats.int8 import Int8Rows, widened
from .flat_digest import FlatDigest
from .initialization import WORD_EMBEDDINGS
from .parameters import EMBEDDINGS, Flat, Tensor, TensorViews

_ROWS = 4096  # of a table that are widened at once
_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}  # of a weight of the encoder's products


def is_product(tensor: Tensor) -> bool:
    """Return whether a pass reads the tensor only as the packed weight of a product: all matrices but embeddings."""
    return tensor.decay and tensor.canonical not in EMBEDDINGS


def bytes_without_products(layout: Sequence[Tensor], words: Int8Rows | None = None) -> int:
    """Return the bytes of the tensors that stay beside packed weights: in float32, or with `words` these in int8."""
    kept = sum(4 * tensor.size for tensor in layout if not is_product(tensor))
    return kept if words is None else kept - 4 * words.integers.size + words.integers.nbytes + words.scales.nbytes


def bytes_packed_alone(layout: Sequence[Tensor], compute: str) -> int:
    """Return about how many bytes the weights of a model take that holds those of its products packed alone."""
    products = sum(tensor.size for tensor in layout if is_product(tensor))
    return bytes_without_products(layout) + _BYTES[compute] * products


class PackedFilling:
    """Fills the core of a model that holds packed weights alone.

    Tensors are filled in the order of the layout. A product's weight is packed from memory that all of them share; what
    a pass reads in float32 is written to its place in the flat array. Word embeddings in int8 stay so.

    Args:
        layout: the tensors.
        flat: zeros that take no memory until they are written, see `sparse_zeros`; the core's parameters.
        core: a frozen one over `flat`.
        digest: takes the values of all tensors; None: nobody asks for it yet.

    Attributes:
        words: the word embeddings in int8; None where they lie in `flat`.
    """

    words: Int8Rows | None = None

    def __init__(
        self, layout: Sequence[Tensor], flat: Flat, core: _core.Model, digest: FlatDigest | None = None
    ) -> None:
        self._index = {tensor.name: index for index, tensor in enumerate(layout)}
        names = {tensor.canonical for tensor in layout}
        self._tied = "head.output.bias" in names and "head.output" not in names
        self._views, self._core = TensorViews(flat, layout), core
        self._shared = np.empty(max(tensor.size for tensor in layout if is_product(tensor)), np.float32)
        self._digest = digest

    @contextmanager
    def __call__(self, tensor: Tensor) -> Iterator[Flat]:
        """Yield the array to write a tensor to, and take it over."""
        product = is_product(tensor)
        values = self._shared[: tensor.size].reshape(tensor.shape) if product else self._views[tensor.name]
        yield values
        if self._digest is not None:
            self._digest.add(tensor.offset, values)
        if product or (self._tied and tensor.canonical == WORD_EMBEDDINGS):
            self._core.pack(self._index[tensor.name], values)

    @property
    def take_int8(self) -> Callable[[Tensor, Int8Rows], None] | None:
        """What takes word embeddings in int8; None where they are a product's weight, too, which reads float32."""
        return None if self._tied else self._take_words

    def _take_words(self, tensor: Tensor, rows: Int8Rows) -> None:
        for start in range(0, len(rows.integers) if self._digest is not None else 0, _ROWS):
            part = slice(start, start + _ROWS)
            assert self._digest is not None
            self._digest.add(tensor.offset + start * tensor.shape[1], widened(rows.integers[part], rows.scales[part]))
        self._core.take_words(*rows)
        self.words = rows
