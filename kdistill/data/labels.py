"""Read a column of labels into an array: ids, numbers, or an indicator for each label.

A reader is a `LabelReader`. Which one a model needs is for its task to choose, see `tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import blocks_of
from .label_names import LabelMatcher, Where, are_multi_hot, is_indicator
from .label_values import NO_LABEL as NO_LABEL
from .label_values import as_number, is_empty, is_list, is_missing_mark, split_at_commas
from .ragged import Ragged
from .sentences import SentenceTargets
from .spans import SpanTargets

UNTAGGED = -1
"""Among the labels of tokens: the label of a token is not known that would have one. `NO_LABEL`: it takes no part."""

LabelReader = Callable[[Sequence[Any], Mapping[int, str] | None, Where, Sequence[str]], NDArray[Any]]
"""(labels, id2label, where, class_names) -> array with an entry for each row; `label_ids` explains the arguments."""


def label_ids(
    labels: Iterable[Any],
    id2label: Mapping[int, str] | None,
    where: Where,
    class_names: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Read labels given as ids or names.

    Args:
        labels: a whole number, a name, or a missing label (None, NaN, "", NO_LABEL, or a mark such as "-") for each
            row. A whole number may be a float, which is what data frames make of integers when a value is missing (and
            "1.0" is what they write). Where all are true or false, they are the labels of these names, else 0 and 1.
        id2label: the model's label map. Without it only ids are understood and no upper bound is checked.
        where: gives the place of a row, for messages.
        class_names: names that the source has for its ids. An id then means the model's label of that name.

    Returns:
        int64 (rows,), NO_LABEL where a label is missing.

    Raises:
        ValueError: an id outside the label map (GLUE's -1 with its reason) or an unknown name.
        TypeError: anything but a whole number, a string or, in a column of them, a truth value.
    """
    labels = list(labels)
    matcher = LabelMatcher(labels, id2label, class_names)
    return np.array([matcher.id_of(label, row, where) for row, label in enumerate(labels)], dtype=np.int64)


def label_numbers(
    labels: Sequence[Any],
    id2label: Mapping[int, str] | None,
    where: Where,
    class_names: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Read labels that are numbers: one for each entry of `id2label`, or one where there is no label map.

    Returns:
        float32 (rows,), or (rows, outputs) for several outputs; NaN where a label is missing (None, NaN, "", or a mark
        such as "-").

    Raises:
        ValueError: a label is not a finite number, or a row has too many or too few of them.
    """
    outputs = len(id2label or {0: ""})
    values = np.full((len(labels), outputs), np.nan, dtype=np.float32)
    for row, label in enumerate(labels):
        if not is_list(label) and (is_empty(label) or is_missing_mark(label)):
            continue
        numbers = list(map(as_number, label if is_list(label) else [label]))
        if None in numbers:
            raise ValueError(f"{where(row)}: label {label!r} is not a number; expected one for a regression")
        given = np.array(numbers, dtype=np.float32)
        if given.shape != (outputs,) or np.isinf(given).any():
            raise ValueError(f"{where(row)}: label {label!r}; the regression expects {outputs} finite number(s)")
        values[row] = given
    return values[:, 0] if outputs == 1 else values


def label_indicators(
    labels: Sequence[Any],
    id2label: Mapping[int, str] | None,
    where: Where,
    class_names: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Read labels that are lists: the ids or names of all labels of a row, or 0.0 or 1.0 for each label.

    A text is a list, too: `27,4` or `joy,love`, or one label, see `split_at_commas`.

    Whole numbers are ids, unless all rows have one for each label and a row repeats one: then they are 0 or 1 for each.

    Returns:
        float32 (rows, labels), 1 for each label of a row and 0 for the others; NaN where the list is missing.

    Raises:
        ValueError: a list names a label twice or one that the model does not have, or holds other floats; or lists of 0
            and 1 can be read in both ways.
        TypeError: a label is neither a list nor a text.
    """
    id2label = id2label or {}
    names = set(id2label.values())
    labels = [[label] if isinstance(label, str) and label in names else split_at_commas(label) for label in labels]
    values = np.full((len(labels), len(id2label)), np.nan, dtype=np.float32)
    lists = {row: label for row, label in enumerate(labels) if is_list(label)}
    matcher = LabelMatcher(chain.from_iterable(lists.values()), id2label, class_names)
    # Where the source has names for its ids, numbers are ids.
    first = next(iter(lists), 0)
    multi_hot = not class_names and are_multi_hot(list(lists.values()), len(id2label), where(first) if lists else "")
    for row, label in enumerate(labels):
        if row not in lists:
            if matcher.is_missing(label):
                continue
            raise TypeError(
                f"{where(row)}: label {label!r} is not a list; expected the list of a row's labels, such as "
                f"[{label!r}], or [] for none"
            )
        given = list(label)
        if multi_hot or (len(given) == len(id2label) and is_indicator(given)):
            if not set(given) <= {0.0, 1.0}:
                raise ValueError(f"{where(row)}: label {label!r}; expected 0.0 or 1.0 for each label")
            values[row] = given  # what transformers' users write: a number for each label
            continue
        ids = [matcher.id_of(one, row, where) for one in given]
        if NO_LABEL in ids:
            raise ValueError(f"{where(row)}: label {label!r} holds a missing label; expected a row's labels, or None")
        if len(set(ids)) < len(ids):
            raise ValueError(
                f"{where(row)}: label {label!r} names a label twice; expected a row's labels, or 0.0 or 1.0 for each"
            )
        values[row] = 0
        values[row, ids] = 1
    return values


def labelled_rows(labels: NDArray[Any] | Ragged | SpanTargets | SentenceTargets) -> NDArray[np.bool_]:
    """Return which rows have a label, bool (rows,): not NO_LABEL, or no NaN among floats; of tokens any label."""
    if isinstance(labels, Ragged):
        before = np.concatenate(([0], np.cumsum(labels.values >= 0)))
        return np.asarray(np.diff(before[labels.starts]) > 0)
    if isinstance(labels, SpanTargets | SentenceTargets):
        return labels.labelled()
    if labels.dtype.kind != "f":
        return np.asarray(labels != NO_LABEL if labels.ndim == 1 else (labels != NO_LABEL).all(axis=1))
    return np.asarray(~np.isnan(labels).any(axis=tuple(range(1, labels.ndim))))


def label_counts(labels: NDArray[np.integer[Any]], num_labels: int = 0) -> NDArray[np.int64]:
    """Return how often each label occurs, int64 (num_labels,), or longer where there are others; missing ones do not.

    Args:
        labels: ids, those below 0 missing.
        num_labels: of the model.
    """
    most = max((int(labels[block].max()) for block in blocks_of(len(labels))), default=-1)
    counts = np.zeros(max(num_labels, most + 1), np.int64)
    for block in blocks_of(len(labels)):
        some = labels[block]
        counts += np.bincount(some[some >= 0], minlength=len(counts))
    return counts


def missing_like(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels of the same shape and dtype, all missing (NO_LABEL or NaN)."""
    return np.full_like(labels, np.nan if labels.dtype.kind == "f" else NO_LABEL)
