"""Read a column of labels into an array: ids, numbers, or an indicator for each label.

A reader is a `LabelReader`. Which one a model needs is for its task to choose, see `tasks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .table import Table, listing

NO_LABEL: int = _core.NO_LABEL
"""Label id of a row without a label, -100; transformers and PyTorch ignore the same number."""

Where = Callable[[int], str]
"""Gives the place of a row of the source, for messages."""
LabelReader = Callable[[Sequence[Any], Mapping[int, str] | None, Where, Sequence[str]], NDArray[Any]]
"""(labels, id2label, where, class_names) -> array with an entry for each row; `label_ids` explains the arguments."""

_HOW_TO_LEARN_NUMBERS = (
    'to learn numbers, load the model with num_labels=1, problem_type="regression" (--problem-type regression)'
)


def label_ids(
    labels: Iterable[Any],
    id2label: Mapping[int, str] | None,
    where: Where,
    class_names: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Read labels given as ids or names.

    Args:
        labels: a whole number, a name, or a missing label (None, NaN, "" or NO_LABEL) for each row. A whole number may
            be a float, which is what data frames make of integers when a value is missing (and "1.0" is what they
            write).
        id2label: the model's label map. Without it only ids are understood and no upper bound is checked.
        where: gives the place of a row, for messages.
        class_names: names that the source has for its ids. When the model has the same names in another order, an id
            means the model's label of that name.

    Returns:
        int64 (rows,), NO_LABEL where a label is missing.

    Raises:
        ValueError: an id outside the label map (GLUE's -1 with its reason) or an unknown name.
        TypeError: anything but a whole number or a string.
    """
    name_ids = {name: index for index, name in (id2label or {}).items()}
    translated = _translation(class_names, id2label or {})
    ids = []
    for row, label in enumerate(labels):
        if is_missing(label):
            ids.append(NO_LABEL)
            continue
        if isinstance(label, bool) or not isinstance(label, (int, np.integer, float, np.floating, str)):
            raise TypeError(
                f"{where(row)}: label {label!r} is a {type(label).__name__}; expected an integer id or a label's name"
            )
        named = name_ids.get(label) if isinstance(label, str) else None
        label_id = as_integer(label) if named is None else named
        label_id = translated.get(label_id, label_id) if label_id is not None else None
        if label_id is None or label_id < 0 or (id2label is not None and label_id not in id2label):
            raise ValueError(f"{where(row)}: {_why_no_label(label, label_id, id2label)}")
        ids.append(label_id)
    return np.array(ids, dtype=np.int64)


