"""Objects of other packages, given where one of kdistill is expected."""

from __future__ import annotations

import os

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


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """Raise `TypeError` for anything but None and a `kind`: a path, a hub id, an object of transformers.

    `expected` names what is wanted and how to get one.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {described(value)}; expected {expected}")
