"""`DataCollatorForLanguageModeling`, for loops written for transformers: pads encoded rows and hides their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..system.seeds import chosen_seed
from ..text.collator import DataCollatorWithPadding
from ..text.tokenizer import PreTrainedTokenizerFast
from .batch import Batch
from .documents import masking_of
from .label_values import NO_LABEL
from .ragged import starts_of


class DataCollatorForLanguageModeling:
    """A collator that pads encoded rows to arrays of one width and hides some of their words, for loops of your own.

    A `Trainer` of a language model hides words itself and takes none. Which words are hidden depends on `seed` and on
    how many rows the collator has been given before, so that each pass over the data hides others; see `Masking`.

    Args:
        tokenizer: gives the mask, the padding and the special tokens, which are never hidden.
        mlm: whether to hide words; without, the labels are the tokens themselves, as a causal model learns them.
        mlm_probability: of a token to be chosen, above 0 and below 1.
        mask_replace_prob: share of the chosen that become the mask.
        random_replace_prob: share of the chosen that become a random word; with mask_replace_prob at most 1.
        pad_to_multiple_of: round the width up to a multiple of this.
        return_tensors: "np", the only kind here.
        seed: 0 <= seed < 2**64 (default: that of the latest `set_seed`).

    Raises:
        ValueError: the tokenizer has no mask, another kind of tensors, or what `Masking` raises.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        mlm: bool = True,
        mlm_probability: float = 0.15,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "np",
        seed: int | None = None,
    ) -> None:
        self._pad = DataCollatorWithPadding(
            tokenizer, pad_to_multiple_of=pad_to_multiple_of, return_tensors=return_tensors
        )
        self.tokenizer, self.mlm, self.seed = tokenizer, mlm, seed
        self.mlm_probability = mlm_probability
        self.mask_replace_prob, self.random_replace_prob = mask_replace_prob, random_replace_prob
        self.pad_to_multiple_of, self.return_tensors = pad_to_multiple_of, return_tensors
        self._rows_seen = 0
        self._masking = None
        if mlm:
            self._masking = replace(
                masking_of(tokenizer),
                seed=chosen_seed(seed),
                mlm_probability=mlm_probability,
                mask_replace_prob=mask_replace_prob,
                random_replace_prob=random_replace_prob,
            )

    def __call__(self, features: Sequence[Mapping[str, Any] | Sequence[int]]) -> dict[str, NDArray[Any]]:
        """Pad rows that a tokenizer encoded, and hide words.

        Args:
            features: for each row its token ids, or a dict with `input_ids` and, if present, `token_type_ids`,
                `attention_mask` and `special_tokens_mask`, 1 for tokens that are not to be hidden.

        Returns:
            Arrays by name, int64 (rows, width): input_ids, attention_mask, token_type_ids where the tokenizer has them,
            and labels, the words that were hidden, or without `mlm` all words; -100 everywhere else.
        """
        rows = [dict(row) if isinstance(row, Mapping) else {"input_ids": list(row)} for row in features]
        special = [row.pop("special_tokens_mask", None) for row in rows]
        for row in rows:
            for name in ("label", "label_ids", "labels"):
                row.pop(name, None)
        padded = self._pad(rows)
        real, ids = padded["attention_mask"] == 1, padded["input_ids"].copy()
        labels = np.full(ids.shape, NO_LABEL)
        if self._masking is None:
            labels[real] = ids[real]
            return {**padded, "labels": labels}
        words = ids[real].astype(np.int32)
        batch = Batch(words, np.zeros_like(words), starts_of(real.sum(axis=1)))
        first, self._rows_seen = self._rows_seen, self._rows_seen + len(rows)
        hidden, chosen = self._masking(batch, np.arange(first, self._rows_seen), 0)
        kept = np.concatenate([_kept(of, on) for of, on in zip(special, real, strict=True)])
        ids[real], labels[real] = np.where(kept, words, hidden.ids), np.where(kept, NO_LABEL, chosen)
        return {**padded, "input_ids": ids, "labels": labels}


def _kept(special: Sequence[int] | None, real: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which tokens of a row are not to be hidden, given the row's `special_tokens_mask`."""
    kept = np.zeros(int(real.sum()), np.bool_)
    if special is not None:
        kept[:] = np.asarray(special, np.bool_)[: len(kept)]
    return kept
