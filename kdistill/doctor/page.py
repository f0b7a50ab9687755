"""Findings as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

WIDTH = 100


def page(figures: Mapping[str, Any], width: int = WIDTH) -> str:
    """Return the findings, each with its level, check, text and remedy, and a line that sums them up.

    A word that is longer than a line, such as a list of names to copy, stays whole.

    Args:
        figures: as `Examination.figures` returns them.
        width: characters of a line.
    """
    findings = figures["findings"]
    margin = max((len(finding["check"]) for finding in findings), default=0) + 11
    lines = [line for finding in findings for line in _lines(finding, margin, width)]
    return "\n".join([*lines, "", _sum(figures)]) + "\n"


def _lines(finding: Mapping[str, str], margin: int, width: int) -> Iterator[str]:
    begin = f"{finding['level']:9}{finding['check']}"
    yield from _wrapped(finding["text"], f"{begin:{margin}}", " " * margin, width)
    if finding["remedy"]:
        yield from _wrapped(finding["remedy"], f"{'':{margin}}-> ", " " * (margin + 3), width)


def _wrapped(text: str, first: str, other: str, width: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(figures: Mapping[str, Any]) -> str:
    errors, warned = figures["errors"], figures["warnings"]
    counts = f"{errors} error{'s' * (errors != 1)}, {warned} warning{'s' * (warned != 1)}"
    verdict = "the run would fail or mislead" if errors else "nothing stands against the run"
    return f"{counts}: {verdict} (checked in {figures['seconds']:.1f} s, nothing was written)"
