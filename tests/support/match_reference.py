"""The losses of matches written from the papers in float64, with gradients: twins of the core's three functions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]


def rows_loss(
    loss: str, student: ArrayLike, teacher: ArrayLike, projection: ArrayLike | None = None
) -> tuple[float, Array, Array | None]:
    """The loss of rows (R, S) and (R, T), and its gradients; a projection is (T, S)."""
    s, t = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    w = None if projection is None else np.asarray(projection, np.float64)
    p = s if w is None else s @ w.T
    rows = len(t)
    if loss == "mse":
        value, dp = np.mean((p - t) ** 2), 2 * (p - t) / t.size
    else:
        lengths, theirs = np.linalg.norm(p, axis=1, keepdims=True), np.linalg.norm(t, axis=1, keepdims=True)
        cosines = (p * t).sum(axis=1, keepdims=True) / (lengths * theirs)
        dcosine = (t / theirs - cosines * p / lengths) / lengths
        factor = 1.0 if loss == "cosine" else 2.0  # |a - b|^2 = 2 - 2 cos of unit vectors
        value, dp = factor * np.mean(1 - cosines), -factor * dcosine / rows
    return float(value), dp if w is None else dp @ w, None if w is None else dp.T @ s


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(student: Array, teacher: Array) -> tuple[float, Array]:
    """The sum of KL(softmax(teacher) || softmax(student)) over the last axis, and its gradient by `student`."""
    p, q = softmax(teacher), softmax(student)
    return float((p * (np.log(p) - np.log(q))).sum()), q - p


def scores_of(flat: ArrayLike, starts: ArrayLike, heads: int) -> list[Array]:
    """The scores (heads, n, n) of each sequence."""
    lengths = np.diff(np.asarray(starts))
    pieces = np.split(np.asarray(flat, np.float64), np.cumsum(heads * lengths**2)[:-1])
    return [piece.reshape(heads, n, n) for piece, n in zip(pieces, lengths, strict=True)]


def attention_loss(
    loss: str, student: ArrayLike, teacher: ArrayLike, starts: ArrayLike, heads: int
) -> tuple[float, Array]:
    ours, theirs = scores_of(student, starts, heads), scores_of(teacher, starts, heads)
    if loss == "mse":
        size = sum(piece.size for piece in ours)
        value = sum(float(((s - t) ** 2).sum()) for s, t in zip(ours, theirs, strict=True)) / size
        return value, np.concatenate([(2 * (s - t) / size).ravel() for s, t in zip(ours, theirs, strict=True)])
    count = heads * sum(piece.shape[1] for piece in ours)
    found = [divergence(s, t) for s, t in zip(ours, theirs, strict=True)]
    return sum(value for value, _ in found) / count, np.concatenate([(d / count).ravel() for _, d in found])


def relation_loss(student: ArrayLike, teacher: ArrayLike, starts: ArrayLike, heads: int) -> tuple[float, Array]:
    """The loss of relations, and its gradient by the student's rows (N, S)."""
    s, t = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    count, total, ds = heads * len(s), 0.0, np.zeros_like(s)
    for start, end in pairwise(np.asarray(starts)):
        for head in range(heads):
            ours, theirs = (
                x[start:end, head * (x.shape[1] // heads) : (head + 1) * (x.shape[1] // heads)] for x in (s, t)
            )
            root = np.sqrt(ours.shape[1])
            value, d = divergence(ours @ ours.T / root, theirs @ theirs.T / np.sqrt(theirs.shape[1]))
            total += value
            ds[start:end, head * ours.shape[1] : (head + 1) * ours.shape[1]] = (d + d.T) @ ours / root / count
    return total / count, ds


# ---- with the signatures of the core


def match_rows(
    loss: str, student: Floats, teacher: Floats, projection: Floats | None, threads: int
) -> tuple[float, Floats, Floats | None]:
    value, ds, dw = rows_loss(loss, student, teacher, projection)
    return value, ds.astype(np.float32), None if dw is None else dw.astype(np.float32)


def match_attention(
    loss: str, student: Floats, teacher: Floats, starts: NDArray[np.int64], heads: int, threads: int
) -> tuple[float, Floats]:
    value, ds = attention_loss(loss, student, teacher, starts, heads)
    return value, ds.astype(np.float32)


def match_relation(
    loss: str, student: Floats, teacher: Floats, starts: NDArray[np.int64], heads: int, threads: int
) -> tuple[float, Floats]:
    value, ds = relation_loss(student, teacher, starts, heads)
    return value, ds.astype(np.float32)
