"""Perplexity of a language model."""

from __future__ import annotations

import math


def perplexity(loss: float) -> float:
    """Return exp(loss) of a mean cross-entropy over tokens: so many words that are equally likely have it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
