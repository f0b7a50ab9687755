"""Hashes of a model's flat array that is not in memory as a whole: its tensors come one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .parameters import Flat, Tensor


class FlatDigest:
    """The sha256 of a flat array, with the zeros that align its tensors.

    Args:
        size: of the array.
        *digests: begun ones that take it; default: a new one.
    """

    def __init__(self, size: int, *digests: hashlib._Hash) -> None:
        self._size, self._position = size, 0
        self._digests = digests or (hashlib.sha256(),)

    def add(self, offset: int, values: Flat) -> None:
        """Take the values that lie there in the array; further on than those before."""
        self._skip_to(offset)
        for digest in self._digests:
            digest.update(values.data)
        self._position += values.size

    def finished(self) -> list[str]:
        """Return the digests of the whole array, in hexadecimal digits."""
        self._skip_to(self._size)
        return [digest.hexdigest() for digest in self._digests]

    def _skip_to(self, position: int) -> None:
        for digest in self._digests:
            digest.update(bytes(4 * (position - self._position)))
        self._position = position


class HashedFilling:
    """Takes a model's tensors, in the order of the layout, for a digest alone.

    Args:
        layout: the tensors.
        digest: takes them.
    """

    def __init__(self, layout: Sequence[Tensor], digest: FlatDigest) -> None:
        self._shared, self._digest = np.empty(max(tensor.size for tensor in layout), np.float32), digest

    @contextmanager
    def __call__(self, tensor: Tensor) -> Iterator[Flat]:
        """Yield the array to write a tensor to, which the next one takes over."""
        values = self._shared[: tensor.size].reshape(tensor.shape)
        yield values
        self._digest.add(tensor.offset, values)
