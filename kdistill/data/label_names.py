"""Match the labels of a column with those of a model, and name the labels of a model that has none yet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..system.names import listing
from .label_values import (
    NO_LABEL,
    as_boolean,
    as_integer,
    as_number,
    is_list,
    is_missing,
    is_missing_mark,
    split_at_commas,
)
from .table import Table

Where = Callable[[int], str]
"""Gives the place of a row of the source, for messages."""

HOW_TO_LEARN_NUMBERS = (
    'to learn numbers, load the model with num_labels=1, problem_type="regression" (--problem-type regression)'
)
HOW_TO_LEARN_SEVERAL = (
    "to learn several labels a row, give --problem-type multi_label_classification (in Python problem_type= of the "
    "model)"
)
HOW_TO_HAVE_LABELS = (
    "a model that is only measured needs rows with its own labels. One that is trained needs the names of all labels "
    "of its rows, those to measure on too: in Python id2label= of from_pretrained, in finetune --label-names, and in "
    "place of names that it has ignore_mismatched_sizes=True (--ignore-mismatched-sizes). In distill, --label-names "
    "are the teacher's labels as the rows call them, and --ignore-mismatched-sizes gives them to a student that has "
    "others"
)
# Whole numbers are ids while there are at most so many places from 0 to the largest for each one that occurs.
PLACES_FOR_EACH_ID = 4
_MOST_SHOWN = 20
_LARGEST_ID = int(np.iinfo(np.int64).max)


class LabelMatcher:
    """Gives the model's id of each label of a column. The whole column decides how its numbers are read.

    Args:
        labels: all labels of the column; those of rows with lists one after another.
        id2label: the model's label map. Without it only ids are understood and no upper bound is checked.
        class_names: names that the source has for its ids, which are then matched by name.
        fractions: what to do about a label that is a number and no whole one, to end a message.

    Raises:
        ValueError: no class of the source has the name of one of the model's, and there are not as many of them.
    """

    def __init__(
        self,
        labels: Iterable[Any],
        id2label: Mapping[int, str] | None,
        class_names: Sequence[str],
        fractions: str = HOW_TO_LEARN_NUMBERS,
    ) -> None:
        self._id2label, self._fractions = id2label, fractions
        self._by_name = {name: index for index, name in (id2label or {}).items()}
        self._by_class = ids_by_class(class_names, id2label or {})
        self._class_names = class_names
        given = {(type(label), label): label for label in labels if _is_hashable(label)}.values()
        present = [label for label in given if not self.is_missing(label)]
        self._booleans = bool(present) and all(as_boolean(label) is not None for label in present)
        self._by_number = {} if class_names else self._numbers_that_are_names(present)
        self._known: dict[tuple[type, Any], int] = {}

    def is_missing(self, label: Any) -> bool:
        """Return whether a label is missing; a mark such as `-` is, unless the model has a label of that name."""
        return is_missing(label) or (is_missing_mark(label) and label not in self._by_name)

    def id_of(self, label: Any, row: int, where: Where) -> int:
        """Return the model's id of a label, NO_LABEL for a missing one.

        Raises:
            ValueError: an id outside the label map (GLUE's -1 with its reason) or an unknown name.
            TypeError: anything but a whole number, a string or, in a column of them, a truth value.
        """
        key = type(label), label
        if not _is_hashable(label):
            self._refuse_type(label, row, where)
        if key not in self._known:
            self._known[key] = NO_LABEL if self.is_missing(label) else self._match(label, row, where)
        return self._known[key]

    def _match(self, label: Any, row: int, where: Where) -> int:
        is_boolean = isinstance(label, (bool, np.bool_))
        if not isinstance(label, (int, np.integer, float, np.floating, str, np.bool_)) or (
            is_boolean and not self._booleans
        ):
            self._refuse_type(label, row, where)
        number = self._of_boolean(label) if self._booleans else as_integer(label)
        if isinstance(label, str) and label in self._by_name and (number is None or self._booleans):
            return self._by_name[label]
        if number is None:
            found = None
        elif self._by_class:
            found = self._by_class.get(number)
            if found is None and 0 <= number < len(self._class_names):
                name = self._class_names[number]
                raise ValueError(f"{where(row)}: label {number} is {name!r}, {self._not_one_of_the_models()}")
        else:
            found = self._by_number.get(number, number)
        if (
            found is None
            or not 0 <= found <= _LARGEST_ID
            or (self._id2label is not None and found not in self._id2label)
        ):
            raise ValueError(f"{where(row)}: {self._why_no_label(label, number)}")
        return found

    def _is_known(self, label: Any) -> bool:
        return label in self._by_name or as_integer(label) in (self._id2label or {})

    def _of_boolean(self, label: Any) -> int | None:
        """Return the id of false or true: that of the label of this name, else 0 or 1 where there are two labels."""
        truth = as_boolean(label)
        named = {name.lower(): index for name, index in self._by_name.items()}.get(str(truth).lower())
        if named is not None:
            return named
        return int(bool(truth)) if self._id2label is None or len(self._id2label) == 2 else None

    def _numbers_that_are_names(self, present: Sequence[Any]) -> dict[int, int]:
        """Return number -> id when the model's labels are called by numbers and the column holds these names."""
        numeric = {as_integer(name): index for name, index in self._by_name.items()}
        names = {number: index for number, index in numeric.items() if number is not None}
        numbers = {number for number in map(as_integer, present) if number is not None}
        if not numbers or not numbers <= names.keys() or all(names[number] == number for number in numbers):
            return {}
        if numbers <= (self._id2label or {}).keys() and all(as_integer(label) is not None for label in present):
            warnings.warn(
                f"the labels {listing(map(str, sorted(numbers)[:_MOST_SHOWN]))} are names of the model's labels and "
                "also ids of its other labels; they are read as names",
                stacklevel=5,
            )
        return names

    def _refuse_type(self, label: Any, row: int, where: Where) -> None:
        raise TypeError(
            f"{where(row)}: label {label!r} is a {type(label).__name__}; expected an integer id or a label's name"
        )

    def _why_no_label(self, label: Any, number: int | None) -> str:
        if number == -1 and not self._booleans:
            return (
                "label -1 is how GLUE marks rows whose label is withheld (its test sets); leave the label empty, or "
                "the column out (remove_columns), to use such rows without a label"
            )
        if self._id2label is None:
            return f"label {label!r} is not an id of 0 or more; give id2label= when labels are names"
        parts = split_at_commas(label)
        if is_list(parts) and len(parts) > 1 and all(self._is_known(part) for part in parts):
            return f"label {label!r} is several of the model's labels; {HOW_TO_LEARN_SEVERAL}"
        if number is None and as_number(label) is not None:
            return f"label {label!r} is {self._not_one_of_the_models(self._fractions)}"
        return f"label {label!r} is {self._not_one_of_the_models()}"

    def _not_one_of_the_models(self, remedy: str = HOW_TO_HAVE_LABELS) -> str:
        names = [f"{index} ({name})" for index, name in sorted((self._id2label or {}).items())]
        return f"not one of the model's labels: {listing(names, _MOST_SHOWN)}; {remedy}"


def ids_by_class(class_names: Sequence[str], id2label: Mapping[int, str]) -> dict[int, int]:
    """Return source's id -> model's id for the classes that both name, in any case; nothing to match by number.

    Numbers count where one side has no names but `0, 1, ...` or `LABEL_0, LABEL_1, ...`, or where no name is on both
    sides and there are as many, which `warn_of_other_names` reports.

    Raises:
        ValueError: no name is on both sides and their numbers differ.
    """
    ids = {name.lower(): index for index, name in id2label.items()}
    if not class_names or not ids or _names_nothing(dict(enumerate(class_names))) or _names_nothing(id2label):
        return {}
    matched = {index: ids[name.lower()] for index, name in enumerate(class_names) if name.lower() in ids}
    if len(ids) < len(id2label) or len(set(matched.values())) < len(matched):  # names that differ in case alone
        exact = {name: index for index, name in id2label.items()}
        matched = {index: exact[name] for index, name in enumerate(class_names) if name in exact}
    if not matched and len(class_names) != len(id2label):
        raise ValueError(
            f"the data has {len(class_names)} classes ({listing(class_names, _MOST_SHOWN)}) and the model "
            f"{len(id2label)} others ({listing(id2label.values(), _MOST_SHOWN)}); expected the same names, or the "
            f"same number; {HOW_TO_HAVE_LABELS}"
        )
    return matched


def warn_of_other_names(source: str, class_names: Sequence[str], id2label: Mapping[int, str]) -> None:
    """Warn when a source's classes are matched by number although both sides name them."""
    unnamed = _names_nothing(dict(enumerate(class_names))) or _names_nothing(id2label)
    if class_names and id2label and not unnamed and not ids_by_class(class_names, id2label):
        warnings.warn(
            f"{source} calls its labels {listing(class_names, _MOST_SHOWN)}, the model "
            f"{listing(id2label.values(), _MOST_SHOWN)}: no name matches, so the labels are matched by position",
            stacklevel=3,
        )


def warn_of_missing_marks(source: str, labels: Sequence[Any], names: Iterable[str], what: str = "rows") -> None:
    """Warn of labels, of `what`, that are read as missing because of a mark such as `-`, see `MISSING_MARKS`."""
    known = set(names)
    marks = [label.strip(" ") for label in labels if is_missing_mark(label) and label not in known]
    if marks:
        warnings.warn(
            f"{len(marks)} of {len(labels)} {what} of {source} have the label "
            f"{listing(map(repr, sorted(set(marks))))}, which is read as a missing label; to use it as a label, add it "
            "to the model's labels (--label-names, in Python id2label=)",
            stacklevel=3,
        )


def implied_label_map(labels: Sequence[Any], table: Table, num_labels: int = 0) -> dict[int, str]:
    """Return the label map that a column of labels implies, for a model that has none yet.

    Ids give LABEL_0, LABEL_1, ... up to the largest. Whole numbers are ids while at least a quarter of the places from
    0 to the largest occur; others, such as 10115, 80331 and 99999, are names, numbered in the order of the numbers.
    Lists with 0 or 1 for each label give as many labels as they are long. Names are numbered in sorted order.

    Args:
        labels: the column.
        table: where it came from.
        num_labels: the number of the model's labels, if that is known: whole numbers below it are ids.

    Raises:
        ValueError: no row has a label, all have the same name, the labels are fractions, which name nothing, or lists
            of 0 and 1 can be read in two ways.
    """
    lists = [label for label in labels if is_list(label)]
    width = max((len(label) for label in lists if is_indicator(label)), default=0)
    if not width and lists and are_multi_hot(lists, len(lists[0]), table.source):
        width = len(lists[0])
    if width:
        return default_label_map(width)
    flat = list(chain.from_iterable(label if is_list(label) else [label] for label in labels))
    given = [label for label in flat if not is_missing(label) and not is_missing_mark(label)]
    if not given:
        raise ValueError(
            f"{table.source} has no labels; its columns are {listing(table.columns)}. "
            "Name theirs with --label-column, in Python rename the column"
        )
    if all(as_boolean(label) is not None for label in given):
        return {0: "False", 1: "True"}
    numbers = {as_integer(label) for label in given}
    if None not in numbers:
        whole = sorted(number for number in numbers if number is not None)
        return _of_whole_numbers(whole, table, num_labels, many=bool(lists))
    values = [as_number(label) for label in given]
    if None not in values and any(not value.is_integer() for value in values if value is not None):
        fraction = next(label for label in given if as_integer(label) is None)
        raise ValueError(f"{table.source} has numbers such as {fraction} for labels; {HOW_TO_LEARN_NUMBERS}")
    names = sorted({_name(label) for label in given})
    if len(names) == 1 and not lists:
        _refuse_one_name(names[0], table)
    joined = [name for name in names if "," in name and set(split_at_commas(name)) <= set(names)]
    if joined:
        warnings.warn(
            f"{table.source} has labels such as {joined[0]!r} beside {split_at_commas(joined[0])[0]!r}, and each is a "
            f"label of its own; {HOW_TO_LEARN_SEVERAL}",
            stacklevel=3,
        )
    return dict(enumerate(names))


def _of_whole_numbers(numbers: Sequence[int], table: Table, num_labels: int, *, many: bool) -> dict[int, str]:
    """Return the label map of whole numbers in rising order: ids, or names when they lie too far apart."""
    lowest, largest = numbers[0], numbers[-1]
    if lowest == -1:
        raise ValueError(
            f"{table.source}: label -1 marks rows without a label in GLUE (its test sets); leave their label empty, or "
            "name the labels if -1 is one of them (--label-names=-1,0,1, in Python id2label=)"
        )
    if lowest >= 0 and largest < max(PLACES_FOR_EACH_ID * len(numbers), num_labels):
        return default_label_map(largest + 1)
    if len(numbers) == 1 and not many:
        _refuse_one_name(str(lowest), table)
    warnings.warn(
        f"{table.source} has {len(numbers)} different labels from {lowest} to {largest}: each number is the name of a "
        "label; if they are ids, give the number of labels with --num-labels (in Python num_labels=)",
        stacklevel=3,
    )
    return {index: str(number) for index, number in enumerate(numbers)}


def is_indicator(label: Any) -> bool:
    """Return whether a row's label is a list of floats, as transformers' users write them: 0.0 or 1.0 for each."""
    return is_list(label) and len(label) > 0 and all(isinstance(value, (float, np.floating)) for value in label)


def are_multi_hot(lists: Sequence[Any], labels: int, source: str) -> bool:
    """Return whether lists are rows of whole numbers 0 and 1 (or truth values), one for each label, instead of ids.

    They are when all have one entry for each label and they cannot be ids, as one repeats a number.

    Args:
        lists: all lists of a column.
        labels: how many labels there are.
        source: the place of the first list, for the message.

    Raises:
        ValueError: they can be both, as [0, 1] and [1, 0] of two labels.
    """
    if not lists or not all(len(label) == labels for label in lists):
        return False
    if all(isinstance(value, (bool, np.bool_)) for label in lists for value in label):
        return labels > 0
    if not all(not isinstance(value, str) and as_integer(value) in (0, 1) for label in lists for value in label):
        return False
    can_be_ids = all(len(set(label)) == labels > max(label) for label in map(list, lists))
    if not can_be_ids or all(map(is_indicator, lists)):
        return True
    raise ValueError(
        f"{source}: label {list(lists[0])!r}: the lists of all rows can be ids, with every label in every row, or 0 or "
        "1 for each label; expected names, or 0.0 and 1.0 for each label"
    )


def _name(label: Any) -> str:
    """Return the name that a label of a column of names stands for."""
    number = None if isinstance(label, str) else as_integer(label)
    return str(label) if number is None else str(number)


def _refuse_one_name(name: str, table: Table) -> None:
    raise ValueError(
        f"every label of {table.source} is {name!r}; expected two different labels or more, or their names with "
        "--label-names (in Python id2label=)"
    )


def default_label_map(count: int) -> dict[int, str]:
    """Return the label map of a model whose labels have no names: LABEL_0, LABEL_1, ..., as in transformers."""
    return {index: f"LABEL_{index}" for index in range(count)}


def is_unnamed(id2label: Mapping[int, str]) -> bool:
    """Return whether the labels have no names but the defaults LABEL_0, LABEL_1, ..."""
    return id2label == default_label_map(len(id2label))


def _names_nothing(names: Mapping[int, str]) -> bool:
    """Return whether labels are called by their number: `0, 1, ...` or `LABEL_0, LABEL_1, ...`."""
    return all(name in (str(index), f"LABEL_{index}") for index, name in names.items())


def _is_hashable(label: Any) -> bool:
    return not is_list(label) and not isinstance(label, (dict, set, bytearray))
