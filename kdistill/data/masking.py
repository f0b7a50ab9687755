"""Masked language modelling: which tokens of a row are to be predicted, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .label_values import NO_LABEL

_MASKING = 1  # the stream of random numbers, beside that of the order of the rows
_DRAWS = 3  # a token's: whether it is chosen, what takes its place, and which word if it is a random one
_TO_UNIT = 2.0**-53


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Chooses tokens to predict and hides them, as `DataCollatorForLanguageModeling` of transformers does.

    See Devlin et al., arXiv:1810.04805. A token is chosen with a probability, unless it is a special one. Of the chosen
    ones some become the mask, some a random word of the whole vocabulary, and the others stay.

    What is drawn for a token depends on (seed, epoch, row, place in the row) and nothing else: not on the batch that
    its row is in, so that a run which is resumed, or has other micro-batches, masks the same. It is made from the raw
    stream of NumPy's Philox generator, which never changes between versions of NumPy.

    Args:
        mask_token_id: the mask.
        vocab_size: random words are drawn from 0 to vocab_size - 1.
        special_ids: tokens that are never chosen, such as `tokenizer.all_special_ids`.
        seed: 0 <= seed < 2**64.
        mlm_probability: of a token to be chosen, above 0 and below 1.
        mask_replace_prob: share of the chosen that become the mask.
        random_replace_prob: share of the chosen that become a random word; with mask_replace_prob at most 1.

    Raises:
        ValueError: an argument is out of its range.
    """

    mask_token_id: int
    vocab_size: int
    special_ids: Collection[int]
    seed: int
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise ValueError(
                f"mask_token_id is {self.mask_token_id}; expected a word of the vocabulary, 0 to {self.vocab_size - 1}"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; expected 0 <= seed < 2**64")
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability is {self.mlm_probability}; expected a number above 0 and below 1")
        mask, other = self.mask_replace_prob, self.random_replace_prob
        if mask < 0 or other < 0 or mask + other > 1:
            raise ValueError(
                f"mask_replace_prob is {mask} and random_replace_prob {other}; expected shares of the chosen tokens, "
                "0 to 1 together"
            )

    def __call__(self, batch: Batch, rows: NDArray[np.int64], epoch: int) -> tuple[Batch, NDArray[np.int64]]:
        """Return the batch with tokens hidden, and what they were: int64 (N,), -100 for those that were not chosen.

        Args:
            batch: a packed batch.
            rows: (B,) places of its rows in the data.
            epoch: counted from 0.
        """
        draws = np.concatenate(
            [self._draws(int(row), epoch, int(n)) for row, n in zip(rows, np.diff(batch.starts), strict=True)]
        )
        chosen = (draws[:, 0] < self.mlm_probability) & ~np.isin(batch.ids, [*self.special_ids])
        labels = np.where(chosen, batch.ids, NO_LABEL).astype(np.int64)
        hidden = chosen & (draws[:, 1] < self.mask_replace_prob)
        swapped = chosen & ~hidden & (draws[:, 1] < self.mask_replace_prob + self.random_replace_prob)
        words = (draws[:, 2] * self.vocab_size).astype(batch.ids.dtype)
        ids = np.where(hidden, np.int32(self.mask_token_id), np.where(swapped, words, batch.ids))
        return batch._replace(ids=ids.astype(batch.ids.dtype, copy=False)), labels

    def _draws(self, row: int, epoch: int, tokens: int) -> NDArray[np.float64]:
        """Return the numbers of a row, (tokens, 3), each from 0 to below 1."""
        key = np.array([self.seed, epoch], dtype=np.uint64)
        counter = np.array([0, 0, row, _MASKING], dtype=np.uint64)
        raw = np.random.Philox(key=key, counter=counter).random_raw(_DRAWS * tokens)
        return np.asarray((raw >> np.uint64(11)) * _TO_UNIT).reshape(tokens, _DRAWS)
