"""Each row has any of several labels, or none. A label is predicted above a threshold: even odds, a logit above 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TextIO

import numpy as np

from ..data.labels import label_indicators
from ..losses.labels import label_loss
from ..losses.problem_types import MULTI_LABEL
from ..losses.teacher import distillation_loss_parts
from ..metrics.classification import Indicators, exact_match, f1_macro, f1_micro, right_rows
from ..metrics.prediction import Labels, Logits
from .base import Task, in_words, tsv_field, write_tsv

SURE = 100.0
"""A logit whose probability is 1 in float32."""


def _predicted_and_true(logits: Logits, labels: Labels, threshold: float = 0.5) -> tuple[Indicators, Indicators]:
    return logits > np.log(threshold / (1 - threshold)), labels > 0.5


def _constant(labels: Labels, num_labels: int) -> Logits:
    """Return the logits of the most frequent set of labels, surer than any threshold asks for."""
    sets, counts = np.unique(labels > 0.5, axis=0, return_counts=True)
    return np.where(sets[counts.argmax()], SURE, -SURE).astype(np.float32)


def _write_predictions(file: TextIO, logits: Logits, names: Sequence[str], threshold: float = 0.5) -> None:
    """Write all labels above the threshold, separated by commas, and the probability of each label.

    A name with a comma is quoted in that list.
    """
    listed = [tsv_field(name, ",") for name in names]
    probabilities = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    rows = (
        [",".join(listed[int(index)] for index in np.flatnonzero(scores > threshold)), *scores.tolist()]
        for scores in probabilities
    )
    write_tsv(file, ["prediction", *(f"score_{name}" for name in names)], rows)


@cache
def _at_threshold(threshold: float) -> Task:
    return replace(
        TASK,
        predicted_and_true=partial(_predicted_and_true, threshold=threshold),
        write_predictions=partial(_write_predictions, threshold=threshold),
    )


TASK = Task(
    name=MULTI_LABEL,
    pipeline_tag="text-classification",
    description=lambda names: f"It sorts text into {in_words(names)}.",
    read_labels=label_indicators,
    names_labels=True,
    one_label=False,
    label_loss=partial(label_loss, problem_type=MULTI_LABEL),
    teacher_loss=partial(distillation_loss_parts, problem_type=MULTI_LABEL),
    predicted_and_true=_predicted_and_true,
    metrics={"accuracy": exact_match, "f1": f1_micro, "f1_macro": f1_macro, "f1_micro": f1_micro},
    default_metrics=("accuracy", "f1"),
    best_metric="accuracy",
    card_metric="f1",
    right_rows=right_rows,
    constant=_constant,
    score_function="sigmoid",
    write_predictions=_write_predictions,
    at_threshold=_at_threshold,
)
