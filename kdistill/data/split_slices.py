"""Understand the slices of `datasets`: `train[:10%]`, `train[100:200]+test[-5:]`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

ROUNDINGS = ("closest", "pct1_dropremainder")
_SLICE = re.compile(
    r"(?P<split>[\w.\-]+)"
    r"(?:\[(?P<first>-?\d+)?(?P<first_percent>%)?:(?P<stop>-?\d+)?(?P<stop_percent>%)?\])?"
    r"(?:\((?P<rounding>\w*)\))?",
    re.ASCII,
)


@dataclass(frozen=True)
class SplitSlice:
    """Some rows of a split.

    Attributes:
        split: the split's name.
        first, stop: the rows from the first up to, not including, `stop`, as in a slice of a list; None is the end.
        percent: whether these are percentages of the rows.
        rounding: of percentages: to the closest row, or "pct1_dropremainder", where one percent has the same number of
            rows everywhere.
    """

    split: str
    first: int | None = None
    stop: int | None = None
    percent: bool = False
    rounding: str = ROUNDINGS[0]

    def rows(self, count: int) -> range:
        """Return the rows of a split of `count` rows. Raises ValueError for "pct1_dropremainder" of less than 100."""
        first, stop = (self._absolute(place, count) for place in (self.first, self.stop))
        return range(count)[first:stop]

    def _absolute(self, place: int | None, count: int) -> int | None:
        if place is None or not self.percent:
            return place
        if self.rounding == "closest":
            return round(place * count / 100)
        if count < 100:
            raise ValueError(
                f"{self.split} has {count} rows; expected 100 or more for pct1_dropremainder, or closest rounding"
            )
        return place * math.trunc(count / 100)


def parse_split(spec: str) -> list[SplitSlice]:
    """Return the slices that a text such as `train[:10%]+validation` names, whose rows follow each other.

    Raises:
        ValueError: it is not written so.
    """
    slices = []
    for part in re.split(r"\s*\+\s*", spec):
        match = _SLICE.fullmatch(part)
        percent = match is not None and bool(match["first_percent"] or match["stop_percent"])
        first, stop = (int(match[name]) if match and match[name] else None for name in ("first", "stop"))
        rounding = (match and match["rounding"]) or ROUNDINGS[0]
        too_far = percent and any(place is not None and abs(place) > 100 for place in (first, stop))
        if match is None or too_far or rounding not in ROUNDINGS:
            raise ValueError(
                f"split is {spec!r}; expected a name or a slice such as 'train[:10%]' or 'train[100:200]+test'"
            )
        slices.append(SplitSlice(match["split"], first, stop, percent, rounding))
    return slices
