"""From rows to logits and metrics, without training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arguments import TrainingArguments
from .config import BertConfig
from .data import Dataset, OnProgress, as_dataset
from .metrics import EvalPrediction, Labels, Logits, classification_metrics
from .model import BertForSequenceClassification
from .progress import Progress
from .rows import NO_LABEL
from .tokenizer import BertTokenizer

ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]


class PredictionOutput(NamedTuple):
    """Logits (n, num_labels) float32, labels (n,) int64 (-100: none), and metrics."""

    predictions: Logits
    label_ids: Labels
    metrics: dict[str, float]


def encode_for(
    config: BertConfig, source: Any, tokenizer: BertTokenizer | None, args: TrainingArguments, **columns: str | None
) -> Dataset:
    """Tokenise `source` for a model of `config`, cut to what model, tokenizer and `args.max_length` allow.

    `columns` (text_column, text_pair_column, label_column) and errors are those of `data.as_dataset`.
    """
    limits = [config.max_position_embeddings, args.max_length, tokenizer.model_max_length if tokenizer else None]
    with Progress(f"tokenize {name_of(source)}", unit="rows", quiet=args.disable_tqdm) as progress:
        return as_dataset(
            source,
            tokenizer,
            max_length=min(limit for limit in limits if limit is not None),
            id2label=config.id2label,
            pad_token_id=config.pad_token_id,
            progress=progress,
            **columns,
        )


def name_of(source: Any) -> str:
    """What a model card may call a data set: a file's name without its directory, or that it was given in memory."""
    return Path(source).name if isinstance(source, str | os.PathLike) else "rows in memory"


def predict(
    model: BertForSequenceClassification,
    dataset: Dataset,
    *,
    batch_size: int,
    compute_metrics: ComputeMetrics | None = None,
    prefix: str,
    progress: OnProgress,
) -> PredictionOutput:
    """The model's logits for all rows, in order, and metrics named `<prefix>_...`.

    Metrics: those of the labelled rows (accuracy, loss, n, and what `compute_metrics` adds), runtime in seconds,
    samples_per_second.
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
    metrics = classification_metrics(logits, dataset.labels)
    if metrics and compute_metrics is not None:
        labelled = dataset.labels != NO_LABEL
        metrics |= compute_metrics(EvalPrediction(logits[labelled], dataset.labels[labelled]))
    metrics |= {"runtime": runtime, "samples_per_second": len(dataset) / runtime}
    named = {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in metrics.items()}
    return PredictionOutput(logits, dataset.labels, named)
