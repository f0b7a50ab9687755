"""A teacher's embeddings for a narrower student: their directions that keep most of the products between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 8192


def principal_directions(embeddings: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Return orthonormal directions, float64 (C, count), the one first along which embeddings are longest.

    They are the eigenvectors of E^T E with the largest eigenvalues. Of all linear maps to so few numbers this one
    changes the products of embeddings least (Eckart and Young, 1936, doi:10.1007/BF02288367), so that cosines stay as
    they are as far as they can. sentence-transformers' example of distillation takes those of the covariance (PCA).

    Args:
        embeddings: float32 (rows, C).
        count: at most C.
    """
    width = embeddings.shape[1]
    moment = np.zeros((width, width))
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS].astype(np.float64)
        moment += block.T @ block
    directions: NDArray[np.float64] = np.linalg.eigh(moment).eigenvectors[:, ::-1][:, :count]
    # An eigenvector's sign is arbitrary; its largest entry is made positive, so that machines agree.
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(count)])
    return directions


def projected(embeddings: NDArray[np.float32], directions: NDArray[np.float64], *, unit: bool) -> NDArray[np.float32]:
    """Return embeddings along these directions, float32 (rows, count); with `unit` divided by their length."""
    found = np.concatenate(
        [embeddings[i : i + BLOCK_ROWS].astype(np.float64) @ directions for i in range(0, len(embeddings), BLOCK_ROWS)]
    )
    if unit:
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found.astype(np.float32)
