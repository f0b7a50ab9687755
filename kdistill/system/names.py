"""Names that come from outside: lists of them, suggestions for misspelt ones, and file names made of any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from .unicode import encodable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, or an empty string when none is near.

    Dashes before an option are left out of the comparison, as they would make any two options alike.
    """
    plain = {other.lstrip("-"): other for other in known}
    nearest = get_close_matches(name.lstrip("-"), plain, n=1)
    return f"; did you mean {plain[nearest[0]]!r}?" if nearest else ""


def listing(names: Iterable[str], most: int | None = None) -> str:
    """Return names as a message lists them: all of them, or the first `most` and how many follow."""
    listed = list(names)
    more = 0 if most is None else len(listed) - most
    return f"{', '.join(listed[:most])} and {more:,} more" if more > 1 else ", ".join(listed) or "none"


def missing_attribute(owner: object, name: str, instead: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that an object lacks, for its `__getattr__` to raise.

    Args:
        owner: the object.
        name: the attribute.
        instead: what to use, by names that an object of other packages has in its place; others get the nearest name.
    """
    public = [each for each in dir(type(owner)) if not each.startswith("_")]
    hint = f": {instead[name]}" if name in instead else did_you_mean(name, public)
    return AttributeError(f"{type(owner).__name__} has no attribute {name!r}{hint}", name=name)


def check_others(
    owner: str, given: Mapping[str, Any], known: Iterable[str], others: Mapping[str, tuple[tuple[Any, ...], str]]
) -> None:
    """Raise for keyword arguments that a call does not have.

    Args:
        owner: the function, in messages.
        given: the arguments that it does not have.
        known: names of those that it has.
        others: those of the same function of transformers: values that change nothing, besides None, and what to do
            instead of giving another.

    Raises:
        TypeError: an unknown argument, with the nearest name.
        ValueError: one of `others`, with another value.
    """
    for name, value in given.items():
        if name not in others:
            raise TypeError(f"{owner} has no argument {name!r}{did_you_mean(name, [*known, *others])}")
        harmless, instead = others[name]
        if value is not None and not any(value == each for each in harmless):
            raise ValueError(f"{owner} does not take {name}: {instead}")


_LONGEST_FILE_NAME = 200  # bytes; file systems take 255, and numbers or endings are appended


def as_file_name(name: str) -> str:
    """Return `name` as the name of one file or directory, which stays where it belongs and which every disk takes.

    "/" becomes "_", as do "." and ".." where they are all of the name; what UTF-8 has no bytes for is written as an
    escape; a name that is too long is cut and gets the beginning of its hash.
    """
    plain = encodable(name).replace("/", "_").replace("\0", "_")
    if plain in ("", ".", ".."):
        return "_" * max(1, len(plain))
    encoded = plain.encode()
    if len(encoded) <= _LONGEST_FILE_NAME:
        return plain
    return f"{encoded[: _LONGEST_FILE_NAME - 9].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:8]}"
