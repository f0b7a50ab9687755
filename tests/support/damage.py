"""Damaged files: what Hypothesis and the fuzzer make of sound ones."""

from __future__ import annotations

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
