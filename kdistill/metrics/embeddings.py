"""Metrics of embeddings, float32 (n, C), computed in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .prediction import Logits


def mean_squared_error(embeddings: Logits, others: Logits) -> float:
    """Return the mean of the squared differences over rows and numbers."""
    return float(((embeddings.astype(np.float64) - others) ** 2).mean())


def cosines(embeddings: Logits, others: Logits) -> NDArray[np.float64]:
    """Return the cosine of each row with the same row of `others`, float64 (n,); 0 for a vector of length 0."""
    a, b = embeddings.astype(np.float64), others.astype(np.float64)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found: NDArray[np.float64] = (a * b).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return found
