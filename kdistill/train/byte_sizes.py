"""Sizes in bytes, as arguments state them: 20GB, 512MiB, or a number."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def read_size(name: str, value: Any) -> str:
    """Return a size as text, given as one such as 20GB (of 10^9 bytes) or 20GiB (of 2^30), or as a number of bytes.

    Raises:
        ValueError: the text is no size, or the size is not above 0.
        TypeError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{name} is {value!r}; expected bytes, such as '20GB' or 20_000_000_000")
    text = str(value).strip()
    if bytes_of(text) < 1:
        raise ValueError(f"{name} is {value!r}; expected bytes above 0, such as 20GB, 512MiB or 20000000000")
    return text


def bytes_of(text: str) -> int:
    """Return how many bytes a text of `read_size` stands for, and 0 for any other."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    unit = None if found is None else _UNITS.get(found[2].upper())
    return 0 if found is None or unit is None else int(float(found[1]) * unit)
