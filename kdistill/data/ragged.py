"""Rows of different lengths one after another: a model's outputs for each token of a row, and the tokens' labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..system.names import missing_attribute


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths. NumPy sees it as one padded array, see `padded`; iterating gives the rows.

    Compared with `==` or `!=`, or indexed by anything but an integer, it is the padded array, too.

    Attributes:
        values: (units, ...), the rows one after another; float32 (units, K) for the outputs of a model.
        starts: int64 (rows + 1,), row r holds values[starts[r]:starts[r + 1]].
    """

    values: NDArray[Any]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The units of each row, int64 (rows,)."""
        return np.diff(self.starts)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `padded`: (rows, longest, ...)."""
        return (len(self), int(self.lengths.max(initial=0)), *self.values.shape[1:])

    def __getitem__(self, key: Any) -> Any:
        """Return a row for an integer, a view (units of the row, ...); else what `padded` has there. Raises IndexError.

        Args:
            key: a place, or what an array takes besides: a slice, a mask, a list, or a tuple of these.
        """
        if isinstance(key, bool) or not isinstance(key, int | np.integer):
            return self.padded()[key]
        if not -len(self) <= key < len(self):
            raise IndexError(f"row {key} of {len(self)} rows")
        row = key % len(self)
        return self.values[self.starts[row] : self.starts[row + 1]]

    def __eq__(self, other: object) -> Any:
        """Return where `padded` is equal to another array or number, bool (rows, longest, ...)."""
        return self.padded() == (other.padded() if isinstance(other, Ragged) else other)

    def __ne__(self, other: object) -> Any:
        """Return where `padded` is not equal to another array or number, bool (rows, longest, ...)."""
        return self.padded() != (other.padded() if isinstance(other, Ragged) else other)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with the array that has the attribute."""
            hint = f"np.asarray(...).{name} is that of the padded array"
            raise missing_attribute(self, name, {name: hint} if hasattr(np.ndarray, name) else {})

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> Ragged:
        """Return the rows at these places, in that order."""
        return Ragged(
            self.values[units_of(self.starts, rows)], starts_of(self.lengths[np.asarray(rows, dtype=np.int64)])
        )

    def selected(self, units: NDArray[np.bool_]) -> Ragged:
        """Return the rows with those of their units alone that are true in `units`, bool (units,)."""
        before = np.concatenate(([0], np.cumsum(units, dtype=np.int64)))
        return Ragged(self.values[units], before[self.starts])

    def padded(self, filler: float = -100) -> NDArray[Any]:
        """Return the rows as one array (rows, longest, ...), with `filler` behind the end of each, as transformers."""
        array = np.full(self.shape, filler, dtype=self.values.dtype)
        array[np.arange(self.shape[1]) < self.lengths[:, None]] = self.values
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return `padded`."""
        return self.padded() if dtype is None else self.padded().astype(dtype)

    @staticmethod
    def concatenated(parts: Sequence[Ragged]) -> Ragged:
        """Return the rows of all parts, one after another."""
        lengths = np.concatenate([part.lengths for part in parts])
        return Ragged(np.concatenate([part.values for part in parts]), starts_of(lengths))


Outputs = NDArray[np.float32] | Ragged
"""Outputs of a model for some rows: float32 (rows, K), or of a head per token `Ragged` of float32 (tokens, K)."""


def outputs_of(values: NDArray[np.float32], starts: NDArray[np.int64], per_token: bool) -> Outputs:
    """Return what a model returns for rows as `Outputs`.

    Args:
        values: float32 (rows, K), or with `per_token` (tokens, K) of packed rows.
        starts: where the tokens of each row begin, int64 (rows + 1,).
        per_token: whether there is an output for each token.
    """
    return Ragged(values, starts) if per_token else values


def starts_of(lengths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return where rows of these lengths begin, and where the last one ends, int64 (rows + 1,)."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def units_of(starts: NDArray[np.int64], rows: NDArray[np.integer[Any]] | Sequence[int]) -> NDArray[np.int64]:
    """Return the places of the units of these rows, in the order of the rows, int64 (units,)."""
    rows = np.asarray(rows, dtype=np.int64)
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(starts[rows] - ends + lengths, lengths)
    places: NDArray[np.int64] = np.arange(len(shift)) + shift
    return places


def runs_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the run of equal entries that each entry lies in, from 0, int64 (n,)."""
    return np.cumsum(np.concatenate(([0], np.diff(values) != 0))[: len(values)], dtype=np.int64)


def take_rows(of: Any, rows: NDArray[np.integer[Any]] | Sequence[int]) -> Any:
    """Return the rows at these places, of an array with an entry for each row or of a `Ragged`."""
    return of[rows] if isinstance(of, np.ndarray) else of.take(rows)


def units(of: Any) -> Any:
    """Return an entry for each unit: the values of a `Ragged`; an array is returned as it is, its rows are units."""
    return of.values if isinstance(of, Ragged) else of
