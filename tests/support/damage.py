"""Damaged files: what Hypothesis and the fuzzer make of sound ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

# What readers treat specially, to be put in anywhere.
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 30,
    b"\x00",
    b"\xff",
    b"\t",
    b"\n",
]


@st.composite
def damaged(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """A sound file after one to four cuts, insertions, changes or repetitions."""
    data = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        inserted = st.one_of(st.binary(max_size=8), st.sampled_from(TOKENS), st.just(bytes(data[at : at + 24])))
        data[at:end] = draw(inserted)
    return bytes(data)


def damage_and_read(path: Path, read: Callable[[Path], dict[str, Any]]) -> int:
    """Change one to four bytes of `path` 1,000 times and read it, tensors included; return how often it was refused."""
    data, dice, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            tensors = read(path)
        except ValueError:
            refused += 1
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                [tensor.read() for tensor in tensors.values() if tensor.is_float]
    return refused
