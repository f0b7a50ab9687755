"""Rows made as wide as each other: how a call asks for it, and what fills them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .encodings import NO_MAX_LENGTH
from .tokenizer_settings import checked_side

if TYPE_CHECKING:
    from tokenizers import Encoding


class Filler(NamedTuple):
    """What a tokenizer fills rows with.

    Attributes:
        token: the padding token.
        token_id: its id.
        type_id: its token type.
        side: "right" or "left", where it is added unless a call names another side.
        model_max_length: the tokenizer's limit, `NO_MAX_LENGTH` if it has none.
    """

    token: str
    token_id: int
    type_id: int
    side: str
    model_max_length: int


class Padding(NamedTuple):
    """How rows are padded, in the arguments of a call of the tokenizer."""

    padding: bool | str
    max_length: int | None
    multiple_of: int | None
    side: str | None

    def pad_columns(self, columns: Mapping[str, list[list[int]]], filler: Filler) -> None:
        """Pad the model's columns in place.

        Raises:
            ValueError: as `width`, or for another side.
        """
        width = self.width(max(map(len, columns["input_ids"]), default=0), filler.model_max_length)
        values = {
            "input_ids": filler.token_id,
            "token_type_ids": filler.type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
        }
        side = self._side(filler)
        for name, value in values.items():
            _pad_rows(columns.get(name, ()), width, value, side)

    def pad_encodings(self, encodings: Sequence[Encoding], filler: Filler) -> None:
        """Pad rows of the package `tokenizers` in place. Raises as `pad_columns`."""
        width = self.width(max(map(len, encodings), default=0), filler.model_max_length)
        side = self._side(filler)
        for row in encodings:
            row.pad(width, direction=side, pad_id=filler.token_id, pad_type_id=filler.type_id, pad_token=filler.token)

    def width(self, longest: int, model_max_length: int) -> int:
        """Return the width in tokens to pad rows to, 0 for no padding.

        Args:
            longest: tokens of the longest row.
            model_max_length: the width for padding="max_length" without a `max_length`.

        Raises:
            ValueError: another `padding`, or "max_length" without any limit.
        """
        if self.padding is False or self.padding == "do_not_pad":
            return 0
        if self.padding is True or self.padding == "longest":
            width = longest
        elif self.padding == "max_length":
            width = self.max_length if self.max_length is not None else model_max_length
            if width >= NO_MAX_LENGTH:
                raise ValueError('padding="max_length" needs a max_length: this tokenizer states no model_max_length')
        else:
            raise ValueError(f'padding is {self.padding!r}; expected True, False, "longest" or "max_length"')
        return width if self.multiple_of is None else -(-width // self.multiple_of) * self.multiple_of

    def _side(self, filler: Filler) -> str:
        return checked_side("padding_side", self.side or filler.side)


def _pad_rows(rows: Iterable[list[int]], width: int, filler: int, side: str) -> None:
    """Add `filler` to the "right" or "left" of each row up to `width`, in place; longer rows stay as they are."""
    for row in rows:
        place = len(row) if side == "right" else 0
        row[place:place] = [filler] * (width - len(row))
