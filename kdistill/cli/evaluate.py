"""`kdistill evaluate`: a model measured on labelled rows."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from ..data.dataset import Dataset
from ..models.auto import load_trained
from ..report.per_class import PerClass, class_rows, confused_rows
from ..tasks.registry import task_for
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..train.encoding import encode_for
from ..train.recipe import require_labels
from ..trainers import Trainer
from .inputs import (
    columns_of,
    label_table,
    read_arguments,
    rows_file,
    task_of,
)
from .task import (
    check_labels_are_meant,
    compute_metrics_of,
    head_settings,
    with_problem_type,
)

Figures = dict[str, Any]


def evaluate(options: Namespace) -> Figures:
    """Measure `--model` on labelled rows, with `--per-class` each of its classes too."""
    trainer = measuring_trainer(options)
    config = trainer.model.config
    rows = rows_file(options.data, options, config.head)
    check_labels_are_meant(config, task_of(options), options.model, lambda: label_table(rows))
    dataset = encode_for(config, rows, trainer.processing_class, trainer.args, **columns_of(options))
    trainer.compute_metrics = compute_metrics_of(config, dataset, task_of(options))
    measured = (
        _evaluate_per_class(trainer, dataset) if options.per_class else _without_prefix(trainer.evaluate(dataset))
    )
    return measured | {"dtype": str(trainer.model.dtype)}


def _evaluate_per_class(trainer: Trainer, dataset: Dataset) -> Figures:
    require_labels(dataset)
    config = trainer.model.config
    task = task_for(config, dataset.labels)
    if not task.names_labels:
        raise ValueError(f"--per-class is given, and a model for {task.name} has no classes; leave it out")
    output = trainer.predict(dataset, metric_key_prefix="eval")
    classes = PerClass.of(task, output.predictions, dataset.targets)
    assert classes is not None
    rows = {"per_class": class_rows(config.id2label, classes), "confusions": confused_rows(config.id2label, classes)}
    return _without_prefix(output.metrics) | rows


def _without_prefix(metrics: Mapping[str, float]) -> Figures:
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"}


def measuring_trainer(options: Namespace) -> Trainer:
    """Return a trainer of `--model` that only measures."""
    args = read_arguments(TrainingArguments, options)
    settings = {"dtype": options.dtype, "keep_weights": False, **head_settings(options.model, task_of(options))}
    model = load_trained(options.model, **settings)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model.config = with_problem_type(model.config, task_of(options), "the model")
    return Trainer(model, args, processing_class=tokenizer)
