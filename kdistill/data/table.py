"""Columns of equal length, with the few operations of a `datasets.Dataset` that preparing text needs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..system.names import did_you_mean, listing, missing_attribute
from .sampler import RandomSampler

# Arguments of the methods of `datasets.Dataset` that are about processes, caches and types.
_IGNORED = (
    "num_proc", "keep_in_memory", "load_from_cache_file", "cache_file_name", "writer_batch_size", "desc",
    "disable_nullable", "suffix_template", "new_fingerprint", "features", "try_original_type", "on_mixed_types",
    "indices_cache_file_name", "train_indices_cache_file_name", "test_indices_cache_file_name",
    "train_new_fingerprint", "test_new_fingerprint",
)  # fmt: skip
_FORMATS = "columns are lists, which a trainer takes as they are; leave it out"
_WHOLE = "load the rows with datasets.load_dataset, whose Dataset has it and which a trainer takes as well"
# What a `datasets.Dataset` has and a table has not -> what to use.
_INSTEAD = {
    **dict.fromkeys(
        ("set_format", "with_format", "reset_format", "format", "set_transform", "with_transform"), _FORMATS
    ),
    **dict.fromkeys(("cast", "cast_column", "add_item", "sort", "shard", "flatten", "take", "skip", "iter"), _WHOLE),
    **dict.fromkeys(("save_to_disk", "to_csv", "to_json", "to_parquet", "push_to_hub", "to_pandas", "data"), _WHOLE),
    "unique": 'sorted(set(table["label"]))',
    "features": "column_names has the columns, and class_names the names of labels",
    "class_encode_column": "a trainer numbers the labels itself; leave it out",
    "add_column": "map returns further columns of a row",
    "shape": "num_rows and column_names",
    "num_columns": "len(column_names)",
    "select_columns": "remove_columns leaves out the others",
    "to_dict": "columns is a dict of lists",
    "to_list": "list(table)",
}


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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with what to use instead of an attribute of a `datasets.Dataset`."""
            raise missing_attribute(self, name, _INSTEAD)

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
            return list(self.column(key))
        return {name: values[key] for name, values in self.columns.items()}

    def column(self, name: str) -> Sequence[Any]:
        """Return a column as it is held. Raises KeyError, with the names that there are."""
        self._require(name)
        return self.columns[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))

    def where(self, row: int) -> str:
        """Return the place of a row for a message: `train.tsv:17`, or `row 16 of the list`."""
        return f"row {row} of {self.source}" if self.places is None else self.places[row]

    def map(
        self,
        function: Callable[..., Mapping[str, Any] | None],
        with_indices: bool = False,
        *,
        input_columns: str | Sequence[str] | None = None,
        batched: bool = False,
        batch_size: int | None = 1000,
        drop_last_batch: bool = False,
        remove_columns: str | Sequence[str] | None = (),
        fn_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Table:
        """Add the columns that `function` returns for each row, such as `lambda row: tokenizer(row["sentence"])`.

        Args:
            function: (row as a dict) -> dict of new values, or None to change nothing.
            with_indices: whether `function` also gets the number of the row, or those of the batch.
            input_columns: columns whose values `function` gets one by one, instead of a dict.
            batched: `function` gets `batch_size` rows at a time, a dict of lists, and returns a dict of lists.
            batch_size: rows of a call when `batched`; None is all of them.
            drop_last_batch: leave out the last batch when it is smaller.
            remove_columns: columns to leave out of the result unless `function` returns them anew.
            fn_kwargs: further arguments of `function`.
            others: what `datasets` takes about processes and caches, such as `num_proc`; ignored with a warning.

        Raises:
            TypeError: `function` does not return a mapping, or an argument is unknown.
            ValueError: `function` returns another number of rows.
        """
        _ignore("map", others)
        step = (batch_size or max(len(self), 1)) if batched else 1
        size = len(self) - len(self) % step if batched and drop_last_batch else len(self)
        rows = self if size == len(self) else self.select(range(size))
        kept = rows.remove_columns(remove_columns or ())
        added: dict[str, list[Any]] = {}
        call = _Call(function, with_indices, input_columns, fn_kwargs)
        for first in range(0, size, step):
            places = range(first, min(first + step, size))
            result = call(rows, places if batched else first)
            if result is None:
                continue
            if not isinstance(result, Mapping):
                raise TypeError(f"the mapped function returned a {type(result).__name__}; expected a dict of columns")
            for name, values in result.items():
                added.setdefault(name, []).extend(values if batched else [values])
        mapped = {**kept.columns, **added}
        changed = {name for name, values in added.items() if list(self.columns.get(name, ())) != values}
        count = len(next(iter(mapped.values()), ()))
        return Table(
            kept.source,
            mapped,
            kept.places if count == size else None,
            {name: names for name, names in kept.class_names.items() if name not in changed},
        )

    def with_class_names(self, class_names: Mapping[str, Sequence[str]]) -> Table:
        """Return the same rows with names for the labels 0, 1, ... of some of the columns."""
        known = {column: names for column, names in class_names.items() if column in self.columns}
        return replace(self, class_names={**self.class_names, **known})

    def rename_column(self, original_column_name: str, new_column_name: str) -> Table:
        """Return the same rows with a column renamed. Raises KeyError, or ValueError when the name is taken."""
        self._require(original_column_name)
        if new_column_name in self.columns:
            raise ValueError(f"{self.source} has a column {new_column_name!r} already")
        names = {name: new_column_name if name == original_column_name else name for name in self.columns}
        return replace(
            self,
            columns={names[name]: values for name, values in self.columns.items()},
            class_names={names.get(name, name): values for name, values in self.class_names.items()},
        )

    def remove_columns(self, column_names: str | Sequence[str]) -> Table:
        """Return the same rows without some columns. Raises KeyError for a column that is not there."""
        removed = [column_names] if isinstance(column_names, str) else column_names
        for name in removed:
            self._require(name)
        return replace(self, columns={name: values for name, values in self.columns.items() if name not in removed})

    def select(self, indices: Iterable[int] | NDArray[np.integer[Any]], **others: Any) -> Table:
        """Return the rows at `indices`, in that order. Raises IndexError; for `others` see `map`."""
        _ignore("select", others)
        rows = [int(index) for index in indices]
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        places = None if self.places is None else [self.places[row] for row in rows]
        return replace(self, columns=columns, places=places)

    def filter(
        self,
        function: Callable[..., object],
        with_indices: bool = False,
        *,
        input_columns: str | Sequence[str] | None = None,
        batched: bool = False,
        batch_size: int | None = 1000,
        fn_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Table:
        """Return the rows for which `function`, given each as a dict, is true; arguments as in `map`.

        Raises:
            ValueError: with `batched`, `function` returns another number of values.
        """
        _ignore("filter", others)
        call = _Call(function, with_indices, input_columns, fn_kwargs)
        if not batched:
            return self.select([row for row in range(len(self)) if call(self, row)])
        step, kept = batch_size or max(len(self), 1), []
        for first in range(0, len(self), step):
            places = range(first, min(first + step, len(self)))
            kept += [row for row, keep in zip(places, call(self, places), strict=True) if keep]
        return self.select(kept)

    def shuffle(self, seed: int | None = None, *, generator: np.random.Generator | None = None, **others: Any) -> Table:
        """Return the rows in an order that depends on their number and `seed` (default: 0) alone, or on `generator`.

        For `others` see `map`.
        """
        _ignore("shuffle", others)
        return self.select(self._order(seed, generator))

    def train_test_split(
        self,
        test_size: float | None = None,
        train_size: float | None = None,
        *,
        shuffle: bool = True,
        stratify_by_column: str | None = None,
        seed: int | None = None,
        generator: np.random.Generator | None = None,
        **others: Any,
    ) -> DatasetDict:
        """Split shuffled rows into `train` and `test`, the same for the same number of rows and `seed`.

        Args:
            test_size: rows of `test`: a share between 0 and 1, rounded up, or a number (default: what `train_size`
                leaves, else 0.25).
            train_size: rows of `train`: a share, rounded down, or a number (default: all others).
            shuffle: whether to shuffle; otherwise `train` are the first rows.
            stratify_by_column: a column, such as that of the labels, of which each value gets its share of both splits.
            seed: of the order (default: 0).
            generator: of NumPy, which gives the order in place of `seed`.
            others: as in `map`.

        Raises:
            ValueError: a split would be empty, the two are more than all rows, or a value of `stratify_by_column` has
                too few rows for both.
            KeyError: there is no column `stratify_by_column`.
        """
        _ignore("train_test_split", others)
        train, test = self._sizes(test_size, train_size)
        if not shuffle and stratify_by_column is not None:
            raise ValueError("shuffle is False and stratify_by_column is given; expected one of the two")
        order = self._order(seed, generator) if shuffle else np.roll(np.arange(test + train), test)
        if stratify_by_column is None:
            return DatasetDict({"train": self.select(order[test : test + train]), "test": self.select(order[:test])})
        chosen = _strata(self[stratify_by_column], order, (test, train), f"{stratify_by_column!r} of {self.source}")
        return DatasetDict({"train": self.select(chosen[1]), "test": self.select(chosen[0])})

    def _order(self, seed: int | None, generator: np.random.Generator | None) -> NDArray[np.int64]:
        if generator is not None:
            return np.asarray(generator.permutation(len(self)))
        return RandomSampler(len(self), seed or 0).permutation(0)

    def _sizes(self, test_size: float | None, train_size: float | None) -> tuple[int, int]:
        """Return the rows of train and of test."""
        if test_size is None and train_size is None:
            test_size = 0.25
        wanted_test, wanted_train = (
            None if size is None else int(size) if isinstance(size, Integral) else round_to_row(size * len(self))
            for size, round_to_row in ((test_size, math.ceil), (train_size, math.floor))
        )
        test = len(self) - (wanted_train or 0) if wanted_test is None else wanted_test
        train = len(self) - test if wanted_train is None else wanted_train
        if not (test > 0 and train > 0 and test + train <= len(self)):
            raise ValueError(
                f"test_size is {test_size}{'' if train_size is None else f', train_size {train_size}'}: {test} and "
                f"{train} of {len(self)} rows; expected rows in both splits"
            )
        return train, test

    def __repr__(self) -> str:
        return f"Table({self.source!r}, columns: {listing(self.columns)}; {len(self)} rows)"

    def _require(self, column: str) -> None:
        if column not in self.columns:
            raise KeyError(f"{self.source} has no column {column!r}; its columns are {listing(self.columns)}")


class DatasetDict(dict[str, Table]):
    """Splits by name. `map`, `filter`, `shuffle`, `rename_column` and `remove_columns` apply to each, see `Table`."""

    def map(self, function: Callable[..., Mapping[str, Any] | None], *args: Any, **options: Any) -> DatasetDict:
        return self._each(lambda table: table.map(function, *args, **options))

    def filter(self, function: Callable[..., object], *args: Any, **options: Any) -> DatasetDict:
        return self._each(lambda table: table.filter(function, *args, **options))

    def shuffle(self, seed: int | None = None, **options: Any) -> DatasetDict:
        return self._each(lambda table: table.shuffle(seed, **options))

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


@dataclass(frozen=True)
class _Call:
    """A function of rows as `map` and `filter` take it, called with the rows at some places."""

    function: Callable[..., Any]
    with_indices: bool
    input_columns: str | Sequence[str] | None
    fn_kwargs: Mapping[str, Any] | None

    def __call__(self, table: Table, places: int | range) -> Any:
        wanted = [self.input_columns] if isinstance(self.input_columns, str) else self.input_columns
        names = table.column_names if wanted is None else wanted
        for name in names:
            table.column(name)
        if isinstance(places, int):
            values = {name: table.columns[name][places] for name in names}
        else:
            values = {name: list(table.columns[name][places.start : places.stop]) for name in names}
        arguments = [values] if wanted is None else list(values.values())
        if self.with_indices:
            arguments.append(places if isinstance(places, int) else list(places))
        return self.function(*arguments, **(self.fn_kwargs or {}))


def _ignore(method: str, others: Mapping[str, Any]) -> None:
    """Warn of arguments of `datasets` without an effect here; raise TypeError for unknown ones."""
    for name in others:
        if name not in _IGNORED:
            raise TypeError(f"{method} has no argument {name!r}{did_you_mean(name, _IGNORED)}")
    given = [name for name, value in others.items() if value is not None and value is not False]
    if given:
        warnings.warn(f"{method} works in memory, in this process, and ignores {listing(given)}", stacklevel=3)


def _strata(
    values: Sequence[Any], order: NDArray[np.int64], sizes: tuple[int, int], column: str
) -> tuple[list[int], list[int]]:
    """Return rows for two splits of these sizes, in which each value has its share, in the order of `order`."""
    rows_of: dict[Any, list[int]] = {}
    for row in order.tolist():
        rows_of.setdefault(values[row] if isinstance(values[row], Hashable) else repr(values[row]), []).append(row)
    smallest = min(rows_of, key=lambda value: len(rows_of[value]))
    if len(rows_of[smallest]) < 2 or min(sizes) < len(rows_of):
        raise ValueError(
            f"{column} has {len(rows_of)} values, {smallest!r} in {len(rows_of[smallest])} rows, for splits of "
            f"{sizes[1]} and {sizes[0]} rows; expected at least two rows of each value, and a row for each value in "
            "both splits"
        )
    chosen: tuple[list[int], list[int]] = ([], [])
    taken = dict.fromkeys(rows_of, 0)
    for size, rows in zip(sizes, chosen, strict=True):
        left = {value: len(of) - taken[value] for value, of in rows_of.items()}
        for value, count in _shares(left, {value: len(of) for value, of in rows_of.items()}, size).items():
            rows += rows_of[value][taken[value] : taken[value] + count]
            taken[value] += count
    places = {row: place for place, row in enumerate(order.tolist())}
    return sorted(chosen[0], key=places.__getitem__), sorted(chosen[1], key=places.__getitem__)


def _shares(left: Mapping[Any, int], counts: Mapping[Any, int], size: int) -> dict[Any, int]:
    """Return how many rows of each value make up `size`, in proportion to `counts`, of those that are left.

    Each has its share, rounded down; the rows that are missing then go to the largest remainders (Hamilton's method).
    """
    total = sum(counts.values())
    shares = {value: min(count * size // total, left[value]) for value, count in counts.items()}
    by_remainder = sorted(counts, key=lambda value: -(counts[value] * size % total))
    missing = size - sum(shares.values())
    while missing:
        for value in by_remainder:
            if missing and shares[value] < left[value]:
                shares[value] += 1
                missing -= 1
    return shares
