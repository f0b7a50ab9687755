"""Objects given in place of others, such as those of transformers."""

from __future__ import annotations

import os


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """Raise `TypeError` for anything but None and a `kind`: a path, a hub id, an object of transformers.

    `expected` names what is wanted and how to get one.
    """
    if value is None or isinstance(value, kind):
        return
    found = repr(value) if isinstance(value, (str, os.PathLike)) else f"of type {_full_name(type(value))}"
    raise TypeError(f"{name} is {found}; expected {expected}")


def _full_name(kind: type) -> str:
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
