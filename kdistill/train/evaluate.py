"""From rows to logits and metrics, without training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..data.dataset import Dataset, OnProgress
from ..metrics.prediction import Labels, Logits
from ..models.model import Model
from ..system.notebook import Metrics, html_table
from ..tasks.base import Task
from ..tasks.registry import task_for
from .own_metrics import ComputeMetrics, own_metrics

_SPEED = ("runtime", "samples_per_second")


class PredictionOutput(NamedTuple):
    """Logits (n, num_labels) float32, labels as in `Dataset` (-100 or NaN: none), and metrics."""

    predictions: Logits
    label_ids: Labels
    metrics: dict[str, float]

    def _repr_html_(self) -> str:
        """Return the metrics as Jupyter shows them."""
        return html_table(f"{len(self.predictions):,} predictions", self.metrics.items())


def predict(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int,
    compute_metrics: ComputeMetrics | None = None,
    prefix: str,
    progress: OnProgress,
) -> PredictionOutput:
    """Return the model's logits for all rows, in order, and metrics named `<prefix>_...`.

    Metrics: those of the labelled rows (see `Task.evaluate`, and `own_metrics` for what `compute_metrics` adds),
    runtime in seconds, samples_per_second.
    """
    logits = np.empty((len(dataset), model.config.num_labels), dtype=np.float32)
    started = time.monotonic()
    for start in range(0, len(dataset), batch_size):
        progress(start, len(dataset))
        rows = np.arange(start, min(start + batch_size, len(dataset)))
        batch, _ = dataset.batch(rows)
        logits[rows] = model.forward(batch)
    progress(len(dataset), len(dataset))
    runtime = max(time.monotonic() - started, 1e-9)
    metrics = task_for(model.config, dataset.labels).evaluate(logits, dataset.labels)
    if metrics:
        metrics |= own_metrics(compute_metrics, logits, dataset.labels)
    metrics |= dict(zip(_SPEED, (runtime, len(dataset) / runtime), strict=True))
    return PredictionOutput(logits, dataset.labels, Metrics(_named(metrics, prefix)))


def metric_names(task: Task, prefix: str) -> list[str]:
    """Return the names of the metrics that an evaluation gives without `compute_metrics`."""
    return list(_named(dict.fromkeys((*task.default_metrics, "loss", "n", *_SPEED), 0.0), prefix))


def _named(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in metrics.items()}
