"""Which tokens are masked: shares, what is never chosen, and that nothing but seed, epoch, row and place decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill.data.batch import Batch, pack
from kdistill.data.masking import Masking

MASK, WORDS, SPECIAL = 4, 1000, (0, 1, 2, 3, 4)
CHOSEN, BECAME = [6, 8, 25, 28, 30], [15, 4, 4, 4, 4]


def masking(**changes: Any) -> Masking:
    return Masking(**{"mask_token_id": MASK, "vocab_size": WORDS, "special_ids": SPECIAL, "seed": 7} | changes)


def batch_of(rows: int = 40, tokens: int = 500) -> Batch:
    return pack({"input_ids": np.random.default_rng(0).integers(0, WORDS, (rows, tokens)).tolist()})


def row_numbers(rows: int = 40) -> NDArray[np.int64]:
    return np.arange(rows)


def test_shares_are_those_of_bert() -> None:
    """Of 20,000 tokens; a share's deviation is below 4 standard deviations of its binomial distribution."""
    batch = batch_of()
    masked, labels = masking()(batch, row_numbers(), 0)
    chosen, plain = labels != -100, ~np.isin(batch.ids, SPECIAL)
    became_mask, changed = masked.ids == MASK, (masked.ids != batch.ids) & (masked.ids != MASK)
    n, m = plain.sum(), chosen.sum()
    for count, share, of in ((m, 0.15, n), (became_mask[chosen].sum(), 0.8, m), (changed[chosen].sum(), 0.1, m)):
        assert abs(count - share * of) < 4 * np.sqrt(of * share * (1 - share))
    random_words = masked.ids[changed & chosen]
    assert random_words.min() < 0.1 * WORDS
    assert random_words.max() > 0.9 * WORDS


def test_labels_are_the_words_that_were_there_and_others_stay() -> None:
    batch = batch_of()
    masked, labels = masking()(batch, row_numbers(), 0)
    chosen = labels != -100
    np.testing.assert_array_equal(labels[chosen], batch.ids[chosen])
    np.testing.assert_array_equal(masked.ids[~chosen], batch.ids[~chosen])
    assert not np.isin(batch.ids[chosen], SPECIAL).any()
    assert (masked.ids.dtype, labels.dtype) == (np.int32, np.int64)
    assert masked.starts is batch.starts


def test_a_row_is_masked_alike_in_any_batch() -> None:
    whole = batch_of()
    masked, labels = masking()(whole, row_numbers(), 3)
    rows = np.array([30, 2, 17])
    starts = whole.starts
    some = pack({"input_ids": [whole.ids[starts[r] : starts[r + 1]].tolist() for r in rows]})
    again, theirs = masking()(some, rows, 3)
    expected = np.concatenate([np.arange(starts[r], starts[r + 1]) for r in rows])
    np.testing.assert_array_equal(again.ids, masked.ids[expected])
    np.testing.assert_array_equal(theirs, labels[expected])


@pytest.mark.parametrize(("changes", "epoch"), [({}, 1), ({"seed": 8}, 0)])
def test_another_epoch_or_seed_masks_otherwise(changes: dict[str, Any], epoch: int) -> None:
    _, labels = masking()(batch_of(), row_numbers(), 0)
    _, others = masking(**changes)(batch_of(), row_numbers(), epoch)
    assert 0.1 < (labels != others).mean() < 0.4  # 0.26 of tokens are chosen in one of the two alone


def test_the_numbers_never_change() -> None:
    """Written down, so that a run goes on alike under another NumPy."""
    batch = pack({"input_ids": [[0, *range(10, 40), 2]]})
    masked, labels = masking()(batch, np.array([5]), 2)
    assert np.flatnonzero(labels != -100).tolist() == CHOSEN
    assert masked.ids[CHOSEN].tolist() == BECAME


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": 1000}, "mask_token_id is 1000; expected a word of the vocabulary, 0 to 999"),
        ({"seed": -1}, "seed is -1; expected 0 <= seed"),
        ({"mlm_probability": 1.0}, "mlm_probability is 1.0; expected a number above 0 and below 1"),
        ({"mask_replace_prob": 0.95}, "mask_replace_prob is 0.95 and random_replace_prob 0.1; expected shares"),
    ],
)
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masking(**changes)
