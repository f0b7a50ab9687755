"""`Given`: the rows of a call, padded or not, and values of their tokens in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch, pack
from ..data.label_values import NO_LABEL
from .outputs import PerToken


class Given(NamedTuple):
    """The rows of a call.

    Attributes:
        batch: all tokens that are not padding.
        width: S of padded rows, in whose form values of tokens are returned; None for lists.
    """

    batch: Batch
    width: int | None

    @classmethod
    def of(cls, input_ids: Mapping[str, Any] | Batch) -> Self:
        """Return the rows of a call, as `pack` takes them; raises what it raises."""
        batch = pack(input_ids)
        return cls(batch, None if isinstance(input_ids, Batch) else _width(input_ids, len(batch.ids)))

    def rows(self, values: NDArray[np.float32]) -> PerToken:
        """Return values of tokens, (N, ...), in the form of the rows."""
        starts = self.batch.starts
        pieces = np.split(values, starts[1:-1])
        if self.width is None:
            return pieces
        padded = np.zeros((len(pieces), self.width, *values.shape[1:]), np.float32)
        for row, piece in zip(padded, pieces, strict=True):
            row[: len(piece)] = piece
        return padded

    def probabilities(self, scores: NDArray[np.float32], heads: int) -> PerToken:
        """Return the softmax of scores, (heads, n, n) of one row behind the other's, in the form of the rows."""
        lengths = np.diff(self.batch.starts)
        flat = np.split(scores, np.cumsum(heads * lengths[:-1] ** 2))
        pieces = [_softmax(each.reshape(heads, n, n)) for each, n in zip(flat, lengths, strict=True)]
        if self.width is None:
            return pieces
        padded = np.zeros((len(pieces), heads, self.width, self.width), np.float32)
        for row, piece, n in zip(padded, pieces, lengths, strict=True):
            row[:, :n, :n] = piece
        return padded

    def labels(self, labels: Any) -> NDArray[np.int64]:
        """Return labels of tokens, given in the form of the rows, of the tokens that are not padding, (N,).

        Raises ValueError also where no token has a label.
        """
        lengths = np.diff(self.batch.starts)
        rows = [np.asarray(row) for row in labels]
        if len(rows) != len(lengths):
            raise ValueError(f"labels has {len(rows)} rows; input_ids has {len(lengths)}")
        for index, (row, n) in enumerate(zip(rows, lengths, strict=True)):
            if row.ndim != 1 or len(row) != (n if self.width is None else self.width):
                expected = n if self.width is None else self.width
                raise ValueError(f"labels[{index}] has shape {row.shape}; expected ({expected},), one for each token")
            if row.dtype.kind not in "iu":
                raise TypeError(f"labels[{index}] is {row.dtype}; expected whole numbers")
        flat = np.concatenate([row[:n] for row, n in zip(rows, lengths, strict=True)]).astype(np.int64)
        if (flat == NO_LABEL).all():
            raise ValueError(f"labels are {NO_LABEL} for every token; expected at least one token with a label")
        return flat


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def _width(given: Mapping[str, Any], tokens: int) -> int | None:
    """Return the width of padded rows: of an array, or of lists that a mask takes tokens of; None otherwise."""
    rows = given["input_ids"]
    shape: tuple[int, ...] = np.shape(rows) if hasattr(rows, "__array__") else ()
    if len(shape) == 2:
        return shape[1]
    lengths = {len(row) for row in rows} if rows and hasattr(rows[0], "__len__") else set()
    padded = len(lengths) == 1 and tokens < len(rows) * min(lengths)
    return lengths.pop() if padded else None
