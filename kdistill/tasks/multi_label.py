"""Each row has any of several labels, or none. A label is predicted above a threshold: even odds, a logit above 0."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from ..data.labels import label_indicators
from ..losses.labels import plain_label_loss
from ..losses.mixing import INDICATORS
from ..losses.problem_types import MULTI_LABEL
from ..losses.teacher import distillation_loss_parts
from ..metrics import divergence
from ..metrics.classification import Indicators, averages, exact_match, micro, right_rows
from ..metrics.prediction import Labels, Logits
from ..metrics.ranking import average_precision, average_precision_macro, best_threshold, roc_auc, top_1
from .base import Task, in_words, of_decisions, of_scores

SURE = 100.0
"""A logit whose probability is 1 in float32."""


def _predicted_and_true(logits: Logits, labels: Labels, threshold: float = 0.5) -> tuple[Indicators, Indicators]:
    return logits > np.log(threshold / (1 - threshold)), labels > 0.5


def _constant(labels: Labels, num_labels: int) -> Logits:
    """Return the logits of the most frequent set of labels, surer than any threshold asks for."""
    sets, counts = np.unique(labels > 0.5, axis=0, return_counts=True)
    return np.where(sets[counts.argmax()], SURE, -SURE).astype(np.float32)


def _answers(logits: Logits, threshold: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return scores, scores > threshold


def _best_threshold(logits: Logits, labels: Labels) -> float:
    return best_threshold(logits, labels > 0.5)


@cache
def _at_threshold(threshold: float) -> Task:
    return replace(
        TASK,
        threshold=threshold,
        predicted_and_true=partial(_predicted_and_true, threshold=threshold),
        answers=partial(_answers, threshold=threshold),
    )


TASK = Task(
    name=MULTI_LABEL,
    pipeline_tag="text-classification",
    description=lambda names: f"It sorts text into {in_words(names)}.",
    read_labels=label_indicators,
    names_labels=True,
    one_label=False,
    label_loss=partial(plain_label_loss, problem_type=MULTI_LABEL),
    teacher_loss=partial(distillation_loss_parts, problem_type=MULTI_LABEL),
    predicted_and_true=_predicted_and_true,
    metrics={
        **of_decisions(accuracy=exact_match, **averages(micro)),
        **of_scores(
            average_precision=average_precision,
            average_precision_macro=average_precision_macro,
            top_1=top_1,
            roc_auc=roc_auc,
        ),
    },
    default_metrics=("accuracy", "f1", "average_precision", "top_1"),
    best_metric="average_precision",
    card_metric="f1",
    right_rows=right_rows,
    right_when="all of its labels are predicted and no other",
    constant=_constant,
    score_function="sigmoid",
    answers=_answers,
    divergence=divergence.of_indicators,
    mixing=INDICATORS,
    threshold=0.5,
    at_threshold=_at_threshold,
    best_threshold=_best_threshold,
)
