"""Find text that two sets of rows share: equal rows, and rows that are a phrase of a row on the other side.

Rows are compared as token ids, so that case, accents and spaces count as little as they do for the model. Tokens that
all rows begin or end with ([CLS], [SEP]) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blocks import BLOCK_UNITS, blocks_of, blocks_of_rows
from .dataset import Dataset

# A shorter training row inside a held-out one is a common phrase ("the film") and not a leak. docs/how-to/report.md
# counts the rows of each length that SST-2's dev and training rows share, which come from other sentences.
MIN_PHRASE_TOKENS = 6
_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses modulo 2**64
_Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """The ways in which held-out rows share text with training rows, each bool (held-out rows,).

    Attributes:
        equal: a training row has the same tokens.
        inside: the row is a phrase of a longer training row.
        around: a shorter training row, of at least `MIN_PHRASE_TOKENS` tokens, is a phrase of this row.
    """

    equal: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    around: NDArray[np.bool_]

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Rows that share text in any of these ways, bool (held-out rows,)."""
        return self.equal | self.inside | self.around

    def of_examples(self, heldout: Dataset) -> Overlap:
        """Return the same for the examples of which the rows are windows: each is what any of its windows is."""
        if heldout.windows is None:
            return self
        examples, count = heldout.windows.examples, heldout.num_examples
        kinds = (self.equal, self.inside, self.around)
        return Overlap(*(np.bincount(examples, kind, minlength=count) > 0 for kind in kinds))


def find_overlap(heldout: Dataset, training: Dataset, min_phrase_tokens: int = MIN_PHRASE_TOKENS) -> Overlap:
    """Compare each held-out row with all training rows.

    Phrases are found by polynomial hashes of windows, modulo 2**64 (Karp and Rabin, 1987, doi:10.1147/rd.312.0249). Two
    different windows of hashed tokens agree with a probability of about 1e-19: never, for any data set that fits here.
    The training rows are compared a block at a time, in some hundred bytes for each token of one.
    """
    ours, theirs = heldout.text_ids, training.text_ids
    without = tuple(_same_in_all([(ours, heldout), (theirs, training)], place) for place in (0, -1))
    rows = _Text(ours, heldout.starts, *without)
    equal, inside, around = (np.zeros(len(heldout), bool) for _ in range(3))
    for block in blocks_of_rows(training.starts, max(BLOCK_UNITS, len(ours))):
        starts = training.starts[block.start : block.stop + 1]
        others = _Text(theirs[starts[0] : starts[-1]], starts - starts[0], *without)
        for length in np.unique(rows.lengths):
            mine = np.flatnonzero(rows.lengths == length)
            hashes = rows.whole(mine)
            equal[mine] |= np.isin(hashes, others.whole(np.flatnonzero(others.lengths == length)))
            windows, _ = others.windows(length)
            inside[mine] |= np.isin(hashes, windows[_among(windows, hashes)])
        for length in np.unique(others.lengths[others.lengths >= min_phrase_tokens]):
            phrases = others.whole(np.flatnonzero(others.lengths == length))
            windows, row = rows.windows(length)
            around[row[_among(windows, phrases)]] = True
    return Overlap(equal, inside, around)


def _same_in_all(sets: Sequence[tuple[NDArray[np.int32], Dataset]], place: int) -> bool:
    """Return whether all rows have the same token first (place 0) or last (-1), and others beside it."""
    ids, data = sets[0]
    wanted = ids[0 if place == 0 else data.starts[1] - 1]
    for ids, data in sets:
        for block in blocks_of(len(data)):
            ends = data.starts[block] if place == 0 else data.starts[block.start + 1 : block.stop + 1] - 1
            if data.lengths[block].min() <= 2 or (ids[ends] != wanted).any():
                return False
    return True


def _among(values: _Hashes, wanted: _Hashes) -> NDArray[np.bool_]:
    """Return whether each of many values is among a few wanted ones; `np.isin` would sort the many."""
    ordered = np.unique(wanted)
    found: NDArray[np.bool_] = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return found


class _Text:
    """Rows, perhaps without their first and last token, and hashes of any window of them."""

    def __init__(
        self, ids: NDArray[np.int32], starts: NDArray[np.int64], without_first: bool, without_last: bool
    ) -> None:
        self._starts = starts[:-1] + without_first
        self.lengths = np.diff(starts) - without_first - without_last
        tokens = _mixed(ids)
        powers, inverses = (_powers(base, len(tokens)) for base in (_BASE, pow(_BASE, -1, 2**64)))
        self._inverses = inverses
        self._sums: _Hashes = np.concatenate((np.zeros(1, np.uint64), np.cumsum(tokens * powers[:-1], dtype=np.uint64)))

    def whole(self, rows: NDArray[np.int64]) -> _Hashes:
        """Return hashes of whole rows."""
        return self._hashes(self._starts[rows], self.lengths[rows])

    def windows(self, length: int) -> tuple[_Hashes, NDArray[np.int64]]:
        """Return hashes of all windows of `length` tokens in longer rows, and the row of each."""
        rows = np.flatnonzero(self.lengths > length)
        counts = self.lengths[rows] - length + 1
        before = np.cumsum(counts) - counts
        starts = np.repeat(self._starts[rows] - before, counts) + np.arange(counts.sum())
        return self._hashes(starts, length), np.repeat(rows, counts)

    def _hashes(self, starts: NDArray[np.int64], lengths: NDArray[np.int64] | int) -> _Hashes:
        """Return the sum of token * base**place of each window, places counted from the window's beginning."""
        hashes: _Hashes = (self._sums[starts + lengths] - self._sums[starts]) * self._inverses[starts]
        return hashes


def _mixed(ids: NDArray[np.int32]) -> _Hashes:
    """Return 64 random-looking bits for each token id, by the finaliser of SplitMix64 (doi:10.1145/2660193.2660195)."""
    x = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_BASE)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _powers(base: int, count: int) -> _Hashes:
    """Return base**0, ..., base**count modulo 2**64."""
    factors = np.full(count + 1, base, np.uint64)
    factors[0] = 1
    powers: _Hashes = np.multiply.accumulate(factors)
    return powers
