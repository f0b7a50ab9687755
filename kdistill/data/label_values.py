"""Read one label as a source holds it: missing, a list, a whole number, a number, or true or false."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _core

NO_LABEL: int = _core.NO_LABEL
"""Label id of a row without a label, -100; transformers and PyTorch ignore the same number."""
MISSING_MARKS = frozenset(("-", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "None"))
"""Texts that stand for a missing label unless the model has a label of that name: SNLI's, and those of data frames."""

# int() and float() also take 1_0, 007, inf and the digits of other scripts, which their authors mean as names. Data
# frames write 1.0 for a whole number beside a missing one, and a comma may be followed by a space. More digits than
# these name something.
_WHOLE_NUMBER = re.compile(r" *(0|-?[1-9][0-9]{0,17})(?:\.0{1,18})? *")
_NUMBER = re.compile(r" *[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
_BOOLEANS = {"true": True, "false": False}


def is_missing(label: Any) -> bool:
    """Return whether a row's label is missing: None, NaN, an empty text or NO_LABEL."""
    return is_empty(label) or (not isinstance(label, (bool, np.bool_)) and as_integer(label) == NO_LABEL)


def is_empty(label: Any) -> bool:
    """Return whether a row holds nothing: None, NaN or an empty text."""
    if isinstance(label, (float, np.floating)):
        return math.isnan(label)
    return label is None or (isinstance(label, str) and not label.strip(" "))


def is_missing_mark(label: Any) -> bool:
    """Return whether a label is a text that stands for a missing one, see `MISSING_MARKS`."""
    return isinstance(label, str) and label.strip(" ") in MISSING_MARKS


def is_list(label: Any) -> bool:
    """Return whether a row's label is a list of labels or numbers."""
    return isinstance(label, (list, tuple, np.ndarray))


def split_at_commas(label: Any) -> Any:
    """Return the list of labels that a text spells with commas between them, as `27,4` or `joy,"a, b"`.

    What is empty, or no text, is returned as it is. Quotes keep the commas of a name, as in what `predict` writes.
    """
    if not isinstance(label, str) or is_missing(label) or is_missing_mark(label):
        return label
    try:
        (fields,) = csv.reader([label], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):  # a quote that is part of a name, or line ends
        fields = label.split(",")
    return [field.strip(" ") for field in fields]


def as_integer(label: Any) -> int | None:
    """Return the whole number that a label is, or None.

    A text is one when it is written in the digits 0 to 9 without a leading zero, perhaps with a minus sign before it,
    `.0` behind it and spaces around it.
    """
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, str):
        written = _WHOLE_NUMBER.fullmatch(label)
        return None if written is None else int(written[1])
    if isinstance(label, (float, np.floating)) and math.isfinite(label) and float(label).is_integer():
        return int(label)
    return None


def are_numbered(labels: Iterable[Any]) -> bool:
    """Return whether labels are whole numbers, apart from those that are missing; False without any."""
    different = {label for label in labels if not is_list(label)}
    given = [label for label in different if not is_missing(label)]
    return bool(given) and all(as_integer(label) is not None for label in given)


def as_number(label: Any) -> float | None:
    """Return the number that a label is, or None. A text is one when it is written as in JSON or C, such as -1.5e-3."""
    if isinstance(label, str):
        return float(label) if _NUMBER.fullmatch(label) else None
    return float(label) if isinstance(label, (int, float, np.integer, np.floating, np.bool_)) else None


def as_boolean(label: Any) -> bool | None:
    """Return the truth value that a label is, or that its text names in any case, or None."""
    if isinstance(label, (bool, np.bool_)):
        return bool(label)
    return _BOOLEANS.get(label.strip(" ").lower()) if isinstance(label, str) else None
