"""The texts that a pipeline is called with, and what is said of those that are cut."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..system.names import did_you_mean


def texts_of_call(inputs: Any) -> list[str]:
    """Return the texts of a call, which is given one or any iterable of them.

    Raises:
        TypeError: something else; names its place.
    """
    if not isinstance(inputs, Iterable):
        raise TypeError(f"inputs is {inputs!r} of type {type(inputs).__name__}; expected a text or several")
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"inputs[{index}] is {text!r} of type {type(text).__name__}; expected a text")
    return texts


def refuse_unknown(task: str, unknown: Mapping[str, Any], known: Callable[..., Any] | Collection[str]) -> None:
    """Raise TypeError for a setting that a pipeline does not have, with the nearest name.

    Args:
        task: the pipeline's.
        unknown: settings that were given, and are none.
        known: names of those that it has, or the function whose keyword arguments they are.
    """
    for name in unknown:
        if not isinstance(known, Collection):
            parameters = inspect.signature(known).parameters.values()
            known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        raise TypeError(f"a {task} pipeline has no setting {name!r}{did_you_mean(name, known)}")


def tokenizer_arguments(name: str, given: Any) -> dict[str, Any]:
    """Return the arguments of the tokenizer that a setting holds, None for none. Raises TypeError for no mapping."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{name} is {given!r} of type {type(given).__name__}; expected a dict of arguments")
    return dict(given or {})


class CutTexts:
    """Says once that texts are cut which nobody asked to have cut."""

    def __init__(self) -> None:
        self._said = False

    def warn(self, cut: int, rows: int, max_length: int, asked: Collection[str], *, stacklevel: int = 3) -> None:
        """Warn of `cut` of so many rows, unless it was said before, or is asked for.

        Args:
            cut: rows that were cut.
            rows: all rows.
            max_length: the tokens that they were cut to.
            asked: the arguments of the tokenizer that the user gave.
            stacklevel: as in `warnings.warn`, of a call in the function that calls this one.
        """
        if self._said or not cut or {"truncation", "max_length"} & {*asked}:
            return
        self._said = True
        warnings.warn(
            f"{cut:,} of {rows:,} texts ({cut / rows:.1%}) were longer than {max_length} "
            "tokens and truncated; truncation=True avoids this warning, max_length=... sets another length",
            stacklevel=stacklevel,
        )
