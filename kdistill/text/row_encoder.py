"""Rows of text to token ids, on all cores and for several threads at once, truncated where asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .blocks import Input, TokenRow, WordRow, Words, blocks_of, call_backend
from .pipelines import with_prefix_space
from .shortening import CHARACTERS_OF_A_TOKEN, Shortener

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TRUNCATION_STRATEGIES = ("longest_first", "only_first", "only_second")


class Cut(NamedTuple):
    """How rows are truncated.

    Attributes:
        max_length: tokens of the longest row, special tokens included; None not to truncate.
        side: "right" or "left", where tokens are cut off.
        strategy: which text of a pair is cut: "longest_first", "only_first" or "only_second".
        stride: tokens that each further part of a row repeats of the part before it.
    """

    max_length: int | None = None
    side: str = "right"
    strategy: str = "longest_first"
    stride: int = 0

    @classmethod
    def asked(cls, truncation: bool | str, max_length: int | None, side: str, stride: int) -> Cut:
        """Return what the argument `truncation` of a call asks for. Raises ValueError for a strategy that is none."""
        if isinstance(truncation, bool) or truncation == "do_not_truncate":
            return cls(max_length, side, stride=stride)
        if truncation not in TRUNCATION_STRATEGIES:
            raise ValueError(f"truncation is {truncation!r}; expected True, False or one of {TRUNCATION_STRATEGIES}")
        return cls(max_length, side, truncation, stride)


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
        """Encode texts or pairs. Errors as in `PreTrainedTokenizerFast.encode_rows`."""
        max_length = cut.max_length
        if inputs:
            self._check_room(cut, add_special_tokens, has_pairs=not isinstance(inputs[0], str))
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

    def encode_with_offsets(
        self, inputs: Sequence[Input | Words], cut: Cut, add_special_tokens: bool
    ) -> list[Encoding]:
        """Encode texts, pairs or rows of words whole.

        Args:
            inputs: the rows.
            cut: how they are truncated.
            add_special_tokens: whether to add [CLS] and [SEP].

        Returns:
            An `Encoding` of the package `tokenizers` for each row, with the places of its tokens in the text; what
            truncation leaves out is its `overflowing`.
        """
        if not inputs:
            return []
        has_pairs, are_words = isinstance(inputs[0], tuple), not isinstance(inputs[0], str)
        are_words = isinstance(inputs[0][0], list) if has_pairs else are_words
        self._check_room(cut, add_special_tokens, has_pairs)
        found: list[Encoding] = []
        for block in blocks_of(inputs):
            found += self._call(
                lambda rows: self._backend.encode_batch(
                    rows, is_pretokenized=are_words, add_special_tokens=add_special_tokens
                ),
                block,
                block,
                cut,
            )
        return found

    def _check_room(self, cut: Cut, add_special_tokens: bool, has_pairs: bool) -> None:
        """Raise `ValueError` when a row has no room for its special tokens and for what it repeats."""
        if cut.max_length is None:
            return
        specials = self._backend.num_special_tokens_to_add(has_pairs) if add_special_tokens else 0
        if specials > cut.max_length:
            raise ValueError(
                f"max_length is {cut.max_length}; expected room for the {specials} special tokens of a row"
            )
        if cut.stride and cut.stride >= cut.max_length - specials:
            raise ValueError(
                f"stride is {cut.stride}; expected less than the {cut.max_length - specials} tokens of text that a row "
                f"of max_length={cut.max_length} has"
            )

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[WordRow]:
        """Encode rows that are lists of words, without special tokens.

        Each word has the tokens that it has inside a text, also in byte-level BPE without `add_prefix_space`. Errors as
        in `encode`.
        """
        found: list[Encoding] = []
        for block in blocks_of([list(row) for row in rows]):
            found += self._call(self._encode_words, block, block, Cut())
        return [WordRow(row.ids, row.type_ids, cast("list[int]", row.word_ids)) for row in found]  # no special ones

    def _encode_words(self, block: list[Any]) -> list[Encoding]:
        """Encode a block of rows of words; the lock is held."""
        own = self._backend.pre_tokenizer
        prefixed = with_prefix_space(own)
        try:
            if prefixed is not None:
                self._backend.pre_tokenizer = prefixed
            return self._backend.encode_batch(block, is_pretokenized=True, add_special_tokens=False)
        finally:
            if prefixed is not None:
                self._backend.pre_tokenizer = own

    def token_was_added(self) -> None:
        """Forget what was found out about the vocabulary."""
        self._shorteners.clear()

    def _encode_block(
        self, block: list[Input], whole: Sequence[Input], cut: Cut, add_special_tokens: bool
    ) -> list[TokenRow]:
        max_length = cut.max_length
        encodings = self._call(
            lambda rows: self._backend.encode_batch_fast(rows, add_special_tokens=add_special_tokens), block, whole, cut
        )
        # `overflowing` makes a list of all that was cut off, so the length is asked first.
        return [
            TokenRow(row.ids, row.type_ids, max_length is not None and len(row) >= max_length and bool(row.overflowing))
            for row in encodings
        ]

    def _call(self, encode: Callable[[list[Any]], Any], block: list[Any], whole: Sequence[Any], cut: Cut) -> Any:
        """Encode a block under the lock, truncated; `whole` are its rows for messages."""
        max_length, side, strategy, stride = cut
        doing = (
            "rows cannot be tokenized" if max_length is None else f"rows cannot be cut to {max_length=} ({strategy})"
        )
        with self.lock:
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, stride=stride, strategy=strategy, direction=side)
            try:
                return call_backend(lambda: encode(block), whole, doing)
            finally:
                self._backend.no_truncation()

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
