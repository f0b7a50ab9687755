"""Packed batches, tokenised data sets, and the order in which training reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..text.tokenizer import BertTokenizer
from .columns import NO_LABEL, Rows, label_array, labels_of, read_rows, rows_of
from .sampler import RandomSampler
from .sources import read_table
from .table import Table

__all__ = [
    "NO_LABEL",
    "Batch",
    "Dataset",
    "OnProgress",
    "RandomSampler",
    "Rows",
    "as_dataset",
    "encode",
    "pack",
    "read_rows",
]

# Called with (rows done, rows in all), first with 0 done.
OnProgress = Callable[[int, int], None]
# Rows tokenised between two calls of OnProgress: enough to keep all cores busy, some 15 ms of work. Blocks of 4,096 are
# no faster and leave 30 MiB more behind in the heap.
ENCODE_BLOCK = 1024
INT32 = np.iinfo(np.int32)


class Batch(NamedTuple):
    """Rows of tokens one after another, without padding.

    ids: int32 (N,), token ids.
    types: int32 (N,), token types (0, and 1 for the second text of a pair).
    starts: int64 (B + 1,), row b holds tokens starts[b]:starts[b + 1]; known elsewhere as cu_seqlens.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]


def pack(x: Any) -> Batch:
    """Pack a batch given in any of the usual forms; padding is dropped.

    x: a list of lists of token ids, a 2-D integer array, one row of ids, a mapping (such as a tokenizer returns) with
    `input_ids` and perhaps `token_type_ids` (default: zeros) and `attention_mask` (default: every token counts), or a
    Batch, which is returned as it is. In each row the mask must be ones, then zeros.

    Whether ids are inside the vocabulary and rows short enough is for the model to check.

    Raises ValueError for an empty batch or row, a mask of another form, or shapes that disagree; TypeError for ids that
    are not integers. Messages name the place: `input_ids[3][17]`.
    """
    if isinstance(x, Batch):
        return x
    if isinstance(x, Mapping):
        if "input_ids" not in x:
            raise ValueError(f"the batch has no input_ids; it has {', '.join(map(str, x)) or 'nothing'}")
        input_ids, token_types, mask = x["input_ids"], x.get("token_type_ids"), x.get("attention_mask")
    else:
        input_ids, token_types, mask = x, None, None
    if token_types is None and mask is None and (packed := _core.pack_lists(input_ids)) is not None:
        return Batch(*packed)  # the usual case, in a microsecond
    ids, starts = _flatten("input_ids", input_ids)
    types = np.zeros_like(ids) if token_types is None else _flatten_like("token_type_ids", token_types, starts)
    batch = Batch(ids, types, starts)
    if mask is None:
        return batch
    return _kept(batch, _keep(_flatten_like("attention_mask", mask, starts), starts))


