"""Encoded rows as a tokenizer returns them: lists of token ids or arrays, padded on request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# transformers writes this as model_max_length of a tokenizer without a limit.
NO_MAX_LENGTH = int(1e30)


class BatchEncoding(dict[str, Any]):
    """The result of a tokenizer call: `input_ids`, `token_type_ids` and `attention_mask` by name, or as attributes.

    Each is a list of lists of int (one list for a single text), or an int64 array (rows, width) with
    `return_tensors="np"`. `kdistill.pack` and a model accept it directly.

    Attributes:
        rows_cut: how many rows were longer than what they were cut to.
    """

    rows_cut = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchEncoding has no {name!r}; it has {', '.join(self)}") from None


def padded_width(
    padding: bool | str,
    *,
    longest: int,
    max_length: int | None,
    model_max_length: int,
    pad_to_multiple_of: int | None = None,
) -> int:
    """Return the width in tokens to pad rows to, 0 for no padding.

    Args:
        padding: as in a tokenizer call.
        longest: tokens of the longest row.
        max_length: width for padding="max_length" (default: `model_max_length`).
        model_max_length: the tokenizer's limit, `NO_MAX_LENGTH` if it has none.
        pad_to_multiple_of: round the width up to a multiple of this.

    Raises:
        ValueError: another `padding`, or "max_length" without any limit.
    """
    if padding is False or padding == "do_not_pad":
        return 0
    if padding is True or padding == "longest":
        width = longest
    elif padding == "max_length":
        width = max_length if max_length is not None else model_max_length
        if width >= NO_MAX_LENGTH:
            raise ValueError('padding="max_length" needs a max_length: this tokenizer states no model_max_length')
    else:
        raise ValueError(f'padding is {padding!r}; expected True, False, "longest" or "max_length"')
    return width if pad_to_multiple_of is None else -(-width // pad_to_multiple_of) * pad_to_multiple_of


def pad_rows(rows: Iterable[list[int]], width: int, filler: int, side: str) -> None:
    """Add `filler` to the "right" or "left" of each row up to `width`, in place; longer rows stay as they are."""
    for row in rows:
        place = len(row) if side == "right" else 0
        row[place:place] = [filler] * (width - len(row))


def columns_of(
    encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], main: str
) -> tuple[dict[str, list[Any]], bool]:
    """Return encoded rows as columns of lists, and whether they were a single row.

    Args:
        encoded_inputs: one row or a batch, as a dict of columns, or a list of rows.
        main: the column that must be there.

    Raises:
        ValueError: the column `main` is missing.
        TypeError: `encoded_inputs` is neither a dict nor a list of at least one dict.
    """
    if isinstance(encoded_inputs, Mapping):
        columns = {name: _plain(values) for name, values in encoded_inputs.items()}
    elif len(encoded_inputs) and all(isinstance(row, Mapping) for row in encoded_inputs):
        columns = {name: [_plain(row[name]) for row in encoded_inputs] for name in encoded_inputs[0]}
    else:
        raise TypeError("encoded_inputs must be a dict of columns or a list of dicts, at least one")
    if main not in columns:
        raise ValueError(f"the rows have no {main}; they have {', '.join(columns) or 'nothing'}")
    single = bool(columns[main]) and not isinstance(columns[main][0], list)
    return ({name: [values] for name, values in columns.items()} if single else columns), single


def _plain(values: Any) -> Any:
    """Return a copy with lists instead of arrays, so that padding leaves the caller's rows alone."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [_plain(value) for value in values] if isinstance(values, (list, tuple)) else values


def as_result(
    columns: Mapping[str, list[Any]], *, single: bool, return_tensors: str | None, names: Sequence[str]
) -> BatchEncoding:
    """Return the columns in the form of a tokenizer call's result.

    Args:
        columns: lists of rows by name.
        single: whether to return one row instead of a list of one row; ignored for arrays.
        return_tensors: None for lists, "np" for arrays.
        names: the columns of tokens, whose rows must be equally long in an array.

    Raises:
        ValueError: another `return_tensors`, or rows of different lengths for an array.
    """
    if return_tensors is None:
        return BatchEncoding({name: rows[0] if single else rows for name, rows in columns.items()})
    if return_tensors != "np":
        raise ValueError(f'return_tensors is {return_tensors!r}; expected "np" (results are NumPy arrays here)')
    return BatchEncoding({name: _as_array(name, rows, name in names) for name, rows in columns.items()})


def _as_array(name: str, rows: list[Any], has_tokens: bool) -> NDArray[Any]:
    if has_tokens and len({len(row) for row in rows}) > 1:
        raise ValueError(f"{name} has rows of different lengths; pass padding=True, or leave return_tensors out")
    return np.array(rows, dtype=np.int64) if has_tokens else np.array(rows)
