"""A request that is answered with an error."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):  # noqa: N818  # as HTTP sees it, this is an answer
    """An answer other than 200, with one sentence.

    Args:
        status: of HTTP.
        sentence: what is wrong, what was expected, and what to do.
        headers: that the answer gets besides, such as Retry-After.
    """

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or {}


def shown(value: Any, most: int = 40) -> str:
    """Return a value of a request as JSON spells it, cut to so many characters."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= most else f"{text[:most]}..."
