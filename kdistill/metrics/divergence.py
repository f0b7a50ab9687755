"""How far a model's answers are from those of a reference: the Kullback-Leibler divergence of what they mean.

All take the logits of both for the same rows, float (n, num_labels), compute in float64 and return the mean over the
rows of KL(reference || other) in nats (Kullback and Leibler, 1951, doi:10.1214/aoms/1177729694).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .classification import log_softmax
from .embeddings import cosines
from .prediction import Logits


def of_classes(logits: Logits, reference: Logits) -> float:
    """Return that of distributions over the labels: sum_k p_k (log p_k - log q_k), of softmax."""
    ours, theirs = log_softmax(logits), log_softmax(reference)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis=1).mean())


def of_indicators(logits: Logits, reference: Logits) -> float:
    """Return that of distributions over sets of labels, each label independent of the others.

    It is the sum over the labels of p log(p / q) + (1 - p) log((1 - p) / (1 - q)), of sigmoid.
    """
    ours, theirs = logits.astype(np.float64), reference.astype(np.float64)
    true = np.exp(_log_sigmoid(theirs)) * (_log_sigmoid(theirs) - _log_sigmoid(ours))
    false = np.exp(_log_sigmoid(-theirs)) * (_log_sigmoid(-theirs) - _log_sigmoid(-ours))
    return float((true + false).sum(axis=1).mean())


def of_numbers(logits: Logits, reference: Logits) -> float:
    """Return that of normal distributions around the numbers: the sum over the outputs of (a - b)^2 / (2 s^2).

    s is the standard deviation of an output's reference numbers over the rows: an error counts by how much the answers
    differ among themselves. Where they do not differ, any error is infinitely far.
    """
    theirs = reference.astype(np.float64)
    squares = (logits.astype(np.float64) - theirs) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(squares == 0, 0.0, squares / (2 * theirs.var(axis=0)))
    return float(parts.sum(axis=1).mean())


def of_embeddings(embeddings: Logits, reference: Logits) -> float:
    """Return 1 minus the mean cosine of embeddings, which is no divergence of Kullback and Leibler.

    Embeddings are read by their direction. Half the squared distance of two of length 1 is 1 minus their cosine, and
    the divergence of two normal distributions of deviation 1 around them is that same number.
    """
    return float(1 - cosines(embeddings, reference).mean())


def _log_sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = -np.logaddexp(0, -logits)
    return logs
