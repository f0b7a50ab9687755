"""Losses of embeddings: how far those of a student are from those of a teacher."""

from __future__ import annotations

from numpy.typing import ArrayLike

from .kinds import COSINE, LossParts, checked_logits, compute_loss
from .problem_types import REGRESSION

MSE = "mse"
EMBEDDING_LOSSES = (MSE, COSINE)
"""Names of the losses of embeddings."""
_CORE = {MSE: REGRESSION, COSINE: COSINE}


def embedding_loss(embeddings: ArrayLike, targets: ArrayLike, loss: str = MSE) -> LossParts:
    """Return how far embeddings are from their targets, the mean over the rows, and its gradient.

    "mse": the mean of (embeddings - targets)^2 over the numbers of a row, as sentence-transformers' MSELoss (Reimers
    and Gurevych, 2020, arXiv:2004.09813). "cosine": 1 - cos(embedding, target), as torch's CosineEmbeddingLoss of equal
    pairs; a vector of length 0 has the cosine 0 with any, and gradient 0.

    Args:
        embeddings: float32 (B, C).
        targets: float32 (B, C), of a teacher.
        loss: "mse" or "cosine".

    Returns:
        The parts, of which `hard` is 0; dlogits is float32 (B, C), d loss / d embeddings.

    Raises:
        ValueError: the shapes differ, or `loss` is another.
        FloatingPointError: a row's loss is not finite; names the rows.
    """
    if loss not in EMBEDDING_LOSSES:
        raise ValueError(f"loss is {loss!r}; expected one of {', '.join(map(repr, EMBEDDING_LOSSES))}")
    ours, theirs = checked_logits("embeddings", embeddings), checked_logits("targets", targets)
    if ours.shape != theirs.shape:
        raise ValueError(f"targets has shape {theirs.shape}; expected {ours.shape}, as embeddings has")
    return compute_loss(ours, theirs, None, _CORE[loss], alpha=0.0, temperature=1.0, label_smoothing=0.0)
