"""The commands: each takes its parsed options and returns its figures, which `main` prints."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from ..bench.bench import bench as measure
from ..bench.bench import default_batch_size, synthetic_rows
from ..distill import cache as teacher_cache
from ..distill.hidden_cache import hidden_bytes
from ..doctor.examination import Examination, examine, warn_at_start
from ..models.auto import AutoConfig, config_to_learn, load_model
from ..models.classes import BertForSequenceClassification
from ..models.config import BertConfig, shape_of
from ..models.configuration import read_config
from ..models.head_names import ENCODER, LABELLED, MASKED, named_head
from ..models.layer_shapes import FIELDS
from ..system.progress import Progress
from ..system.threads import show_config
from ..tasks.registry import task_option
from ..text.classes import AutoTokenizer
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.callbacks import TrainerCallback
from ..train.default_callbacks import ProgressCallback
from ..train.directory import RESULTS_FILE, RunDirectory
from ..train.state import read_figures
from ..trainers import Trainer
from .bench_exports import bench_exported
from .completion import script
from .data_files import format_words
from .distillation import parts_of
from .encode import encode
from .ending import A_TEXT, next_of_run
from .evaluate import evaluate
from .export import export
from .inputs import (
    check_output_dir,
    dataset_of,
    dropout_of,
    label_table,
    provenance_of,
    read_arguments,
    rows_file,
    rows_to_learn,
    task_of,
)
from .label import label
from .options import RECIPE
from .predict import predict
from .prune import prune
from .quantize import quantize
from .report import report
from .search import search
from .serve import serve
from .task import (
    check_trainable,
    compute_metrics_of,
    head_to_learn,
    labels_to_learn,
)
from .teachers import inputs_of

__all__ = [
    "bench",
    "cache",
    "completion",
    "distill",
    "doctor",
    "encode",
    "evaluate",
    "export",
    "finetune",
    "info",
    "label",
    "predict",
    "prune",
    "quantize",
    "report",
    "search",
    "serve",
]

Figures = dict[str, Any]


def finetune(options: Namespace) -> Figures:
    """Fine-tune `--model` on labelled rows."""
    args = read_arguments(TrainingArguments, options)
    check_output_dir(args, options, sources=[options.model])
    check_trainable("--model", options.model)
    config, content = AutoConfig.from_pretrained(options.model), read_config(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    head = head_to_learn(content, task_of(options), lambda: label_table(rows_file(options.train, options)))
    if head == ENCODER:
        raise ValueError(
            f"--task is {task_option(head)}, and embeddings have no labels that finetune could learn; `kdistill "
            "distill` trains a student on a teacher's embeddings"
        )
    config = config_to_learn(options.model, config, head)
    labels = labels_to_learn(
        config,
        task_of(options),
        lambda: rows_to_learn(config, options),
        replace=options.ignore_mismatched_sizes or named_head(content) != head,
    )
    model = load_model(
        options.model,
        head=head,
        id2label=labels,
        problem_type=options.problem_type,
        ignore_mismatched_sizes=options.ignore_mismatched_sizes,
        seed=args.seed,
        **dropout_of(options),
    )
    train = dataset_of(options.train, tokenizer, model.config, args, options, training=True)
    trainer = Trainer(
        model,
        args,
        train_dataset=train,
        compute_metrics=compute_metrics_of(model.config, train, task_of(options), args),
        eval_dataset=None if options.eval is None else dataset_of(options.eval, tokenizer, model.config, args, options),
        processing_class=tokenizer,
        provenance=provenance_of(options, started_from=options.model),
    )
    return _train(trainer, options)


def distill(options: Namespace, *, log: TrainerCallback | None = None) -> Figures:
    """Train `--student` on the labels and on the probabilities that `--teacher` gives to them.

    `log` shows the course of the training in place of the lines for a terminal.
    """
    args = read_arguments(DistillationTrainingArguments, options)
    check_output_dir(args, options, sources=inputs_of(options))
    trainer = parts_of(options, args).trainer()
    if log is not None:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(log)
    if not options.resume:
        warn_at_start(trainer)
    return _train(trainer, options)


def doctor(options: Namespace) -> Figures:
    """Look at a run of `distill` before it is made: what would fail or mislead, and what to do about it."""
    examination, options.disable_tqdm = Examination(), True
    args = examination.attempt("arguments", lambda: read_arguments(DistillationTrainingArguments, options))
    if args is None:
        args = DistillationTrainingArguments(recipe=getattr(options, "recipe", RECIPE), disable_tqdm=True)
    examine(examination, parts_of(options, args))
    return examination.figures()


def bench(options: Namespace) -> Figures:
    """Measure how fast `--model` evaluates here, beside other runtimes when they are installed."""
    shape = shape_of(options.model)
    if shape is not None and options.data is not None:
        raise ValueError(
            f"--data is given, but the shape {options.model} has no tokenizer; expected a model to read it"
        )
    for name in ("rows", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
    if options.export:
        return bench_exported(options)
    if options.variants:
        raise ValueError("--variants is given without --export; expected the programs to measure them in beside it")
    dtypes = options.dtype or ["float32"]
    if shape is None:
        model = load_model(options.model, language_models=True)
        if model.quantization is not None:  # its weights in float32 are for the other programs
            dtypes = options.dtype or [model.quantization.dtype]
            model = load_model(options.model, language_models=True, dtype="float32")
    else:
        model = BertForSequenceClassification(BertConfig(**shape))
    if options.data is None:
        dataset = synthetic_rows(model.config, options.rows)
    else:
        args = TrainingArguments(disable_tqdm=True)
        dataset = dataset_of(options.data, AutoTokenizer.from_pretrained(options.model), model.config, args, options)
        dataset = dataset.take(np.arange(min(options.rows, len(dataset))))
    batch_size = options.batch_size or default_batch_size(model.config, dataset)
    with Progress("bench", unit="rounds", quiet=options.json) as progress:
        figures = measure(model, dataset, batch_size=batch_size, dtypes=[*dict.fromkeys(dtypes)], progress=progress)
    return {"model": options.model} | figures


def info(options: Namespace) -> Figures:
    """Return versions, CPU, threads and the state of the teacher cache; with `--model`, also the model's shape."""
    figures: Figures = dict(show_config())
    figures |= _cache_figures()
    if options.model is not None:
        model = load_model(options.model, language_models=True)
        figures["model"] = options.model
        figures["model_type"] = model.config.model_type
        figures["num_parameters"] = model.num_parameters()
        figures["labels"] = list(model.config.id2label.values()) if model.head in LABELLED else []
        for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"):
            figures[name] = getattr(model.config, name)
        figures |= {name: of for name in FIELDS if (of := getattr(model.config, name)) is not None}
    return figures


