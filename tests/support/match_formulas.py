"""Losses between a student's hidden states, attention or relations and its teacher's, in float64 NumPy.

Written from the papers, for reading rather than speed, and from nothing in kdistill:

- TinyBERT: Jiao et al., arXiv:1909.10351, its losses on hidden states (with W), embeddings and attention;
- DistilBERT: Sanh et al., arXiv:1910.01108, the cosine of hidden states;
- PKD: Sun et al., arXiv:1908.09355, normalised states;
- MiniLM: Wang et al., arXiv:2002.10957, attention distributions; MiniLMv2: arXiv:2012.15828, relations.

A sequence is taken alone; rows and maps of a batch are lists, so there is neither padding nor a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from support.reference import Array, log_softmax


def _mse(s: Array, t: Array) -> float:
    return float(((s - t) ** 2).mean())


def _cosine(s: Array, t: Array) -> float:
    return float(1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t)))


def _normalized_mse(s: Array, t: Array) -> float:
    return float(((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum())


ROW_LOSSES: Mapping[str, Callable[[Array, Array], float]] = {
    "mse": _mse,
    "cosine": _cosine,
    "normalized-mse": _normalized_mse,
}


def rows(loss: str, student: Array, teacher: Array, projection: Array | None = None) -> float:
    """Mean over rows (R, S) and (R, T) of the loss of each; W (T, S) makes the student's as wide as the teacher's."""
    projected = student if projection is None else np.stack([projection @ row for row in student])
    return float(np.mean([ROW_LOSSES[loss](s, t) for s, t in zip(projected, teacher, strict=True)]))


def maps(loss: str, student: Sequence[Array], teacher: Sequence[Array]) -> float:
    """Mean over all scores (H, n, n) of squared differences, or over their rows of KL(teacher || student)."""
    pairs = list(zip(student, teacher, strict=True))
    if loss == "mse":
        return float(np.concatenate([((s - t) ** 2).ravel() for s, t in pairs]).mean())
    divergences = [(np.exp(log_softmax(t)) * (log_softmax(t) - log_softmax(s))).sum(axis=-1) for s, t in pairs]
    return float(np.concatenate([each.ravel() for each in divergences]).mean())


def relations(x: Array, heads: int) -> Array:
    """Scaled products (H, n, n) of the rows (n, C) of one sequence, cut into heads."""
    parts = np.split(x, heads, axis=1)
    return np.stack([part @ part.T / np.sqrt(part.shape[1]) for part in parts])


def relation(loss: str, student: Array, teacher: Array, lengths: Sequence[int], heads: int) -> float:
    """`maps` of the relations of rows (N, S) and (N, T), sequence by sequence."""
    cuts = np.cumsum(lengths)[:-1]
    ours, theirs = (([relations(x, heads) for x in np.split(each, cuts)]) for each in (student, teacher))
    return maps(loss, ours, theirs)
