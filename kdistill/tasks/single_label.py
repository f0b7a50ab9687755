"""Each row has exactly one of several labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TextIO

import numpy as np

from ..data.labels import label_ids
from ..losses.labels import label_loss
from ..losses.problem_types import SINGLE_LABEL
from ..losses.teacher import distillation_loss_parts
from ..metrics.classification import (
    Classes,
    exact_match,
    f1,
    f1_macro,
    f1_micro,
    matthews_correlation,
    right_rows,
    softmax,
)
from ..metrics.prediction import Labels, Logits
from .base import Task, in_words, write_tsv


def _predicted_and_true(logits: Logits, labels: Labels) -> tuple[Classes, Classes]:
    count = logits.shape[1]
    return Classes(logits.argmax(axis=1), count), Classes(labels, count)


def _constant(labels: Labels, num_labels: int) -> Logits:
    logits = np.zeros(num_labels, np.float32)
    logits[np.bincount(labels, minlength=num_labels).argmax()] = 1
    return logits


def _write_predictions(file: TextIO, logits: Logits, names: Sequence[str]) -> None:
    """Write the most probable label of each row, and the probability of each label."""
    rows = ([names[scores.argmax()], *scores.tolist()] for scores in softmax(logits))
    write_tsv(file, ["prediction", *(f"score_{name}" for name in names)], rows)


TASK = Task(
    name=SINGLE_LABEL,
    pipeline_tag="text-classification",
    description=lambda names: f"It sorts text into {in_words(names)}.",
    read_labels=label_ids,
    names_labels=True,
    one_label=True,
    label_loss=partial(label_loss, problem_type=SINGLE_LABEL),
    teacher_loss=partial(distillation_loss_parts, problem_type=SINGLE_LABEL),
    predicted_and_true=_predicted_and_true,
    metrics={
        "accuracy": exact_match,
        "f1": f1,
        "f1_macro": f1_macro,
        "f1_micro": f1_micro,
        "matthews_correlation": matthews_correlation,
    },
    default_metrics=("accuracy",),
    best_metric="accuracy",
    card_metric="accuracy",
    right_rows=right_rows,
    constant=_constant,
    score_function="softmax",
    write_predictions=_write_predictions,
)