def _flatten(name: str, rows: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Values of all rows in one array, and starts; for arguments of `pack`."""
    if hasattr(rows, "__array__"):
        rows = np.asarray(rows)
        if rows.ndim > 2:
            raise ValueError(f"{name} has shape {rows.shape}; expected (rows, tokens)")
    if isinstance(rows, (str, bytes, Mapping, Batch)) or not hasattr(rows, "__len__"):
        raise TypeError(f"{name} is a {type(rows).__name__}; expected a list of lists of token ids, or an array")
    if len(rows) == 0:
        raise ValueError(f"{name} is empty; a batch needs at least one row")
    if not hasattr(rows[0], "__len__"):
        rows = [rows]  # one row
    lengths = np.fromiter((_row_length(name, index, row) for index, row in enumerate(rows)), np.int64, len(rows))
    starts = np.concatenate(([0], np.cumsum(lengths)))
    try:
        is_matrix = isinstance(rows, np.ndarray) and rows.ndim == 2
        values = rows.reshape(-1) if is_matrix else np.array(list(chain.from_iterable(rows)))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be rows of integers: {error}") from error
    if values.ndim != 1:
        raise TypeError(f"{name} must be rows of integers; found rows of rows of shape {values.shape[1:]}")
    if values.dtype.kind == "b" and name == "attention_mask":
        values = values.astype(np.int32)
    if values.dtype.kind not in "iu":
        index = next((i for i, v in enumerate(chain.from_iterable(rows)) if not _is_int32(v)), 0)
        raise TypeError(f"{_place(name, starts, index)} is not a 32-bit integer (the values are {values.dtype})")
    outside = (values < INT32.min) | (values > INT32.max)
    if outside.any():
        index = int(np.argmax(outside))
        raise ValueError(f"{_place(name, starts, index)} is {values[index]}; it does not fit 32 bits")
    return np.ascontiguousarray(values, dtype=np.int32), starts


def _row_length(name: str, index: int, row: Any) -> int:
    if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
        raise TypeError(f"{name}[{index}] is {row!r}; expected a row of token ids")
    if len(row) == 0:
        raise ValueError(f"{name}[{index}] is empty; every row needs at least one token")
    return len(row)


def _is_int32(value: Any) -> bool:
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return is_integer and INT32.min <= value <= INT32.max


def _flatten_like(name: str, rows: Any, starts: NDArray[np.int64]) -> NDArray[np.int32]:
    values, own_starts = _flatten(name, rows)
    if len(own_starts) != len(starts):
        raise ValueError(f"{name} has {len(own_starts) - 1} rows; input_ids has {len(starts) - 1}")
    if not np.array_equal(own_starts, starts):
        row = int(np.argmax(np.diff(own_starts) != np.diff(starts)))
        found, expected = np.diff(own_starts)[row], np.diff(starts)[row]
        raise ValueError(f"{name}[{row}] has {found} values; input_ids[{row}] has {expected}")
    return values


def _keep(mask: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The mask as booleans. Raises ValueError unless each row is ones, then zeros, with at least one 1."""
    rising = np.concatenate(([False], mask[1:] > mask[:-1]))
    rising[starts[:-1]] = mask[starts[:-1]] != 1
    wrong = rising | ((mask != 0) & (mask != 1))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"{_place('attention_mask', starts, index)} is {mask[index]}; each row of the mask must be ones, then "
            'zeros (padding on the right: padding_side="right")'
        )
    return mask.astype(np.bool_)


def _place(name: str, starts: NDArray[np.int64], index: int) -> str:
    """`name[row][column]` of a place in the flat values."""
    row = int(np.searchsorted(starts, index, side="right")) - 1
    return f"{name}[{row}][{index - int(starts[row])}]"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tokenised rows in memory, packed like one large Batch.

    ids, types: int32 (tokens,). starts: int64 (rows + 1,).
    labels: int64 (rows,), NO_LABEL for rows without one; for regression float32 (rows,), for multi-label float32
        (rows, labels), NaN for rows without one. See `rows.label_array`.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    labels: NDArray[Any]
    lengths: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        lengths = np.diff(self.starts)
        if len(lengths) != len(self.labels):
            raise ValueError(f"labels has {len(self.labels)} entries; the data set has {len(lengths)} rows")
        if len(lengths) == 0:
            raise ValueError("the data set has no rows")
        if self.starts[0] != 0 or lengths.min() < 1 or not self.starts[-1] == len(self.ids) == len(self.types):
            raise ValueError("starts must rise from 0 to the number of ids and types, by at least 1 a row")
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Hash of all rows and labels, in their order."""
        digest = hashlib.sha256()
        for array in (self.ids, self.types, self.starts, self.labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def batch(self, indices: NDArray[np.integer[Any]] | Sequence[int]) -> tuple[Batch, NDArray[Any]]:
        """The rows at `indices`, in that order, and their labels, one entry (len(indices), ...) for each.

        Raises IndexError for an index outside 0..rows-1, ValueError for no index at all, TypeError for indices that
        are not whole numbers.
        """
        if len(indices) == 0:
            raise ValueError("indices is empty; a batch needs at least one row")
        rows = np.ascontiguousarray(np.asarray(indices).astype(np.int64, casting="same_kind", copy=False))
        return Batch(*_core.take_rows(self.ids, self.types, self.starts, rows)), self.labels[rows]


def encode(
    rows: Rows,
    tokenizer: BertTokenizer,
    *,
    max_length: int | None = None,
    id2label: Mapping[int, str] | None = None,
    problem_type: str | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise rows on all cores.

    max_length: longer rows are cut to it, special tokens counted (default: the tokenizer's model_max_length; give the
        model's positions). Cutting is silent, as with `truncation=True` in transformers.
    id2label: the model's label map, which checks ids and translates names.
    problem_type: the model's; see `rows.label_array`.

    Raises ValueError or TypeError for a label, see `rows.label_array`, before anything is tokenised.
    """
    labels = rows.label_array(id2label, problem_type)
    limit = tokenizer.truncation_length(max_length)
    inputs: list[Any] = rows.texts if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))
    blocks: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]] = []
    for first in range(0, len(inputs), ENCODE_BLOCK):
        if progress is not None:
            progress(first, len(inputs))
        encodings = tokenizer.encode_rows(inputs[first : first + ENCODE_BLOCK], limit)
        ids = [encoding.ids for encoding in encodings]
        types = (encoding.type_ids for encoding in encodings)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = int(lengths.sum())
        blocks.append(
            (
                np.fromiter(chain.from_iterable(ids), np.int32, tokens),
                np.fromiter(chain.from_iterable(types), np.int32, tokens),
                lengths,
            )
        )
    if progress is not None:
        progress(len(inputs), len(inputs))
    ids_of, types_of, lengths_of = zip(*blocks, strict=True)
    starts = np.concatenate(([0], np.cumsum(np.concatenate(lengths_of))))
    return Dataset(np.concatenate(ids_of), np.concatenate(types_of), starts, labels)


