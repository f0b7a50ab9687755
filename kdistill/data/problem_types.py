"""The problem types of `transformers`: what a label is."""

from __future__ import annotations

SINGLE_LABEL = "single_label_classification"
"""One of several labels."""
MULTI_LABEL = "multi_label_classification"
"""Any of several labels, or none."""
REGRESSION = "regression"
"""A number for each output."""
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL)
