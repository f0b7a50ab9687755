"""Each row has a number, or one for each output."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TextIO

import numpy as np

from ..data.labels import label_numbers
from ..losses.labels import label_loss
from ..losses.problem_types import REGRESSION
from ..losses.teacher import distillation_loss_parts
from ..metrics.prediction import Labels, Logits
from ..metrics.regression import Numbers, mse, pearson, spearmanr
from .base import Task, write_tsv

_METRICS = {"mse": mse, "pearson": pearson, "spearmanr": spearmanr}


def _predicted_and_true(logits: Logits, labels: Labels) -> tuple[Numbers, Numbers]:
    return logits.astype(np.float64).ravel(), labels.astype(np.float64).ravel()


def _constant(labels: Labels, num_labels: int) -> Logits:
    mean: Logits = labels.reshape(len(labels), num_labels).mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _write_predictions(file: TextIO, logits: Logits, names: Sequence[str]) -> None:
    """Write the number of each output."""
    columns = ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]
    write_tsv(file, columns, (values.tolist() for values in logits))


TASK = Task(
    name=REGRESSION,
    pipeline_tag="text-classification",
    description=lambda names: "It gives a text a number.",
    read_labels=label_numbers,
    names_labels=False,
    one_label=False,
    label_loss=partial(label_loss, problem_type=REGRESSION),
    teacher_loss=partial(distillation_loss_parts, problem_type=REGRESSION),
    predicted_and_true=_predicted_and_true,
    metrics=_METRICS,
    default_metrics=tuple(_METRICS),
    best_metric="loss",
    card_metric="mse",
    right_rows=None,
    constant=_constant,
    score_function="none",
    write_predictions=_write_predictions,
)