def label_numbers(
    labels: Sequence[Any],
    id2label: Mapping[int, str] | None,
    where: Where,
    class_names: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Read labels that are numbers: one for each entry of `id2label`, or one where there is no label map.

    Returns:
        float32 (rows,), or (rows, outputs) for several outputs; NaN where a label is missing (None, NaN or "").

    Raises:
        ValueError: a label is not a finite number, or a row has too many or too few of them.
    """
    outputs = len(id2label or {0: ""})
    values = np.full((len(labels), outputs), np.nan, dtype=np.float32)
    for row, label in enumerate(labels):
        if not is_list(label) and (label is None or label == ""):
            continue
        try:
            given = np.atleast_1d(np.asarray(label, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where(row)}: label {label!r} is not a number; expected one for a regression") from error
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

    Returns:
        float32 (rows, labels), 1 for each label of a row and 0 for the others; NaN where the list is missing.

    Raises:
        ValueError: a list names a label twice or one that the model does not have, or holds other floats.
        TypeError: a label is not a list.
    """
    id2label = id2label or {}
    values = np.full((len(labels), len(id2label)), np.nan, dtype=np.float32)
    for row, label in enumerate(labels):
        several = is_list(label)
        if not several and is_missing(label):
            continue
        if not several:
            raise TypeError(
                f"{where(row)}: label {label!r} is not a list; expected the list of a row's labels, such as "
                f"[{label!r}], or [] for none"
            )
        given = list(label)
        if len(given) == len(id2label) and _is_indicator(given):
            if not set(given) <= {0.0, 1.0}:
                raise ValueError(f"{where(row)}: label {label!r}; expected 0.0 or 1.0 for each label")
            values[row] = given  # what transformers' users write: a number for each label
            continue
        if len(set(given)) < len(given):
            raise ValueError(
                f"{where(row)}: label {label!r} names a label twice; expected a row's labels, or 0.0 or 1.0 for each"
            )
        values[row] = 0
        values[row, label_ids(given, id2label, lambda _, row=row: where(row), class_names)] = 1  # type: ignore[misc]
    return values


def labelled_rows(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of an array of labels have one, bool (rows,): not NO_LABEL, or no NaN among floats."""
    if labels.dtype.kind != "f":
        return np.asarray(labels != NO_LABEL)
    return np.asarray(~np.isnan(labels).any(axis=tuple(range(1, labels.ndim))))


def missing_like(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels of the same shape and dtype, all missing (NO_LABEL or NaN)."""
    return np.full_like(labels, np.nan if labels.dtype.kind == "f" else NO_LABEL)


def implied_label_map(labels: Sequence[Any], table: Table) -> dict[int, str]:
    """Return the label map that a column of labels implies, for a model that has none yet.

    Ids give LABEL_0, LABEL_1, ... up to the largest. Lists of 0.0 and 1.0 give as many as they are long. Names are
    numbered in sorted order.

    Raises:
        ValueError: no row has a label, or the labels are fractions, which name nothing.
    """
    width = max((len(label) for label in labels if _is_indicator(label)), default=0)
    if width:
        return {index: f"LABEL_{index}" for index in range(width)}
    flat = list(chain.from_iterable(x if isinstance(x, list) else [x] for x in labels))
    values = {str(label) for label in flat if not is_missing(label)}
    if not values:
        raise ValueError(
            f"{table.source} has no labels; its columns are {listing(table.columns)}. "
            "Name theirs with --label-column, in Python rename the column"
        )
    if all(as_integer(value) is not None for value in values):
        return {index: f"LABEL_{index}" for index in range(int(label_ids(flat, None, table.where).max()) + 1)}
    if all(map(_is_number, values)):
        fraction = next(label for label in flat if not is_missing(label) and as_integer(label) is None)
        raise ValueError(f"{table.source} has numbers such as {fraction} for labels; {_HOW_TO_LEARN_NUMBERS}")
    return dict(enumerate(sorted(values)))


def is_missing(label: Any) -> bool:
    """Return whether a row's label is missing: None, NaN, "" or NO_LABEL."""
    if isinstance(label, (float, np.floating)):
        return math.isnan(label)
    return label is None or label == "" or (not isinstance(label, bool) and label == NO_LABEL)


def is_list(label: Any) -> bool:
    """Return whether a row's label is a list of labels or numbers."""
    return isinstance(label, (list, tuple, np.ndarray))


def as_integer(label: Any) -> int | None:
    """Return the whole number that a label is or spells, or None."""
    if isinstance(label, (int, np.integer)):
        return int(label)
    try:
        number = float(label)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _is_number(label: Any) -> bool:
    try:
        return math.isfinite(float(label))
    except (TypeError, ValueError):
        return False


def _is_indicator(label: Any) -> bool:
    """Return whether a row's label is a list of floats, as transformers' users write them: 0.0 or 1.0 for each."""
    return is_list(label) and len(label) > 0 and all(isinstance(value, (float, np.floating)) for value in label)


def _translation(class_names: Sequence[str], id2label: Mapping[int, str]) -> dict[int, int]:
    """Return source's id -> model's id when both have the same names (in any case), else nothing."""
    ids = {name.lower(): index for index, name in id2label.items()}
    if len(ids) < len(id2label) or {name.lower() for name in class_names} != ids.keys():
        return {}
    return {index: ids[name.lower()] for index, name in enumerate(class_names)}


def _why_no_label(label: Any, label_id: int | None, id2label: Mapping[int, str] | None) -> str:
    if label_id == -1:
        return (
            "label -1 is how GLUE marks rows whose label is withheld (its test sets); leave the label empty, or the "
            "column out (remove_columns), to use such rows without a label"
        )
    if id2label is None:
        return f"label {label!r} is not an id of 0 or more; give id2label= when labels are names"
    known = ", ".join(f"{index} ({name})" for index, name in sorted(id2label.items()))
    if label_id is None and _is_number(label):
        return f"label {label!r} is not one of the model's labels: {known}; {_HOW_TO_LEARN_NUMBERS}"
    return (
        f"label {label!r} is not one of the model's labels: {known}; to train on other labels, load the model with "
        "ignore_mismatched_sizes=True (--ignore-mismatched-sizes)"
    )
