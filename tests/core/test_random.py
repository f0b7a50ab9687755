"""Dropout's random bits: the published generator, the address scheme of csrc/kd_random.h, and plain statistics."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kdistill._core import testing

Words = NDArray[np.uint64]
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)

# From kat_vectors of Random123 (Salmon, Moraes, Dror, Shaw, SC 2011), philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10 from the paper: counter (..., 4) and key (2,) of 32-bit words -> (..., 4)."""
    c0, c1, c2, c3 = np.moveaxis(counter & LOW, -1, 0)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & LOW, (k1 + np.uint64(0xBB67AE85)) & LOW
    return np.stack([c0, c1, c2, c3], axis=-1)


def addressed(seed: int, step: int, tensor: int, place: int, features: NDArray[np.int64]) -> Words:
    """The 16 bits each feature of a row gets, as kd_random.h says."""
    counter = np.zeros((len(features), 4), np.uint64)
    counter[:, 0] = features // 64 * 8 + features % 16 // 2
    counter[:, 1:] = place, tensor, step
    words = philox(counter, np.array([seed % 2**32, seed >> 32], np.uint64))
    word = words[np.arange(len(features)), features % 64 // 32 * 2 + features % 2]
    return word >> (features % 32 // 16 * 16).astype(np.uint64) & np.uint64(0xFFFF)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: list[int], key: list[int], answer: list[int]) -> None:
    assert philox(np.array(counter, np.uint64), np.array(key, np.uint64)).tolist() == answer
    block, lane = divmod(counter[0], 8)
    place, tensor, step = counter[1:]
    bits = testing.random_bits(key[0] + (key[1] << 32), step, tensor, place, block)
    low, high = bits.reshape(2, 2, 8, 2)[:, :, lane].swapaxes(0, 1).astype(np.int64)  # [half][pair of words, odd word]
    assert (low + (high << 16)).ravel().tolist() == answer


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 12345])
def test_addresses(seed: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        step, tensor, place, block = (int(value) for value in rng.integers(0, [2**32, 100, 2**32, 1000]))
        expected = addressed(seed, step, tensor, place, np.arange(64 * block, 64 * block + 64))
        np.testing.assert_array_equal(testing.random_bits(seed, step, tensor, place, block), expected)


@pytest.mark.parametrize("width", [1, 16, 63, 64, 65, 200])
def test_dropout_keeps_where_the_bits_reach_the_rate(width: int) -> None:
    for p in (0.1, 0.5, 0.75):
        mask = testing.dropout(np.ones((3, width), np.float32), (p, 2**40 + 3, 7, 5, 2**32 - 2))
        for row in range(3):
            bits = addressed(2**40 + 3, 7, 5, (2**32 - 2 + row) % 2**32, np.arange(width))
            dropped = round(p * 2**16)
            np.testing.assert_array_equal(mask[row] > 0, bits >= dropped)
            np.testing.assert_allclose(mask[row][bits >= dropped], 2**16 / (2**16 - dropped), rtol=1e-7)


def kept(p: float = 0.5, seed: int = 33, step: int = 0, tensor: int = 0, place: int = 0) -> NDArray[np.bool_]:
    return testing.dropout(np.ones((1000, 500), np.float32), (p, seed, step, tensor, place)) > 0


def binomial(n: int, p: float) -> NDArray[np.float64]:
    """The probability of 0 .. n hits."""
    hits = np.arange(1, n + 1)
    odds = np.concatenate([[0.0], np.cumsum(np.log((n - hits + 1) / hits * p / (1 - p)))])
    return np.exp(odds + n * np.log1p(-p))


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_rate_of_what_is_kept(p: float) -> None:
    mask = kept(p)
    assert abs(mask.mean() - (1 - p)) < 4 * np.sqrt(p * (1 - p) / mask.size)
    # Rows and columns have as many ones as throws of a coin would: none is luckier than 5 sigma of a normal
    # distribution, as the binomial one's own tails have it, and Pearson's chi-square is within 4 sigma.
    for axis in (0, 1):
        hits, n = mask.sum(axis=axis), mask.shape[axis]
        chances = binomial(n, 1 - p)
        at_most, at_least = np.cumsum(chances), np.cumsum(chances[::-1])[::-1]
        assert np.minimum(at_most[hits], at_least[hits]).min() > 2.9e-7
        expected = chances * len(hits)
        common = expected >= 5
        seen = np.bincount(hits, minlength=n + 1)
        chi_square = np.sum((seen - expected)[common] ** 2 / expected[common])
        assert chi_square < common.sum() + 4 * np.sqrt(2 * common.sum())


def test_neighbours_of_every_kind_are_independent() -> None:
    mask = kept()
    pairs = {
        "feature": (mask[:, 1:], mask[:, :-1]),
        "lane": (mask[:, 16:], mask[:, :-16]),
        "block": (mask[:, 64:], mask[:, :-64]),
        "token": (mask[1:], mask[:-1]),
        "step": (mask, kept(step=1)),
        "tensor": (mask, kept(tensor=1)),
        "seed": (mask, kept(seed=34)),
        "high half of the seed": (mask, kept(seed=33 + 2**32)),
    }
    for name, (one, other) in pairs.items():
        # Of independent fair coins half agree, with a standard deviation of 1 / (2 sqrt n).
        assert abs((one == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(one.size), name


def test_places_go_on_where_the_last_batch_ended() -> None:
    np.testing.assert_array_equal(kept(place=400)[:600], kept()[400:])
