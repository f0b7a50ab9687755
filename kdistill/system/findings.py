"""`Finding`: one result of looking at a run before or while it happens, for a report or for a warning."""

from __future__ import annotations

from typing import NamedTuple

LEVELS = ("error", "warning", "note", "ok")
"""From what makes a run fail or mislead to what is as it should be."""


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        check: the name of the check.
        level: one of `LEVELS`. "error": the run fails, or its figures mislead; "warning": it gives less than it could;
            "note": good to know.
        text: what was found, a clause without a full stop.
        remedy: what to do about it; empty where there is nothing to do.
    """

    check: str
    level: str
    text: str
    remedy: str = ""

    @classmethod
    def of_message(cls, check: str, level: str, message: str, remedy: str = "") -> Finding:
        """Return the finding that an error or a warning is; its remedy follows its first semicolon.

        Args:
            check: the name of the check.
            level: one of `LEVELS`.
            message: what was raised or warned of.
            remedy: what to do where the message names nothing.
        """
        text, _, found = " ".join(message.split()).partition("; ")
        return cls(check, level, text, found or remedy)

    def sentence(self) -> str:
        """Return the finding as the message of a warning."""
        return f"{self.text}; {self.remedy}" if self.remedy else self.text
