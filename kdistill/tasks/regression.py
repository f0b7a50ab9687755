"""Each row has a number, or one for each output."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..data.labels import label_numbers
from ..losses.labels import plain_label_loss
from ..losses.mixing import NUMBERS
from ..losses.problem_types import REGRESSION
from ..losses.teacher import distillation_loss_parts
from ..metrics import divergence
from ..metrics.prediction import Labels, Logits
from ..metrics.regression import Numbers, mse, pearson, spearmanr
from .base import Task, of_decisions

_METRICS = of_decisions(mse=mse, pearson=pearson, spearmanr=spearmanr)


def _predicted_and_true(logits: Logits, labels: Labels) -> tuple[Numbers, Numbers]:
    return logits.astype(np.float64).ravel(), labels.astype(np.float64).ravel()


def _constant(labels: Labels, num_labels: int) -> Logits:
    mean: Logits = labels.reshape(len(labels), num_labels).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _answers(logits: Logits) -> tuple[Numbers, None]:
    return logits.astype(np.float64), None


TASK = Task(
    name=REGRESSION,
    pipeline_tag="text-classification",
    description=lambda names: "It gives a text a number.",
    read_labels=label_numbers,
    names_labels=False,
    one_label=False,
    label_loss=partial(plain_label_loss, problem_type=REGRESSION),
    teacher_loss=partial(distillation_loss_parts, problem_type=REGRESSION),
    predicted_and_true=_predicted_and_true,
    metrics=_METRICS,
    default_metrics=tuple(_METRICS),
    best_metric="loss",
    card_metric="pearson",
    right_rows=None,
    constant=_constant,
    score_function="none",
    answers=_answers,
    divergence=divergence.of_numbers,
    mixing=NUMBERS,
)
