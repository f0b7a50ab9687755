"""PyTorch's training of taggers and of models that answer questions: kdistill's recipe, rows, order and start.

The model is that of transformers, AdamW and schedule are PyTorch's. A batch holds the rows that kdistill's batch of the
same step holds, padded to the longest; the only difference is the numbers that dropout draws. Metrics are computed from
the logits by kdistill, whose tests compare them with the official scripts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdistill.bench.other_runtimes import load_torch
from kdistill.data.dataset import Dataset
from kdistill.data.label_values import NO_LABEL
from kdistill.data.ragged import Ragged, units_of
from kdistill.train.plan import EpochPlan

from . import torch_peer
from .task_training import Recipe

EVALUATED_AT_ONCE = 32


def padded_inputs(dataset: Dataset, rows: NDArray[np.int64]) -> tuple[dict[str, torch.Tensor], NDArray[np.bool_]]:
    """Return rows padded to the longest as inputs of a model, and which places hold a token."""
    lengths = dataset.lengths[rows]
    present = np.arange(lengths.max()) < lengths[:, None]
    batch, _ = dataset.batch(rows)
    padded = {}
    for name, values in (("input_ids", batch.ids), ("token_type_ids", batch.types)):
        array = np.zeros(present.shape, np.int64)
        array[present] = values
        padded[name] = torch.from_numpy(array)
    return {**padded, "attention_mask": torch.from_numpy(present.astype(np.int64))}, present


def _logits(output: Any) -> torch.Tensor:
    """Return the logits of each token, (B, S, K)."""
    if "logits" in output:
        return output.logits
    return torch.stack((output.start_logits, output.end_logits), dim=2)


def _loss(logits: torch.Tensor, dataset: Dataset, rows: NDArray[np.int64], present: NDArray[np.bool_]) -> torch.Tensor:
    """Return the mean over the tags; or the mean of the losses of first and last tokens, without the padding."""
    cross_entropy = torch.nn.functional.cross_entropy
    if dataset.per_token:
        labels = np.full(present.shape, NO_LABEL)
        labels[present] = dataset.labels[units_of(dataset.starts, rows)]
        return cross_entropy(logits.flatten(0, 1), torch.from_numpy(labels).flatten(), ignore_index=NO_LABEL)
    logits = logits.masked_fill(torch.from_numpy(~present)[:, :, None], -torch.inf)
    spans = torch.from_numpy(dataset.labels[rows])
    return (cross_entropy(logits[:, :, 0], spans[:, 0]) + cross_entropy(logits[:, :, 1], spans[:, 1])) / 2


def step(
    training: torch_peer.Training,
    inputs: Mapping[str, torch.Tensor],
    present: NDArray[np.bool_],
    dataset: Dataset,
    rows: NDArray[np.int64],
) -> None:
    """Learn from one batch, see `padded_inputs`."""
    _loss(_logits(training.model(**inputs)), dataset, rows, present).backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.max_grad_norm)
    training.optimizer.step()
    training.schedule.step()
    training.optimizer.zero_grad(set_to_none=True)


def train(start: Path, dataset: Dataset, recipe: Recipe, seed: int) -> tuple[Any, float]:
    """Train the model in a directory; return it and the seconds that it took."""
    torch.manual_seed(seed)
    plan = EpochPlan(len(dataset), batch_size=recipe.batch_size, accumulation=1, drop_last=False, seed=seed)
    steps = plan.max_steps(recipe.epochs, -1)
    warmup = math.ceil(steps * recipe.warmup_ratio)

    def multiplier(step: int) -> float:
        return step / max(1, warmup) if step < warmup else (steps - step) / max(1, steps - warmup)

    training = torch_peer.Training(
        load_torch(start),
        recipe.learning_rate,
        recipe.max_grad_norm,
        weight_decay=recipe.weight_decay,
        multiplier=multiplier,
    )
    training.model.train()
    started = time.monotonic()
    for epoch in range(recipe.epochs):
        for rows in plan.rows_of_epoch(epoch, 0):
            step(training, *padded_inputs(dataset, rows), dataset, rows)
    return training.model.eval(), time.monotonic() - started


def outputs(model: Any, dataset: Dataset) -> Ragged:
    """Return the logits of all tokens of all rows."""
    values: NDArray[np.float32] | None = None
    order = np.argsort(dataset.lengths, kind="stable")
    for first in range(0, len(order), EVALUATED_AT_ONCE):
        rows = order[first : first + EVALUATED_AT_ONCE]
        inputs, present = padded_inputs(dataset, rows)
        with torch.inference_mode():
            logits = _logits(model(**inputs)).numpy()
        if values is None:
            values = np.empty((len(dataset.ids), logits.shape[2]), np.float32)
        values[units_of(dataset.starts, rows)] = logits[present]
    assert values is not None
    return Ragged(values, dataset.starts)
