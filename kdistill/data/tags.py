"""Read the tags of words, and the tags that a data set has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..system.names import listing
from .label_names import LabelMatcher, Where
from .label_values import NO_LABEL, as_integer, is_empty, is_list
from .labels import UNTAGGED
from .ragged import Ragged, starts_of
from .table import Table

OUTSIDE = "O"
_NO_FRACTIONS = "a tag is a name, or the whole number of one"


def tag_ids(
    labels: Sequence[Any], id2label: Mapping[int, str] | None, where: Where, class_names: Sequence[str] = ()
) -> Any:
    """Read tags given as ids or names, a list for each row. A `LabelReader`.

    Args:
        labels: a list of tags for each row, None for a row without them. A tag is a whole number, a name, NO_LABEL for
            a token that takes no part, or None where it is not known.
        id2label: the model's tags.
        where: gives the place of a row, for messages.
        class_names: names that the source has for its ids.

    Returns:
        `Ragged` of int64 (tags,), UNTAGGED where a tag is not known; a row without tags is empty.

    Raises:
        ValueError: an id or name that the model does not have, or a fraction.
        TypeError: a row's tags are no list, or a tag is neither a whole number nor a name.
    """
    lists = lists_of_tags(labels, where)
    matcher = LabelMatcher([tag for tags in lists for tag in tags], id2label, class_names, fractions=_NO_FRACTIONS)
    ids = [_id_of(tag, row, where, matcher) for row, tags in enumerate(lists) for tag in tags]
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    return Ragged(np.array(ids, dtype=np.int64), starts_of(lengths))


def lists_of_tags(labels: Sequence[Any], where: Where) -> list[Sequence[Any]]:
    """Return the tags of each row, empty for one without. Raises TypeError for a row whose tags are no list."""
    lists = [[] if is_empty_row(row) else row for row in labels]
    for row, tags in enumerate(lists):
        if not is_list(tags):
            raise TypeError(
                f"{where(row)}: label {tags!r} is a {type(tags).__name__}; expected a list with a tag for each token, "
                "for the model answers for tokens (one label for a whole text is what a sequence classifier learns)"
            )
    return lists


def is_empty_row(tags: Any) -> bool:
    """Return whether a row has no tags: None, NaN or an empty text."""
    return not is_list(tags) and is_empty(tags)


def _id_of(tag: Any, row: int, where: Where, matcher: LabelMatcher) -> int:
    if not isinstance(tag, str) and as_integer(tag) == NO_LABEL:
        return NO_LABEL
    found = matcher.id_of(tag, row, where)
    return UNTAGGED if found == NO_LABEL else found


def implied_tags(lists: Iterable[Any], table: Table) -> dict[int, str]:
    """Return the tags that training rows have, `O` first and the others sorted, as a label map.

    Whole numbers give LABEL_0, LABEL_1, ... up to the largest.

    Raises:
        ValueError: no row has a tag, all have the same, or one is a number below 0.
        TypeError: a tag is a list or a dict.
    """
    given: set[Any] = set()
    for row, tags in enumerate(lists):
        for tag in tags if is_list(tags) else ():
            if isinstance(tag, list | tuple | dict | np.ndarray):
                raise TypeError(
                    f"{table.where(row)}: the tag {tag!r} is a {type(tag).__name__}; expected name or number"
                )
            if not is_empty(tag):
                given.add(tag)
    numbers = {as_integer(tag) for tag in given} - {NO_LABEL}
    if not given or not numbers:
        raise ValueError(f"{table.source} has no tags; its columns are {listing(table.columns)}")
    lowest = min((number for number in numbers if number is not None), default=0)
    if None not in numbers and lowest < 0:
        raise ValueError(
            f"{table.source} has the tag {lowest}; expected names, whole numbers from 0 on, or {NO_LABEL} for a token "
            "that takes no part"
        )
    if None not in numbers:
        return {index: f"LABEL_{index}" for index in range(max(filter(None, numbers), default=0) + 1)}
    names = sorted(map(str, given), key=lambda name: (name != OUTSIDE, name))
    if len(names) == 1:
        raise ValueError(f"every tag of {table.source} is {names[0]!r}; expected two different tags or more")
    return dict(enumerate(names))
