"""The arrays that metrics are computed from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.labels import labelled_rows
from ..data.ragged import Ragged
from ..data.sentences import SentenceTargets
from ..data.spans import SpanTargets

Logits = NDArray[np.float32]
"""Outputs of a model for some rows, float32 (n, num_labels)."""
Labels = NDArray[Any]
"""Labels of a data set: int64 (n,), float32 (n,) or float32 (n, num_labels); see `data.dataset.Dataset`."""


class EvalPrediction(NamedTuple):
    """The argument of `compute_metrics`: logits (n, num_labels) float32 and the labels, labelled rows only.

    Of a model that answers for each token, logits are (n, longest, num_labels) and labels (n, longest), both with -100
    behind the end of a row, as in transformers.
    """

    predictions: Any
    label_ids: Any


def labelled_answers(outputs: Any, targets: Any) -> tuple[Any, Any]:
    """Return outputs and labels of what has a label: rows, or examples with those of their tokens that have one.

    Args:
        outputs: of a model for all rows of a data set: float32 (rows, K), or a `Ragged` of float32 (tokens, K).
        targets: of the same rows, see `data.dataset.Dataset.targets`.
    """
    if isinstance(targets, SpanTargets):
        return targets.of_labelled(outputs)
    if isinstance(targets, SentenceTargets):
        return outputs, targets  # what has a score, or a teacher's embedding, is for its metrics to tell
    if not isinstance(targets, Ragged):
        labelled = labelled_rows(targets)
        return outputs[labelled], targets[labelled]
    known, examples = targets.values >= 0, np.flatnonzero(labelled_rows(targets))
    of_examples = Ragged(outputs.values, targets.starts)  # the rows of an example follow each other
    return of_examples.selected(known).take(examples), targets.selected(known).take(examples)
