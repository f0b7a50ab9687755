"""Metrics of a user's function, and entries that a user logs, in values that JSON has."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ..metrics.prediction import EvalPrediction, labelled_answers
from ..tasks.base import Task
from ..tasks.registry import ChosenMetrics

ComputeMetrics = Callable[[EvalPrediction], dict[str, Any]]
"""Measures the labelled rows of an evaluation, beside the metrics of the task."""
_DEEPEST = 50  # lists inside of lists that files of JSON get; some readers follow no more than a hundred


def own_metrics(compute_metrics: ComputeMetrics | None, logits: Any, labels: Any, task: Task) -> dict[str, Any]:
    """Return what a user's function measures on the labelled rows, in values that JSON has.

    Metrics that were chosen by name are measured at the threshold of `task`, which the metrics beside them have.
    """
    if compute_metrics is None:
        return {}
    logits, labels = labelled_answers(logits, labels)
    if isinstance(compute_metrics, ChosenMetrics):
        return plain_metrics(compute_metrics.of_task(task)(EvalPrediction(logits, labels)))
    return plain_metrics(compute_metrics(task.for_users(logits, labels)))


def plain_metrics(metrics: Any) -> dict[str, Any]:
    """Return the metrics that a user's function returned, in values that JSON has.

    Numbers of any kind (NumPy's, bool, arrays and tensors of one number) become int or float. Texts, lists and
    dictionaries stay as they are, for files of JSON alone; anything else is left out; there is one warning for both.

    Raises:
        TypeError: `metrics` is not a dictionary with names.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"compute_metrics returned {metrics!r}; expected a dictionary of metrics by name")
    for name in metrics:
        if not isinstance(name, str):
            raise TypeError(f"compute_metrics returned a metric named {name!r}; expected a text as its name")
    plain = without_foreign(metrics, "compute_metrics returned")
    others = [name for name, value in plain.items() if not isinstance(value, int | float)]
    if others:
        warnings.warn(
            f"compute_metrics returned {', '.join(map(repr, others))}, which is not a number: it is written "
            "to JSON files only, not to metrics.csv or TensorBoard",
            stacklevel=5,
        )
    return plain


def without_foreign(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the values in forms that JSON has; warn of those that have none, which are left out.

    Args:
        values: by name.
        source: the beginning of the warning, such as "log was given".
    """
    found = {name: _plain_or_none(value) for name, value in values.items()}
    plain = {name: value for name, value in found.items() if value is not None}
    lost = ", ".join(repr(name) for name in found if name not in plain)
    if lost:
        warnings.warn(f"{source} {lost}, which JSON cannot hold: it is left out", stacklevel=6)
    return plain


def _plain_or_none(value: Any) -> Any:
    """Return what `_plain` does; None also for a value that fails when it is read."""
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001  # whatever the value's own methods raise
        return None


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as numbers, texts, lists and dictionaries; None when it is or holds something else."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:  # also a list that holds itself
        return None
    if isinstance(value, Mapping):
        items = {str(name): _plain(item, depth + 1) for name, item in value.items()}
        return None if None in items.values() else items
    if hasattr(value, "tolist"):  # arrays and tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        parts = [_plain(item, depth + 1) for item in value]
        return None if None in parts else parts
    if isinstance(value, numbers.Integral) and math.isfinite(value):  # also bool: a share of one row
        return int(value)
    return None if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real) else float(value)
