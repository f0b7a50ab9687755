"""Check the settings of pipelines that count something."""

from __future__ import annotations

from typing import Any

import numpy as np


def checked_count(name: str, value: Any, least: int = 1) -> int:
    """Return the value of a setting, a whole number of at least `least`.

    Raises:
        ValueError: it is smaller.
        TypeError: it is no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}; expected a whole number of at least {least}"
        )
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
    return int(value)
