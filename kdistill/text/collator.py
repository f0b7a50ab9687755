"""`DataCollatorWithPadding`, which people pass to a `Trainer`: accepted there, and callable for loops of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .tokenizer import BertTokenizer

_LABELS = ("label", "label_ids", "labels")


class DataCollatorWithPadding:
    """Makes arrays of one width from encoded rows. A `Trainer` takes it and has nothing for it to do.

    Batches are packed: rows lie one after the other, and nothing is ever computed for padding. Called by yourself, it
    gives what that of transformers does, in NumPy: `model(**collator(rows))`, with the same logits as unpadded rows.

    tokenizer: says the id and the side of padding. padding: True or "longest" pads to the longest row, "max_length" to
    `max_length`, False not at all. pad_to_multiple_of: rounds the width up. return_tensors: "np", the only kind here.
    Raises `ValueError` for another kind of tensors or padding.
    """

    def __init__(
        self,
        tokenizer: BertTokenizer,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "np",
    ) -> None:
        if return_tensors != "np":
            raise ValueError(
                f"return_tensors is {return_tensors!r}; expected 'np', as kdistill computes with NumPy arrays"
            )
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise ValueError(f"padding is {padding!r}; expected True, False, 'longest', 'max_length' or 'do_not_pad'")
        if padding == "max_length" and max_length is None:
            raise ValueError("max_length is None with padding='max_length'; expected the width to pad to")
        self.tokenizer = tokenizer
        self.padding = padding
        self.max_length = max_length
        self.pad_to_multiple_of = pad_to_multiple_of
        self.return_tensors = return_tensors

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """Pad rows that a tokenizer encoded.

        features: for each row `input_ids`, and where there are any `token_type_ids`, `attention_mask` and a label
            (`label`, `label_ids` or `labels`).

        Returns int64 arrays: input_ids, attention_mask (1 for a token, 0 for padding) and token_type_ids of shape
        (rows, width), labels (rows,).
        """
        padded = self.tokenizer.pad(
            features, self.padding, self.max_length, self.pad_to_multiple_of, return_tensors=self.return_tensors
        )
        result = {name: padded[name] for name in self.tokenizer.model_input_names if name in padded}
        for name in _LABELS:
            if name in padded:
                result["labels"] = padded[name]
        return result


def check_collator(collator: Any) -> None:
    """Raise `TypeError` for a collator that does more than padding, which a `Trainer` here would not do."""
    known = [DataCollatorWithPadding.__name__, "default_data_collator", "DefaultDataCollator"]
    if collator is not None and getattr(collator, "__name__", type(collator).__name__) not in known:
        raise TypeError(
            f"data_collator is {collator!r}; expected None or a DataCollatorWithPadding: batches are packed from "
            "encoded rows, so change the rows of the data set instead"
        )
