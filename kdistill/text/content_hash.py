"""The hash of everything that decides which ids a tokenizer gives a text."""

from __future__ import annotations

import hashlib
import re

import numpy as np

# The package tokenizers reads a number of more than 15 digits with an error in its last place, so that the scores of
# Unigram change a little each time a tokenizer.json is read. SentencePiece's have 32 bits, which stay.
_LONG_NUMBER = re.compile(r"-?\d+\.\d{14,}(?:e-?\d+)?")


def content_hash(serialized: str, model: str) -> str:
    """Return the SHA-256, in hexadecimal, of a tokenizer, the same however often it was saved and read.

    Args:
        serialized: its tokenizer.json.
        model: the kind of its model, such as "Unigram".
    """
    if model == "Unigram":
        serialized = _LONG_NUMBER.sub(lambda number: str(np.float32(number[0])), serialized)
    return hashlib.sha256(serialized.encode("utf-8")).hexdigest()
