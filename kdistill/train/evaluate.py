"""From rows to logits and metrics, without training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset, OnProgress
from ..data.ragged import Outputs, Ragged, outputs_of, units
from ..metrics.prediction import Labels
from ..models.model import Model
from ..system.notebook import Metrics, html_table
from ..tasks.base import Task
from ..tasks.registry import task_for
from .own_metrics import ComputeMetrics, own_metrics
from .world import ALONE, World

_SPEED = ("runtime", "samples_per_second")


class PredictionOutput(NamedTuple):
    """Logits (n, num_labels) float32, labels as in `Dataset` (-100 or NaN: none), and metrics.

    Of a model that answers for each token, both are `Ragged`: of float32 (tokens, num_labels) and int64 (tokens,). Of a
    language model the former are float32 (tokens, 2): the loss of a hidden word, and 1 where it is the first choice.
    """

    predictions: Outputs
    label_ids: Any
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
    choose_threshold: bool = False,
    world: World = ALONE,
) -> PredictionOutput:
    """Return the model's logits for all rows, in order, and metrics named `<prefix>_...`.

    Metrics: those of the labelled rows (see `Task.evaluate`, and `own_metrics` for what `compute_metrics` adds),
    runtime in seconds, samples_per_second. They are at the threshold of the model, or with `choose_threshold` at the
    one that suits these rows best, which is among them. The processes of a `world` share the rows, and all get the
    logits of all of them.
    """
    started = time.monotonic()
    logits = outputs_for(model, dataset, batch_size=batch_size, progress=progress, world=world)
    runtime = max(time.monotonic() - started, 1e-9)
    task, targets = task_for(model.config, dataset.labels), dataset.targets
    if choose_threshold:
        task = task.suited_to(logits, targets)
    metrics: dict[str, Any] = dict(task.evaluate(logits, targets))
    if metrics:
        metrics |= own_metrics(compute_metrics, logits, targets, task)
    if metrics and choose_threshold and task.threshold is not None:
        metrics["threshold"] = task.threshold
    metrics |= dict(zip(_SPEED, (runtime, len(dataset) / runtime), strict=True))
    labels = Ragged(dataset.labels, dataset.starts) if dataset.per_token else dataset.labels
    return PredictionOutput(logits, labels, Metrics(_named(metrics, prefix)))


def outputs_for(
    model: Model, dataset: Dataset, *, batch_size: int, progress: OnProgress, world: World = ALONE
) -> Outputs:
    """Return what the model answers for all rows, in order: its logits, or what its task keeps (`Task.outputs`).

    The processes of a `world` take turns at the batches: what a row gets does not depend on the others of its batch.
    """
    count = len(dataset.ids) if model.per_token else len(dataset)
    starts = range(0, len(dataset), batch_size)
    values, mine = np.empty((count, 0), np.float32), list[NDArray[np.float32]]()

    def put(start: int, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write what the batch that begins with this row got, and return it where it now is."""
        nonlocal values
        if values.shape[1] != found.shape[1]:
            values = np.empty((count, found.shape[1]), np.float32)
        end = min(start + batch_size, len(dataset))
        first, last = (dataset.starts[start], dataset.starts[end]) if model.per_token else (start, end)
        values[first:last] = found
        return values[first:last]

    for start in starts[world.rank :: world.size]:
        progress(start, len(dataset))
        rows = np.arange(start, min(start + batch_size, len(dataset)))
        mine.append(put(start, outputs_of_batch(model, *dataset.batch(rows))))
    progress(len(dataset), len(dataset))
    for rank, theirs in enumerate(world.gather(mine)):
        if rank != world.rank:
            for start, found in zip(starts[rank :: world.size], theirs, strict=True):
                put(start, found)
    return outputs_of(values, dataset.starts, model.per_token)


def outputs_of_batch(model: Model, batch: Batch, labels: Labels) -> NDArray[np.float32]:
    """Return the logits of a batch, or what the model's task keeps of them, see `Task.outputs`."""
    outputs = task_for(model.config).outputs
    return model.forward(batch) if outputs is None else outputs(model, batch, labels)


def refuse_threshold(threshold: float | None, task: Task) -> None:
    """Raise ValueError for a threshold that was given for a task without one."""
    if threshold is not None and task.at_threshold is None:
        raise ValueError(
            f"threshold is {threshold} for a model for {task.name}; expected no threshold (in Python None): only of "
            "several labels a row is each predicted above one"
        )


def warn_of_empty_predictions(model: Model, output: PredictionOutput) -> None:
    """Warn where the model, which may predict any number of labels, predicts none for every row."""
    threshold = task_for(model.config, units(output.label_ids)).threshold
    if threshold is None or not isinstance(output.predictions, np.ndarray) or not output.predictions.size:
        return
    highest = float(1 / (1 + np.exp(-output.predictions.max().astype(np.float64))))
    if highest <= threshold:
        rows = len(output.predictions)
        warnings.warn(
            f"all {rows:,} predictions are empty: the highest probability is {highest:.4g}, and a label needs more "
            f"than the threshold, {threshold:.4g}; choose another with --threshold (threshold=), or train with none "
            "given, which chooses one",
            stacklevel=4,
        )


def metric_names(task: Task, prefix: str) -> list[str]:
    """Return the names of the metrics that an evaluation gives without `compute_metrics`."""
    return list(_named(dict.fromkeys((*task.default_metrics, "loss", "n", *_SPEED), 0.0), prefix))


def _named(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in metrics.items()}
