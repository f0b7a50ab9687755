"""Rows of text to token ids, on all cores and for several threads at once, truncated where asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from .blocks import BLOCK_ROWS, Input, OffsetRow, TokenRow, WordRow, blocks_of, call_backend
from .shortening import CHARACTERS_OF_A_TOKEN, Shortener

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


class Cut(NamedTuple):
    """How rows are truncated.

    Attributes:
        max_length: tokens of the longest row, special tokens included; None not to truncate.
        side: "right" or "left", where tokens are cut off.
        strategy: which text of a pair is cut: "longest_first", "only_first" or "only_second".
    """

    max_length: int | None = None
    side: str = "right"
    strategy: str = "longest_first"


class RowEncoder:
    """Encodes rows a block at a time, without reading the text that truncation drops whatever it is.

    Args:
        backend: the tokenizer of the package `tokenizers`.

    Attributes:
        lock: held by whoever calls the backend. Truncation is a state of the backend, so only one call at a time may
            set it and encode.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self.lock = threading.Lock()
        self._backend = backend
        self._shorteners: dict[str, Shortener] = {}  # by the side that is cut

    def encode(self, inputs: Sequence[Input], cut: Cut, add_special_tokens: bool) -> list[TokenRow]:
        """Encode texts or pairs. Errors as in `BertTokenizer.encode_rows`."""
        max_length = cut.max_length
        if max_length is not None and add_special_tokens and inputs:
            specials = self._backend.num_special_tokens_to_add(not isinstance(inputs[0], str))
            if specials > max_length:
                raise ValueError(
                    f"max_length is {max_length}; expected room for the {specials} special tokens of a row"
                )
        rows: list[TokenRow] = []
        for block in blocks_of(self._shortened(row, cut) for row in inputs):
            whole = inputs[len(rows) : len(rows) + len(block)]
            found = self._encode_block(block, whole, cut, add_special_tokens)
            for index, (part, row) in enumerate(zip(block, whole, strict=True)):
                if part != row and len(found[index].ids) != max_length:
                    all_of_it = self._with_short_words(row, cut.side)
                    if part != all_of_it:
                        found[index] = self._encode_block([all_of_it], [all_of_it], cut, add_special_tokens)[0]
            rows += found
        return rows

    def encode_overlapping(self, pairs: Sequence[tuple[str, str]], cut: Cut, stride: int) -> list[Encoding]:
        """Encode a block of pairs whose second text is cut into parts: a row has the further ones as `overflowing`.

        Args:
            pairs: the texts.
            cut: `max_length` and `side`.
            stride: tokens that a part has in common with the one before it.

        Raises:
            ValueError: a text holds a lone surrogate, or a row cannot be cut so.
        """
        with self.lock:
            assert cut.max_length is not None
            self._backend.enable_truncation(cut.max_length, stride=stride, strategy="only_second", direction=cut.side)
            try:
                encoded: list[Encoding] = call_backend(
                    lambda: self._backend.encode_batch(list(pairs), add_special_tokens=True),
                    pairs,
                    f"rows cannot be cut to windows of max_length={cut.max_length} with {stride=}",
                )
            finally:
                self._backend.no_truncation()
        return encoded

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[WordRow]:
        """Encode rows that are lists of words, without special tokens. Errors as in `encode`."""
        found: list[WordRow] = []
        for first in range(0, len(rows), BLOCK_ROWS):
            found += self._encode_words([list(row) for row in rows[first : first + BLOCK_ROWS]])
        return found

    def encode_with_offsets(self, texts: Sequence[str]) -> list[OffsetRow]:
        """Encode texts with special tokens, whole. Errors as in `encode`."""
        found: list[OffsetRow] = []
        for block in blocks_of(texts):
            with self.lock:
                self._backend.no_truncation()
                rows = call_backend(partial(self._backend.encode_batch, block), block, "the texts cannot be tokenized")
            found += [
                OffsetRow(row.ids, row.type_ids, row.offsets, row.special_tokens_mask, row.word_ids) for row in rows
            ]
        return found

    def _encode_words(self, block: list[list[str]]) -> list[WordRow]:
        words = [word for row in block for word in row]
        with self.lock:
            self._backend.no_truncation()
            encodings = call_backend(
                lambda: self._backend.encode_batch(block, is_pretokenized=True, add_special_tokens=False),
                words,
                "rows of words cannot be tokenized",
            )
        return [WordRow(row.ids, row.type_ids, row.word_ids) for row in encodings]

    def token_was_added(self) -> None:
        """Forget what was found out about the vocabulary."""
        self._shorteners.clear()

    def _encode_block(
        self, block: list[Input], whole: Sequence[Input], cut: Cut, add_special_tokens: bool
    ) -> list[TokenRow]:
        max_length, side, strategy = cut
        doing = (
            "rows cannot be tokenized" if max_length is None else f"rows cannot be cut to {max_length=} ({strategy})"
        )
        with self.lock:
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, strategy=strategy, direction=side)
            try:
                encodings = call_backend(
                    lambda: self._backend.encode_batch_fast(block, add_special_tokens=add_special_tokens),
                    whole,
                    doing,
                )
            finally:
                self._backend.no_truncation()
        # `overflowing` makes a list of all that was cut off, so the length is asked first.
        return [
            TokenRow(row.ids, row.type_ids, max_length is not None and len(row) >= max_length and bool(row.overflowing))
            for row in encodings
        ]

    def _shortened(self, row: Input, cut: Cut) -> Input:
        """Return the row without text that truncation drops whatever it is, see `text.shortening`."""
        longest = len(row) if isinstance(row, str) else max(map(len, row))
        if cut.max_length is None or longest <= cut.max_length * CHARACTERS_OF_A_TOKEN:
            return row
        kept = cut.max_length + 1  # one more, so that the backend has something to cut off
        shortener = self._shortener(cut.side)
        return shortener.cut(row, kept) if isinstance(row, str) else shortener.cut_pair(*row, kept, cut.strategy)

    def _with_short_words(self, row: Input, side: str) -> Input:
        shorten = self._shortener(side).with_short_words
        return shorten(row) if isinstance(row, str) else (shorten(row[0]), shorten(row[1]))

    def _shortener(self, side: str) -> Shortener:
        if side not in self._shorteners:
            self._shorteners[side] = Shortener(self._backend, self._count, from_end=side == "left")
        return self._shorteners[side]

    def _count(self, text: str) -> int:
        return len(self._encode_block([text], [text], Cut(), False)[0].ids)
