"""Pack rows of token ids one after another, without padding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core

_INT32 = np.iinfo(np.int32)


class Batch(NamedTuple):
    """Rows of tokens one after another, without padding.

    Attributes:
        ids: int32 (N,), token ids.
        types: int32 (N,), token types (0, and 1 for the second text of a pair).
        starts: int64 (B + 1,), row b holds tokens starts[b]:starts[b + 1]; known elsewhere as cu_seqlens.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]


def pack(x: Any) -> Batch:
    """Pack a batch given in any of the usual forms, and drop its padding.

    The model checks later whether ids are inside the vocabulary and rows short enough.

    Args:
        x: a list of lists of token ids, a 2-D integer array, one row of ids, or a mapping (such as a tokenizer returns)
            with `input_ids` and perhaps `token_type_ids` (default: zeros) and `attention_mask` (default: every token
            counts; in each row ones, then zeros). A Batch is returned as it is.

    Raises:
        ValueError: a batch or row is empty, a mask has another form, or shapes disagree; the message names the place,
            `input_ids[3][17]`.
        TypeError: ids are not integers.
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
    return _select_tokens(batch, _mask_as_booleans(_flatten_like("attention_mask", mask, starts), starts))


def without_padding(batch: Batch, pad_token_id: int) -> Batch:
    """Return the batch without `pad_token_id` at the end of its rows. Raises ValueError for a row of nothing else."""
    places = np.arange(len(batch.ids))
    # The position of the last token so far that is not padding, at the end of each row.
    last = np.maximum.accumulate(np.where(batch.ids == pad_token_id, -1, places))[batch.starts[1:] - 1]
    empty = last < batch.starts[:-1]
    if empty.any():
        raise ValueError(
            f"input_ids[{int(np.argmax(empty))}] contains only padding; every row needs at least one token"
        )
    keep = places <= np.repeat(last, np.diff(batch.starts))
    return _select_tokens(batch, keep)


def _flatten(name: str, rows: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the values of all rows in one array, and starts; for arguments of `pack`."""
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
    outside = (values < _INT32.min) | (values > _INT32.max)
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
    return is_integer and _INT32.min <= value <= _INT32.max


def _flatten_like(name: str, rows: Any, starts: NDArray[np.int64]) -> NDArray[np.int32]:
    values, own_starts = _flatten(name, rows)
    if len(own_starts) != len(starts):
        raise ValueError(f"{name} has {len(own_starts) - 1} rows; input_ids has {len(starts) - 1}")
    if not np.array_equal(own_starts, starts):
        row = int(np.argmax(np.diff(own_starts) != np.diff(starts)))
        found, expected = np.diff(own_starts)[row], np.diff(starts)[row]
        raise ValueError(f"{name}[{row}] has {found} values; input_ids[{row}] has {expected}")
    return values


def _mask_as_booleans(mask: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask as booleans. Raises ValueError unless each row is ones, then zeros, with at least one 1."""
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
    """Return `name[row][column]` for a place in the flat values."""
    row = int(np.searchsorted(starts, index, side="right")) - 1
    return f"{name}[{row}][{index - int(starts[row])}]"


def _select_tokens(batch: Batch, keep: NDArray[np.bool_]) -> Batch:
    """Return the tokens for which `keep`, bool (N,), is true."""
    return Batch(batch.ids[keep], batch.types[keep], np.concatenate(([0], np.cumsum(keep)))[batch.starts])
