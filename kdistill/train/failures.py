"""Failures at the end of a run or search, or after it, by which nothing of it is lost: they are noted and warned of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

NOTHING_LOST = ". Nothing is lost: "
"""What stands between the cause of a failure and where the result is."""


class Failures(dict[str, str]):
    """A sentence about each part of a run's end that failed, by its name, such as "model_card" or "upload"."""

    def note(self, what: str, sentence: str) -> None:
        """Note a failure and warn of it."""
        self[what] = sentence
        warnings.warn(sentence, stacklevel=4)

    def attempt(self, what: str, do: Callable[[], Any], *, kept: str, again: str) -> None:
        """Do one part of what comes after a finished run or search; when it fails, note it.

        Args:
            what: its name.
            do: does it.
            kept: a clause on where the result is.
            again: a clause on how to do it later.
        """
        try:
            do()
        except Exception as error:  # noqa: BLE001  # whatever it is, the result is there
            message = " ".join(str(error).split())
            if not (message and isinstance(error, OSError | ValueError | ImportError)):
                message = f"{type(error).__name__}: {message}"
            self.note(what, f"{what.replace('_', ' ')}: {message}{NOTHING_LOST}{kept}; {again}")
