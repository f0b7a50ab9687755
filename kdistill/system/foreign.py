"""Objects of other packages, given where one of kdistill is expected."""

from __future__ import annotations

import os
from types import UnionType

_PACKAGES = ("transformers", "torch")


def package_of(value: object) -> str | None:
    """Return "transformers" or "torch" for an object of these packages or of a class derived from theirs, else None."""
    packages = [cls.__module__.partition(".")[0] for cls in type(value).__mro__]
    return next((name for name in _PACKAGES if name in packages), None)


def described(value: object) -> str:
    """Return what follows "is" in a message about an object of the wrong kind: a path itself, else the class."""
    if isinstance(value, str | os.PathLike):
        return repr(value)
    package = type(value).__module__.partition(".")[0]
    return f"of type {type(value).__name__ if package == 'builtins' else f'{package}.{type(value).__name__}'}"


def check_kind(
    name: str, value: object, kind: type | UnionType, expected: str, *, of_foreign: str | None = None
) -> None:
    """Raise `TypeError` for anything but a `kind`: a path, a hub id, an object of transformers.

    Args:
        name: the argument.
        value: its value.
        kind: a class; with `| None` where the argument may be left out.
        expected: names what is wanted and how to get one.
        of_foreign: the same for an object of transformers or torch, from which one can be made (default: `expected`).
    """
    if not isinstance(value, kind):
        is_foreign = of_foreign is not None and package_of(value) is not None
        raise TypeError(f"{name} is {described(value)}; expected {of_foreign if is_foreign else expected}")
