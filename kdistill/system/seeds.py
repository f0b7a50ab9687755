"""The seed of what is drawn without one of its own: `set_seed`, as in transformers."""

from __future__ import annotations

import random
import sys

import numpy as np

_default = 0


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed Python's `random`, NumPy and, where it is loaded, PyTorch, as `transformers.set_seed` does.

    It also becomes the seed of models whose weights are drawn without a `seed`. A training run has its own, which is an
    argument.

    Args:
        seed: from 0 to 2**32 - 1.
        deterministic: kdistill always computes deterministically; with True PyTorch is told to do so too.

    Raises:
        ValueError: the seed is out of its range.
    """
    global _default
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 to 2**32 - 1")
    random.seed(int(seed))
    np.random.seed(int(seed))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int(seed))
        if deterministic:
            torch.use_deterministic_algorithms(True)
    _default = int(seed)


def chosen_seed(seed: int | None) -> int:
    """Return the seed, or for None that of the latest `set_seed`, which is 0 before the first one."""
    return _default if seed is None else seed