def cache(options: Namespace) -> Figures:
    """Return the content of the teacher cache, or delete its files."""
    if options.action == "clear":
        return {"teacher_cache": str(teacher_cache.cache_directory()), "bytes_freed": teacher_cache.clear()}
    return _cache_figures()


def completion(options: Namespace) -> Figures:
    """Return the script that lets a shell complete commands and options."""
    return {"shell": options.shell, "script": script(options.shell)}


def _cache_figures() -> Figures:
    files = teacher_cache.info()
    return {
        "teacher_cache": str(teacher_cache.cache_directory()),
        "teacher_cache_files": len(files),
        "teacher_cache_rows": sum(file.rows for file in files),
        "teacher_cache_bytes": sum(file.bytes for file in files),
        "hidden_cache_bytes": hidden_bytes(),
    }


def _train(trainer: Trainer, options: Namespace) -> Figures:
    try:
        return _trained(trainer, options)
    except KeyboardInterrupt:
        options.finished, options.steps = bool(trainer.results), trainer.state.global_step
        raise


def _trained(trainer: Trainer, options: Namespace) -> Figures:
    trainer.train(resume_from_checkpoint=options.resume)
    if not trainer.is_world_process_zero():
        return {}
    directory = Path(trainer.args.output_dir)
    uploaded = {} if trainer.commit_url is None else {"commit_url": trainer.commit_url}
    chosen = {"recipe": trainer.args.recipe, "chosen": trainer.args.chosen} if trainer.args.chosen else {}
    ending: Figures = {"output_dir": str(directory), **uploaded, **chosen}
    trainer.failed.attempt(
        "summary",
        lambda: ending.update(_ending(trainer, options)),
        kept=f"the finished model is in {directory}",
        again=f"measure it with `kdistill report --model {directory}`",
    )
    failed = {"failed": dict(trainer.failed)} if trainer.failed else {}
    return read_figures(directory / RESULTS_FILE) | ending | failed


def _ending(trainer: Trainer, options: Namespace) -> Figures:
    rows = trainer.train_dataset
    has_pairs = rows is not None and rows.reading is not None and rows.reading.columns.text_pair is not None
    pair_file = (options.eval or options.train) if has_pairs else None
    tokenizer, masked = trainer.processing_class, trainer.model.head == MASKED
    text = f"a {tokenizer.mask_token} text" if masked and tokenizer is not None else A_TEXT
    written = format_words(vars(options))
    commands = next_of_run(trainer.args.output_dir, pair_file=pair_file, file_format=written, text=text)
    checkpoints = RunDirectory(trainer.args.output_dir).checkpoints()
    return {
        "summary": trainer.summary(),
        "next": commands,
        "seconds": time.monotonic() - options.started,
        "checkpoints": len(checkpoints),
        "checkpoint_bytes": sum(
            file.stat().st_size for path in checkpoints for file in path.rglob("*") if file.is_file()
        ),
    }
