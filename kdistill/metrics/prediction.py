"""The arrays that metrics are computed from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
"""Outputs of a model for some rows, float32 (n, num_labels)."""
Labels = NDArray[Any]
"""Labels of a data set: int64 (n,), float32 (n,) or float32 (n, num_labels); see `data.dataset.Dataset`."""


class EvalPrediction(NamedTuple):
    """The argument of `compute_metrics`: logits (n, num_labels) float32 and the labels, labelled rows only."""

    predictions: Logits
    label_ids: Labels
