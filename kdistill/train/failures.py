"""Failures at the end of a run or after it, by which nothing of the run is lost: they are noted and warned of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


class Failures(dict[str, str]):
    """A sentence about each part of a run's end that failed, by its name, such as "model_card" or "upload"."""

    def note(self, what: str, sentence: str) -> None:
        """Note a failure and warn of it."""
        self[what] = sentence
        warnings.warn(sentence, stacklevel=4)

    def attempt(self, what: str, do: Callable[[], Any], *, kept_in: str, again: str) -> None:
        """Do one part of what comes after a finished run; when it fails, note it.

        Args:
            what: its name.
            do: does it.
            kept_in: the directory of the finished model.
            again: a clause on how to do it later.
        """
        try:
            do()
        except Exception as error:  # noqa: BLE001  # whatever it is, the run is finished
            message = " ".join(str(error).split())
            if not (message and isinstance(error, OSError | ValueError | ImportError)):
                message = f"{type(error).__name__}: {message}"
            where = f"the finished model is in {kept_in}"
            self.note(what, f"{what.replace('_', ' ')}: {message}. Nothing is lost: {where}; {again}")
