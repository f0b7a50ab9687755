"""Encoded rows as a tokenizer returns them: lists of token ids or arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Columns of a tokenizer call's result -> attributes of an `Encoding`.
ENCODING_COLUMNS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
    "special_tokens_mask": "special_tokens_mask",
    "offset_mapping": "offsets",
}
# transformers writes this as model_max_length of a tokenizer without a limit.
NO_MAX_LENGTH = int(1e30)


class CharSpan(NamedTuple):
    """Characters start:end of a text, or of a word of a row that was split into words."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens start:end of a row."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """The result of a tokenizer call: `input_ids`, `token_type_ids` and `attention_mask` by name, or as attributes.

    Each is a list of lists of int (one list for a single text), or an int64 array (rows, width) with
    `return_tensors="np"`. `kdistill.pack` and a model accept it directly.

    The methods map tokens, words and characters onto each other. Each takes the index of a row first; of a single row
    it may be left out. `sequence_index` is 1 for the second text of a pair. They return None for a token that stands
    for no text, such as [CLS], and for a word or character without a token.

    Attributes:
        rows_cut: how many rows were longer than what they were cut to.
    """

    rows_cut = 0
    _encodings: list[Any] | Callable[[], list[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchEncoding has no {name!r}; it has {', '.join(self)}") from None

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle keeps beside the columns: all but what could be computed and was not."""
        return {name: value for name, value in self.__dict__.items() if not callable(value)}

    @property
    def encodings(self) -> list[Any]:
        """The rows as `Encoding` objects of the package `tokenizers`, padded as the columns are.

        Raises:
            ValueError: the rows come from `pad`, or from another process, which keep the columns alone.
        """
        if callable(self._encodings):
            self._encodings = self._encodings()
        if self._encodings is None:
            raise ValueError(
                "these rows hold no places in the text; expected the result of a tokenizer's call, in the same process"
            )
        return self._encodings

    @property
    def n_sequences(self) -> int:
        """1 for texts, 2 for pairs."""
        return int(self.encodings[0].n_sequences)

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row as text."""
        return list(self.encodings[batch_index].tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the index of each token's word in its text; None for special tokens."""
        return list(self.encodings[batch_index].word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return 0 for each token of the first text, 1 for those of the second, None for special tokens."""
        return list(self.encodings[batch_index].sequence_ids)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return 0 for a token of the first text, 1 for one of the second."""
        row, token = self._place(batch_or_token_index, token_index)
        return _number(row.token_to_sequence(token))

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the index of a token's word in its text."""
        row, token = self._place(batch_or_token_index, token_index)
        return _number(row.token_to_word(token))

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Return the characters that a token stands for."""
        row, token = self._place(batch_or_token_index, token_index)
        span = row.token_to_chars(token)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the token that a character of the text lies in."""
        row, char = self._place(batch_or_char_index, char_index)
        return _number(row.char_to_token(char, sequence_index))

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the index of the word that a character of the text lies in."""
        row, char = self._place(batch_or_char_index, char_index)
        return _number(row.char_to_word(char, sequence_index))

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word."""
        row, word = self._place(batch_or_word_index, word_index)
        span = row.word_to_tokens(word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return the characters of a word."""
        row, word = self._place(batch_or_word_index, word_index)
        span = row.word_to_chars(word, sequence_index)
        return None if span is None else CharSpan(*span)

    def _place(self, first: int, second: int | None) -> tuple[Any, int]:
        """Return the row and the index in it that one or two arguments name."""
        batch_index, index = (0, first) if second is None else (first, second)
        if index < 0:
            raise IndexError(f"the index is {index}; expected 0 or more")
        return self.encodings[batch_index], index


def _number(found: int | None) -> int | None:
    return None if found is None else int(found)


def encoding_columns(encodings: Sequence[Any], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return columns of rows that are `Encoding` objects.

    Args:
        encodings: the rows.
        names: the columns, of `ENCODING_COLUMNS`.
    """
    return {name: [getattr(row, ENCODING_COLUMNS[name]) for row in encodings] for name in names}


def asked_columns(asked: Mapping[str, bool | None], usual: Sequence[str]) -> list[str]:
    """Return the names of the columns that a call returns, in their order.

    Args:
        asked: for the columns that an argument is about, what it is; None: it was not given.
        usual: the names of those that a call returns unasked, `model_input_names`.
    """
    return [name for name in ENCODING_COLUMNS if asked.get(name) or (asked.get(name) is None and name in usual)]


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
        return BatchEncoding(
            {name: rows[0] if single and isinstance(rows[0], list) else rows for name, rows in columns.items()}
        )
    if return_tensors != "np":
        raise ValueError(f'return_tensors is {return_tensors!r}; expected "np" (results are NumPy arrays here)')
    return BatchEncoding({name: _as_array(name, rows, name in names) for name, rows in columns.items()})


def _as_array(name: str, rows: list[Any], has_tokens: bool) -> NDArray[Any]:
    if has_tokens and len({len(row) for row in rows}) > 1:
        raise ValueError(f"{name} has rows of different lengths; pass padding=True, or leave return_tensors out")
    return np.array(rows, dtype=np.int64) if has_tokens else np.array(rows)
