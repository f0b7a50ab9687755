"""Which parts of layers stay: a share of them, by what they matter."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
from numpy.typing import NDArray

SCOPES = ("layer", "global")
"""Where a share is kept: in each layer, or of all layers together."""
Kept = list[NDArray[np.int64]]
"""For each layer the places of the parts that stay, ascending, at least one."""


def check_share(name: str, share: float | None) -> None:
    """Raise for a share that is not above 0 and at most 1, or no number, and call it `name`; None is none."""
    if share is not None and (isinstance(share, bool) or not isinstance(share, Real)):
        raise TypeError(
            f"{name} is {share!r} of type {type(share).__name__}; expected the share to keep, above 0 and at most 1"
        )
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"{name} is {share}; expected the share to keep, above 0 and at most 1")


def kept_parts(importance: Sequence[NDArray[np.float64]], share: float, scope: str, name: str, what: str) -> Kept:
    """Return the parts that matter most; of equally important ones the first stay.

    In all layers together those of each layer are divided by their length (the L2 norm of the layer's), as Michel et
    al. (arXiv:1905.10650, section 4.1) do after Molchanov et al.: gradients of layers differ in size.

    Args:
        importance: of the parts of each layer, (parts,).
        share: of the parts to keep, rounded to a whole number of them.
        scope: one of `SCOPES`.
        name: of the argument with the share, for messages.
        what: the parts, for messages.

    Raises:
        ValueError: a layer would have no part left.
    """
    if scope == "layer":
        counts = [round(share * len(of)) for of in importance]
        for layer, (count, of) in enumerate(zip(counts, importance, strict=True)):
            if count == 0:
                raise ValueError(
                    f"{name} is {share}, which leaves layer {layer} none of its {len(of)} {what}; expected at least "
                    f"{1 / len(of):.3g}"
                )
        return [np.sort(np.argsort(-of, kind="stable")[:count]) for of, count in zip(importance, counts, strict=True)]
    scaled = [of / (np.linalg.norm(of) or 1.0) for of in importance]
    every = np.concatenate(scaled)
    best = np.zeros(len(every), np.bool_)
    best[np.argsort(-every, kind="stable")[: round(share * len(every))]] = True
    kept = [np.flatnonzero(of) for of in np.split(best, np.cumsum([len(of) for of in scaled])[:-1])]
    for layer, places in enumerate(kept):
        if not len(places):
            raise ValueError(
                f"{name} is {share}, and the {round(share * len(every))} most important of all {len(every)} {what} "
                f"leave layer {layer} none; expected a larger share, or scope 'layer', which keeps it in each layer"
            )
    return kept
