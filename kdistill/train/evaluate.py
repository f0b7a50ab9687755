"""From rows to logits and metrics, without training."""

from __future__ import annotations

import math
import numbers
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.columns import Columns
from ..data.dataset import Dataset, OnProgress, as_dataset
from ..data.labels import labelled_rows
from ..metrics.prediction import EvalPrediction, Labels, Logits
from ..models.config import BertConfig
from ..models.model import Model
from ..system.notebook import Metrics, html_table
from ..system.progress import Progress
from ..tasks.base import Task
from ..tasks.registry import has_one_class, label_reader, no_labels, refuse_one_class, task_for
from ..text.tokenizer import BertTokenizer, check_embeddings, check_tokenizer
from .arguments import TrainingArguments

ComputeMetrics = Callable[[EvalPrediction], dict[str, Any]]
_SPEED = ("runtime", "samples_per_second")
_DEEPEST = 50  # lists inside of lists that files of JSON get; some readers follow no more than a hundred


class PredictionOutput(NamedTuple):
    """Logits (n, num_labels) float32, labels as in `Dataset` (-100 or NaN: none), and metrics."""

    predictions: Logits
    label_ids: Labels
    metrics: dict[str, float]

    def _repr_html_(self) -> str:
        """Return the metrics as Jupyter shows them."""
        return html_table(f"{len(self.predictions):,} predictions", self.metrics.items())


