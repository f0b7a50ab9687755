"""`DataCollatorWithPadding`, for code written for transformers: a `Trainer` accepts it, and loops may call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .tokenizer import PreTrainedTokenizerFast, check_tokenizer

_LABELS = ("label", "label_ids", "labels")


class DataCollatorWithPadding:
    """A collator that pads encoded rows to arrays of one width.

    A `Trainer` accepts one and does not call it: its batches are packed, so there is no padding to compute. In a loop
    you write yourself, `model(**collator(rows))` works as in transformers, with NumPy arrays; the logits are those of
    unpadded rows.

    Args:
        tokenizer: gives the padding token.
        padding: True or "longest" to pad to the longest row, "max_length" to pad to `max_length`, False or
            "do_not_pad" not to pad.
        max_length: width in tokens for padding="max_length".
        pad_to_multiple_of: round the width up to a multiple of this.
        return_tensors: "np", the only kind here.

    Raises:
        ValueError: another kind of tensors or padding, or padding="max_length" without a `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "np",
    ) -> None:
        check_tokenizer("tokenizer", tokenizer)
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

        Args:
            features: for each row `input_ids` and, if present, `token_type_ids`, `attention_mask` and a label
                (`label`, `label_ids` or `labels`).

        Returns:
            Arrays by name: input_ids, attention_mask (1 for a token, 0 for padding) and token_type_ids, int64 of shape
            (rows, width), and labels of shape (rows,).
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
    """Raise `TypeError`, with what to do, for a collator that does more than to pad: a `Trainer` never calls one."""
    if type(collator).__name__ == "DataCollatorForLanguageModeling":
        raise TypeError(
            f"data_collator is {collator!r}; leave it out: a Trainer hides the words of a language model itself, see "
            "mlm_probability of TrainingArguments"
        )
    known = [DataCollatorWithPadding.__name__, "default_data_collator", "DefaultDataCollator"]
    if collator is not None and getattr(collator, "__name__", type(collator).__name__) not in known:
        raise TypeError(
            f"data_collator is {collator!r}; expected None or a DataCollatorWithPadding: batches are packed from "
            "encoded rows, so change the rows of the data set instead"
        )