def as_dataset(
    source: Any,
    tokenizer: BertTokenizer | None,
    *,
    max_length: int | None = None,
    id2label: Mapping[int, str] | None = None,
    problem_type: str | None = None,
    pad_token_id: int | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Whatever a trainer is given as a data set, tokenised.

    source: a Dataset (returned as it is), rows that are tokenised already (a column `input_ids`, perhaps
    `token_type_ids`, `attention_mask` and a label column; never cut), or text, see `table_sources.read_table`.
    pad_token_id: what tokenised rows without an `attention_mask` are padded with; it is dropped at their ends.

    Raises what `read_rows`, `encode` and `pack` raise, and ValueError for text without a tokenizer.
    """
    if isinstance(source, Dataset):
        return source
    table = read_table(source)
    if "input_ids" in table.columns:
        return _from_token_ids(table, id2label, problem_type, label_column, pad_token_id)
    rows = rows_of(table, text_column=text_column, text_pair_column=text_pair_column, label_column=label_column)
    if tokenizer is None:
        raise ValueError(f"{table.source} holds text; pass a tokenizer (processing_class=), or rows with input_ids")
    return encode(
        rows, tokenizer, max_length=max_length, id2label=id2label, problem_type=problem_type, progress=progress
    )


def _from_token_ids(
    table: Table,
    id2label: Mapping[int, str] | None,
    problem_type: str | None,
    label_column: str | None,
    pad_token_id: int | None,
) -> Dataset:
    given, class_names = labels_of(table, label_column)
    if len(table) == 0:
        raise ValueError(f"{table.source} has no rows")
    labels = label_array(
        [None] * len(table) if given is None else given, id2label, problem_type, table.where, class_names
    )
    batch = pack(dict(table.columns))
    if "attention_mask" not in table.columns and pad_token_id is not None:
        batch = _without_padding(batch, pad_token_id)
    return Dataset(*batch, labels)


def _without_padding(batch: Batch, pad_token_id: int) -> Batch:
    """The batch without `pad_token_id` at the end of its rows. Raises ValueError for a row of nothing else."""
    places = np.arange(len(batch.ids))
    # The place of the last token so far that is no padding, at the end of each row.
    last = np.maximum.accumulate(np.where(batch.ids == pad_token_id, -1, places))[batch.starts[1:] - 1]
    empty = last < batch.starts[:-1]
    if empty.any():
        raise ValueError(f"input_ids[{int(np.argmax(empty))}] is nothing but padding; every row needs a token")
    keep = places <= np.repeat(last, np.diff(batch.starts))
    return _kept(batch, keep)


def _kept(batch: Batch, keep: NDArray[np.bool_]) -> Batch:
    """The tokens for which `keep`, bool (N,), is true."""
    return Batch(batch.ids[keep], batch.types[keep], np.concatenate(([0], np.cumsum(keep)))[batch.starts])
