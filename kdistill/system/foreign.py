"""Objects of other packages, given where one of kdistill is expected."""

from __future__ import annotations

_PACKAGES = ("transformers", "torch")


def package_of(value: object) -> str | None:
    """Return "transformers" or "torch" for an object of these packages or of a class derived from theirs, else None."""
    packages = [cls.__module__.partition(".")[0] for cls in type(value).__mro__]
    return next((name for name in _PACKAGES if name in packages), None)


def described(value: object) -> str:
    """Return what a message calls an object: by its class and, for one of another package, by that."""
    package = package_of(value)
    return f"a {type(value).__name__}{'' if package is None else f' of {package}'}"
