"""`Pooling`: how an encoder's rows become the embedding of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..system.names import did_you_mean

MEAN, CLS, NONE = "mean", "cls", "none"
PICKS: Mapping[str, str] = {MEAN: "mean", CLS: "first"}
"""Mode of a pooling -> the rows that the core's head picks."""


@dataclass(frozen=True)
class Pooling:
    """How the rows of the last layer become one vector, as in sentence-transformers.

    Attributes:
        mode: "mean" of all tokens, special ones included, or that of the first, "cls".
        normalize: whether the vector is divided by its length.
    """

    mode: str = MEAN
    normalize: bool = False


def pooling_of(own: Pooling | None, pooling: Any = None, normalize: Any = None) -> Pooling | None:
    """Return the pooling that arguments ask for, where they are given; otherwise a model's own.

    Args:
        own: that of the model's files; None: they state none.
        pooling: "mean" or "cls"; "none" takes the model as an encoder alone; None: not given.
        normalize: whether vectors get the length 1; None: not given.

    Raises:
        ValueError: another value, or `normalize` without a pooling.
        TypeError: `normalize` is no bool.
    """
    if pooling not in (None, NONE, *PICKS):
        known = ", ".join(map(repr, (*PICKS, NONE)))
        raise ValueError(f"pooling is {pooling!r}; expected one of {known}{did_you_mean(str(pooling), PICKS)}")
    if normalize not in (None, True, False):
        raise TypeError(f"normalize is {normalize!r}; expected True, False or None")
    found = None if pooling == NONE else own if pooling is None else Pooling(pooling, own is not None and own.normalize)
    if normalize is None or found is None:
        if normalize:
            raise ValueError("normalize is True, and there is no pooling; expected pooling='mean' or 'cls' beside it")
        return found
    return Pooling(found.mode, bool(normalize))
