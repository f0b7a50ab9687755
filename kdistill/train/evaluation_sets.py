"""Evaluation rows: one set, or several by name as in transformers, whose metrics are then called eval_<name>_..."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..data.dataset import Dataset
from ..data.teacher_rows import TaughtRows

EvalRows = Dataset | Mapping[str, Dataset] | None
"""Encoded rows to evaluate on: one set, several by name, or none."""


def is_dict_of_sets(source: Any) -> bool:
    """Return whether a data set is a dict of data sets; a dict of columns, whose values are lists, is one set.

    Raises:
        TypeError: a set has another name than text.
    """
    if not (isinstance(source, Mapping) and source and all(map(_is_set, source.values()))):
        return False
    for name in source:
        if not isinstance(name, str):
            raise TypeError(
                f"eval_dataset has a set named {name!r} ({type(name).__name__}); expected a str, which the names of "
                "its metrics have: eval_<name>_accuracy"
            )
    return True


def _is_set(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, (Dataset, TaughtRows, Mapping, str, os.PathLike)) or any(
        hasattr(value, name) for name in ("column_names", "columns")
    )


def encoded_sets(source: Any, encode: Callable[[Any], Dataset]) -> EvalRows:
    """Return a data set, or each of a dict of data sets, encoded; None stays None."""
    if is_dict_of_sets(source):
        return {name: encode(rows) for name, rows in source.items()}
    return None if source is None else encode(source)


def evaluation_sets(rows: EvalRows) -> dict[str, Dataset]:
    """Return the sets by name; that of the only one is empty."""
    if isinstance(rows, Mapping):
        return dict(rows)
    return {} if rows is None else {"": rows}


def metric_prefix(prefix: str, name: str) -> str:
    """Return the prefix of the metrics of the set `name`: eval_<name>, or eval for the only one."""
    return f"{prefix}_{name}" if name else prefix


def main_set(names: Iterable[str], metric: str) -> str:
    """Return the set that chooses the best weights: the one that `metric_for_best_model` begins with, or the first.

    Args:
        names: of the sets; without any the result is empty.
        metric: `metric_for_best_model`.
    """
    names, metric = list(names), metric.removeprefix("eval_")
    named = [name for name in names if metric.startswith(f"{name}_")]
    return max(named, key=len) if named else next(iter(names), "")


def check_main_set(names: Iterable[str], metric: str) -> None:
    """Raise `ValueError` for a `metric_for_best_model` that does not name one of several sets."""
    named = [name for name in names if name]
    if named and not any(metric.removeprefix("eval_").startswith(f"{name}_") for name in named):
        raise ValueError(
            f"metric_for_best_model is {metric!r} and eval_dataset has the sets {', '.join(named)}; expected a metric "
            f"of one of them, such as {named[0]}_{metric.removeprefix('eval_')}"
        )
