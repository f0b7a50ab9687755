"""The problem types of `transformers`: what the labels of a sequence classifier are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SINGLE_LABEL = "single_label_classification"
"""One of several labels."""
MULTI_LABEL = "multi_label_classification"
"""Any of several labels, or none."""
REGRESSION = "regression"
"""A number for each output."""
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)


def deduced_problem_type(outputs: int, labels: NDArray[Any] | None) -> str:
    """Return what `transformers` deduces where a config states no problem type.

    One output is a regression; several are single_label_classification when the labels are whole numbers (or None:
    nobody has given any) and multi_label_classification otherwise.
    """
    if outputs == 1:
        return REGRESSION
    return SINGLE_LABEL if labels is None or labels.dtype.kind in "iu" else MULTI_LABEL
