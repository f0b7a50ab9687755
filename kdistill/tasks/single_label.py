"""Each row has exactly one of several labels."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..data.labels import label_ids
from ..losses.labels import plain_label_loss
from ..losses.mixing import CLASSES
from ..losses.problem_types import SINGLE_LABEL
from ..losses.teacher import distillation_loss_parts
from ..metrics import divergence
from ..metrics.classification import (
    Classes,
    averages,
    exact_match,
    matthews_correlation,
    of_label_1,
    right_rows,
    softmax,
)
from ..metrics.prediction import Labels, Logits
from ..metrics.ranking import roc_auc
from .base import Task, in_words, of_decisions, of_scores


def _predicted_and_true(logits: Logits, labels: Labels) -> tuple[Classes, Classes]:
    count = logits.shape[1]
    return Classes(logits.argmax(axis=1), count), Classes(labels, count)


def _constant(labels: Labels, num_labels: int) -> Logits:
    logits = np.zeros(num_labels, np.float32)
    logits[np.bincount(labels, minlength=num_labels).argmax()] = 1
    return logits


def _answers(logits: Logits) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = softmax(logits)
    return scores, np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]


TASK = Task(
    name=SINGLE_LABEL,
    pipeline_tag="text-classification",
    description=lambda names: f"It sorts text into {in_words(names)}.",
    read_labels=label_ids,
    names_labels=True,
    one_label=True,
    label_loss=partial(plain_label_loss, problem_type=SINGLE_LABEL),
    teacher_loss=partial(distillation_loss_parts, problem_type=SINGLE_LABEL),
    predicted_and_true=_predicted_and_true,
    metrics={
        **of_decisions(accuracy=exact_match, **averages(of_label_1), matthews_correlation=matthews_correlation),
        **of_scores(roc_auc=roc_auc),
    },
    default_metrics=("accuracy",),
    best_metric="accuracy",
    card_metric="accuracy",
    right_rows=right_rows,
    constant=_constant,
    score_function="softmax",
    answers=_answers,
    divergence=divergence.of_classes,
    mixing=CLASSES,
)
