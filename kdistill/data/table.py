"""Columns of equal length, with the few operations of a `datasets.Dataset` that preparing text needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sampler import RandomSampler


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, and where they came from. Operations return a new table.

    Attributes:
        source: the file or object, for messages.
        columns: values by column name.
        places: file and line of each row (`train.tsv:17`), or None when the rows did not come from files of lines.
        class_names: names of the labels 0, 1, ... of a column, where the source states them (`datasets.ClassLabel`).
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str] | None = None
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {self.source} differ in length: {lengths}")

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping[str, Any]], source: str, places: Sequence[str] | None = None
    ) -> Table:
        """Make a table of dicts. A key that a row lacks is None there, so that a missing text is found with its row."""
        names = dict.fromkeys(name for record in records for name in record)
        return cls(source, {name: [record.get(name) for record in records] for name in names}, places)

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    @property
    def num_rows(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, key: str | int) -> Any:
        """Return a column as a list, or a row as a dict. Raises KeyError or IndexError."""
        if isinstance(key, str):
            self._require(key)
            return list(self.columns[key])
        return {name: values[key] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def where(self, row: int) -> str:
        """Return the place of a row for a message: `train.tsv:17`, or `row 16 of the list`."""
        return f"row {row} of {self.source}" if self.places is None else self.places[row]

    def map(
        self,
        function: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        batched: bool = False,
        batch_size: int = 1000,
        remove_columns: str | Sequence[str] = (),
    ) -> Table:
        """Add the columns that `function` returns for each row, such as `lambda row: tokenizer(row["sentence"])`.

        Args:
            function: (row as a dict) -> dict of new values.
            batched: `function` gets `batch_size` rows at a time, a dict of lists, and returns a dict of lists.
            batch_size: rows of a call when `batched`.
            remove_columns: columns to leave out of the result unless `function` returns them anew.

        Raises:
            TypeError: `function` does not return a mapping.
            ValueError: `function` returns another number of rows.
        """
        kept = self.remove_columns(remove_columns)
        added: dict[str, list[Any]] = {}
        step = batch_size if batched else 1
        for first in range(0, len(self), step):
            stop = min(first + step, len(self))
            result = function(
                {name: list(values[first:stop]) for name, values in self.columns.items()} if batched else self[first]
            )
            if not isinstance(result, Mapping):
                raise TypeError(f"the mapped function returned a {type(result).__name__}; expected a dict of columns")
            for name, values in result.items():
                added.setdefault(name, []).extend(values if batched else [values])
        return replace(kept, columns={**kept.columns, **added})

    def rename_column(self, original_column_name: str, new_column_name: str) -> Table:
        """Return the same rows with a column renamed. Raises KeyError, or ValueError when the name is taken."""
        self._require(original_column_name)
        if new_column_name in self.columns:
            raise ValueError(f"{self.source} has a column {new_column_name!r} already")
        names = {name: new_column_name if name == original_column_name else name for name in self.columns}
        return replace(
            self,
            columns={names[name]: values for name, values in self.columns.items()},
            class_names={names[name]: values for name, values in self.class_names.items()},
        )

    def remove_columns(self, column_names: str | Sequence[str]) -> Table:
        """Return the same rows without some columns. Raises KeyError for a column that is not there."""
        removed = [column_names] if isinstance(column_names, str) else column_names
        for name in removed:
            self._require(name)
        return replace(self, columns={name: values for name, values in self.columns.items() if name not in removed})

    def select(self, indices: Iterable[int] | NDArray[np.integer[Any]]) -> Table:
        """Return the rows at `indices`, in that order. Raises IndexError."""
        rows = [int(index) for index in indices]
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        places = None if self.places is None else [self.places[row] for row in rows]
        return replace(self, columns=columns, places=places)

    def filter(self, function: Callable[[dict[str, Any]], object]) -> Table:
        """Return the rows for which `function`, given each as a dict, is true."""
        return self.select([index for index, row in enumerate(self) if function(row)])

    def shuffle(self, seed: int = 0) -> Table:
        """Return the rows in an order that depends on their number and `seed` alone."""
        return self.select(RandomSampler(len(self), seed).permutation(0))

    def train_test_split(self, test_size: float = 0.25, *, seed: int = 0) -> DatasetDict:
        """Split shuffled rows into `train` and `test`, the same for the same number of rows and `seed`.

        Args:
            test_size: rows of `test`: a share between 0 and 1, rounded up, or a number.
            seed: of the order.

        Raises:
            ValueError: a split would be empty.
        """
        count = test_size if isinstance(test_size, int) else math.ceil(test_size * len(self))
        if not 0 < count < len(self):
            raise ValueError(f"test_size is {test_size}, {count} of {len(self)} rows; expected rows in both splits")
        order = RandomSampler(len(self), seed).permutation(0)
        return DatasetDict({"train": self.select(order[count:]), "test": self.select(order[:count])})

    def __repr__(self) -> str:
        return f"Table({self.source!r}, columns: {listing(self.columns)}; {len(self)} rows)"

    def _require(self, column: str) -> None:
        if column not in self.columns:
            raise KeyError(f"{self.source} has no column {column!r}; its columns are {listing(self.columns)}")


class DatasetDict(dict[str, Table]):
    """Splits by name. `map`, `filter`, `rename_column` and `remove_columns` apply to each of them, see `Table`."""

    def map(self, function: Callable[[dict[str, Any]], Mapping[str, Any]], **options: Any) -> DatasetDict:
        return self._each(lambda table: table.map(function, **options))

    def filter(self, function: Callable[[dict[str, Any]], object]) -> DatasetDict:
        return self._each(lambda table: table.filter(function))

    def rename_column(self, original_column_name: str, new_column_name: str) -> DatasetDict:
        return self._each(lambda table: table.rename_column(original_column_name, new_column_name))

    def remove_columns(self, column_names: str | Sequence[str]) -> DatasetDict:
        return self._each(lambda table: table.remove_columns(column_names))

    @property
    def column_names(self) -> dict[str, list[str]]:
        return {name: table.column_names for name, table in self.items()}

    @property
    def num_rows(self) -> dict[str, int]:
        return {name: len(table) for name, table in self.items()}

    def _each(self, operation: Callable[[Table], Table]) -> DatasetDict:
        return DatasetDict({name: operation(table) for name, table in self.items()})


def listing(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(names) or "none"