def encode_for(
    config: BertConfig,
    source: Any,
    tokenizer: BertTokenizer | None,
    args: TrainingArguments,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Tokenise `source` for a model of `config`, cut to what model, tokenizer and maximum length allow.

    Maximum length and columns are those that are given; else those that the model was trained with
    (`BertConfig.trained_with`). A warning says where the two differ, and how many rows were cut.

    Columns that are not used are reported as a warning.

    Columns and errors are those of `data.dataset.as_dataset`; ValueError also for a tokenizer with added tokens that
    the model has no embeddings for, and for token ids, types or lengths that it has no place for, which names the row.
    """
    check_tokenizer("processing_class", tokenizer)
    check_embeddings(tokenizer, config.vocab_size)
    given = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    trained = config.trained_with
    _warn_of_differences(given | {"max_length": args.max_length}, trained.given())
    asked = trained.max_length if args.max_length is None else args.max_length
    limits = [config.max_position_embeddings, asked, tokenizer.model_max_length if tokenizer else None]
    with Progress(f"tokenize {name_of(source)}", unit="rows", quiet=args.disable_tqdm) as progress:
        dataset = as_dataset(
            source,
            tokenizer,
            max_length=min(limit for limit in limits if limit is not None),
            id2label=config.id2label,
            read_labels=no_labels if has_one_class(config) else label_reader(config),
            pad_token_id=config.pad_token_id,
            **given,
            trained_on=trained_on(config),
            progress=progress,
        )
    _check_fits(dataset, config)
    if source is not dataset:
        _warn_of_unused_columns(dataset)
        _warn_of_cut_rows(dataset, name_of(source))
    if asked is not None and dataset.lengths.max() > asked:
        longer = int((dataset.lengths > asked).sum())
        warnings.warn(
            f"{longer:,} of {len(dataset):,} rows ({name_of(source)}) are longer than max_length {asked}: rows that "
            "are tokenized already are not cut",
            stacklevel=3,
        )
    return dataset


def _warn_of_unused_columns(dataset: Dataset) -> None:
    if dataset.columns_read is not None and dataset.columns_read.unused:
        warnings.warn(dataset.columns_read.unused_sentence(), stacklevel=4)


def trained_on(config: BertConfig) -> Columns:
    """Return the columns that the model was trained on, as its config holds them."""
    trained = config.trained_with
    return Columns(trained.text_column, trained.text_pair_column, trained.label_column)


def _warn_of_differences(given: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Warn of arguments, given, that are not those of the training."""
    for name, value in given.items():
        if value is not None and trained.get(name, value) != value:
            warnings.warn(f"{name} is {value!r}; the model was trained with {trained[name]!r}", stacklevel=4)


def _warn_of_cut_rows(dataset: Dataset, name: str) -> None:
    reading = dataset.reading
    if reading is not None and reading.cut:
        share = reading.cut / len(dataset)
        warnings.warn(
            f"{reading.cut:,} of {len(dataset):,} rows ({share:.1%} of {name}) were longer than {reading.max_length} "
            "tokens and cut there (max_length)",
            stacklevel=4,
        )


def _check_fits(dataset: Dataset, config: BertConfig) -> None:
    """Raise ValueError for the first row that the model cannot read.

    The model would find the same, but count the row from the beginning of a batch and only when it gets there.
    """
    positions = config.max_position_embeddings
    if dataset.lengths.max() > positions:
        row = int(np.argmax(dataset.lengths > positions))
        raise ValueError(
            f"row {row} of the data set has {dataset.lengths[row]} tokens; the model has {positions} positions: "
            f"tokenize with truncation=True, max_length={positions}"
        )
    for name, values, size in (
        ("input_ids", dataset.ids, config.vocab_size),
        ("token_type_ids", dataset.types, config.type_vocab_size),
    ):
        wrong = (values < 0) | (values >= size)
        if wrong.any():
            place = int(np.argmax(wrong))
            row = int(np.searchsorted(dataset.starts, place, side="right")) - 1
            raise ValueError(
                f"row {row} of the data set has {values[place]} among its {name}; the model knows 0 to {size - 1}: "
                "is it the tokenizer of another model?"
            )
    if dataset.labels.dtype.kind in "iu" and task_for(config).one_label:
        wrong = labelled_rows(dataset.labels) & ((dataset.labels < 0) | (dataset.labels >= config.num_labels))
        if wrong.any():
            if has_one_class(config):
                refuse_one_class()
            row = int(np.argmax(wrong))
            raise ValueError(
                f"row {row} of the data set has the label {dataset.labels[row]}; the model has labels 0 to "
                f"{config.num_labels - 1}"
            )


def name_of(source: Any) -> str:
    """Return how a model card calls a data set: by its file's name without the directory, or as rows in memory."""
    return Path(source).name if isinstance(source, str | os.PathLike) else "rows in memory"


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

    Metrics: those of the labelled rows (see `Task.evaluate`, and `plain_metrics` for what `compute_metrics` adds),
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
        metrics |= _own_metrics(compute_metrics, logits, dataset.labels)
    metrics |= dict(zip(_SPEED, (runtime, len(dataset) / runtime), strict=True))
    return PredictionOutput(logits, dataset.labels, Metrics(_named(metrics, prefix)))


def metric_names(task: Task, prefix: str) -> list[str]:
    """Return the names of the metrics that an evaluation gives without `compute_metrics`."""
    return list(_named(dict.fromkeys((*task.default_metrics, "loss", "n", *_SPEED), 0.0), prefix))


def _named(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in metrics.items()}


def _own_metrics(compute_metrics: ComputeMetrics | None, logits: Logits, labels: Labels) -> dict[str, Any]:
    """Return what a user's function measures on the labelled rows, in values that JSON has."""
    if compute_metrics is None:
        return {}
    labelled = labelled_rows(labels)
    return plain_metrics(compute_metrics(EvalPrediction(logits[labelled], labels[labelled])))


def plain_metrics(metrics: Any) -> dict[str, Any]:
    """Return the metrics that a user's function returned, in values that JSON has.

    Numbers of any kind (NumPy's, bool, arrays and tensors of one number) become int or float. Texts, lists and
    dictionaries stay as they are, for files of JSON alone; anything else is left out; there is one warning for both.

    Raises:
        TypeError: `metrics` is not a dictionary with names.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"compute_metrics returned {metrics!r}; expected a dictionary of metrics by name")
    for name in metrics:
        if not isinstance(name, str):
            raise TypeError(f"compute_metrics returned a metric named {name!r}; expected a text as its name")
    plain = without_foreign(metrics, "compute_metrics returned")
    others = [name for name, value in plain.items() if not isinstance(value, int | float)]
    if others:
        warnings.warn(
            f"compute_metrics returned {', '.join(map(repr, others))}, which is no number: only files of JSON get it, "
            "neither metrics.csv nor TensorBoard",
            stacklevel=5,
        )
    return plain


def without_foreign(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the values in forms that JSON has; warn of those that have none, which are left out.

    Args:
        values: by name.
        source: the beginning of the warning, such as "log was given".
    """
    found = {name: _plain_or_none(value) for name, value in values.items()}
    plain = {name: value for name, value in found.items() if value is not None}
    lost = ", ".join(repr(name) for name in found if name not in plain)
    if lost:
        warnings.warn(f"{source} {lost}, which JSON cannot hold: it is left out", stacklevel=6)
    return plain


def _plain_or_none(value: Any) -> Any:
    """Return what `_plain` does; None also for a value that fails when it is read."""
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001  # whatever the value's own methods raise
        return None


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as numbers, texts, lists and dictionaries; None when it is or holds something else."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:  # also a list that holds itself
        return None
    if isinstance(value, Mapping):
        items = {str(name): _plain(item, depth + 1) for name, item in value.items()}
        return None if None in items.values() else items
    if hasattr(value, "tolist"):  # arrays and tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        parts = [_plain(item, depth + 1) for item in value]
        return None if None in parts else parts
    if isinstance(value, numbers.Integral) and math.isfinite(value):  # also bool: a share of one row
        return int(value)
    return None if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real) else float(value)
