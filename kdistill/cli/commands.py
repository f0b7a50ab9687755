"""The commands: each takes its parsed options and returns its figures, which `main` prints."""

from __future__ import annotations

import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bench.bench import bench as measure
from ..bench.bench import synthetic_rows
from ..data.dataset import Dataset
from ..data.files import DataFile
from ..data.ragged import Ragged, units
from ..data.sentences import Sentences
from ..data.table import Table
from ..data.windows import Windows
from ..data.words import words_of
from ..distill import cache as teacher_cache
from ..distill.hidden_cache import hidden_bytes
from ..doctor.examination import Examination, examine, warn_at_start
from ..models.auto import AutoConfig, load_model, load_trained
from ..models.classes import BertForSequenceClassification
from ..models.config import BertConfig, shape_of
from ..models.configuration import Config, read_config
from ..models.head_names import ENCODER, LABELLED, MASKED, SEQUENCE, SPAN, TOKEN, named_head
from ..models.heads import MaskedLanguageModel
from ..models.layer_shapes import FIELDS
from ..models.trained_with import check_threshold
from ..report.per_class import PerClass, class_rows, confused_rows
from ..system.output import check_output, open_output
from ..system.progress import Progress
from ..system.threads import show_config
from ..system.unicode import encodable
from ..tasks.answer_predictions import AnswerPredictions
from ..tasks.embedding_predictions import EmbeddingPredictions
from ..tasks.fill_mask_pipeline import TOP_K, FillMaskPipeline
from ..tasks.predictions import ALL_DIGITS, DIGITS, predictions_of
from ..tasks.question_answering import answers_of, rules_of
from ..tasks.registry import task_for, task_option
from ..tasks.token_predictions import TokenPredictions
from ..tasks.word_predictions import WordPredictions
from ..text.classes import AutoTokenizer
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.callbacks import TrainerCallback
from ..train.default_callbacks import ProgressCallback
from ..train.directory import RESULTS_FILE, RunDirectory
from ..train.encoding import encode_for, trained_on
from ..train.recipe import require_labels
from ..train.state import read_figures
from ..trainers import Trainer
from .completion import script
from .data_files import format_words, rows_to_predict, single_texts, texts_of
from .distillation import parts_of
from .ending import A_TEXT, next_of_run
from .export import export
from .inputs import (
    check_output_dir,
    columns_of,
    dataset_of,
    dropout_of,
    provenance_of,
    read_arguments,
    rows_file,
    rows_to_learn,
    task_of,
)
from .label import label
from .prune import prune
from .quantize import quantize
from .report import report
from .search import search
from .serve import serve
from .task import (
    check_labels_are_meant,
    check_trainable,
    compute_metrics_of,
    head_settings,
    head_to_learn,
    labels_to_learn,
    with_problem_type,
)
from .teachers import inputs_of

__all__ = [
    "bench",
    "cache",
    "completion",
    "distill",
    "doctor",
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
    head = head_to_learn(content, task_of(options), lambda: rows_file(options.train, options).table)
    if head == ENCODER:
        raise ValueError(
            f"--task is {task_option(head)}, and embeddings have no labels that finetune could learn; `kdistill "
            "distill` trains a student on a teacher's embeddings"
        )
    config = config.with_head(head)
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
        args = DistillationTrainingArguments(disable_tqdm=True)
    examine(examination, parts_of(options, args))
    return examination.figures()


def evaluate(options: Namespace) -> Figures:
    """Measure `--model` on labelled rows, with `--per-class` each of its classes too."""
    trainer = _measuring_trainer(options)
    config = trainer.model.config
    rows = rows_file(options.data, options, config.head)
    check_labels_are_meant(config, task_of(options), options.model, lambda: rows.table)
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


def predict(options: Namespace) -> Figures:
    """Write the prediction for every row, as TSV: label and probability of each label; for regression, the number.

    With `--json`, texts that are typed or piped in have their predictions among the figures instead.
    """
    for option, value, most in (("--top-k", options.top_k, None), ("--digits", options.digits, ALL_DIGITS)):
        if value is not None and not 1 <= value <= (most or value):
            expected = "at least 1" if most is None else f"1 to {most}"
            raise ValueError(f"{option} is {value}; expected {expected}")
    threshold = None if options.above is None else check_threshold("--threshold", options.above)
    if options.output is not None:
        inputs = [path for path in (options.data, options.model) if path is not None]
        check_output("--output", options.output, inputs=inputs)
    trainer = _measuring_trainer(options)
    if options.digits is not None and (trainer.model.head != SEQUENCE or (options.output or "").endswith(".jsonl")):
        warnings.warn("--digits has no effect here: JSON has all digits", stacklevel=2)
    if task_for(trainer.model.config).at_threshold is not None and threshold is not None:
        trainer.recipe.set_threshold(threshold)
    config = trainer.model.config
    if config.head == TOKEN:
        return _predict_tags(trainer, options)
    if config.head == SPAN:
        return _predict_answers(trainer, options)
    if config.head == MASKED:
        return _predict_words(trainer, options)
    if config.head == ENCODER:
        return _predict_embeddings(trainer, options)
    names = [encodable(config.id2label[index]) for index in range(config.num_labels)]
    answer = partial(predictions_of, task_for(config), names=names, threshold=threshold, top_k=options.top_k)
    answer(logits=np.zeros((1, config.num_labels), np.float32))  # refuses options before the work
    source = rows_to_predict(options, config.trained_with)
    dataset = encode_for(config, source, trainer.processing_class, trainer.args, **columns_of(options))
    output = trainer.predict(dataset)
    predictions = answer(logits=units(output.predictions), texts=texts_of(source, dataset))
    figures: Figures = {"n": len(dataset), "output": options.output, "dtype": str(trainer.model.dtype)}
    figures["runtime"] = output.metrics["test_runtime"]
    if options.output is not None:
        with open_output(options.output) as file:
            if options.output.endswith(".jsonl"):
                predictions.write_json_lines(file)
            else:
                predictions.write_tsv(file, options.digits or DIGITS)
    elif options.json and not isinstance(source, DataFile):
        figures["predictions"] = predictions.as_pipeline()
    else:
        predictions.write_tsv(sys.stdout, options.digits or DIGITS)
    return figures


def _predict_tags(trainer: Trainer, options: Namespace) -> Figures:
    """Write the tags of the words of every row, and the spans that they mark, as JSON lines."""
    config = trainer.model.config
    given = {"--top-k": options.top_k, "--threshold": options.above}
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option} is {value}, and the model gives each word one tag; leave it out")
    if options.text_pair is not None:
        raise ValueError("--text-pair is given, and the model tags the words of single texts; leave it out")
    _refuse_table(options, "tags")
    source = rows_to_predict(options, config.trained_with, config.head)
    table = source.table if isinstance(source, DataFile) else source
    columns = columns_of(options)
    dataset = encode_for(config, table, trainer.processing_class, trainer.args, **columns)
    if not isinstance(dataset.windows, Windows):
        raise ValueError(f"{table.source} holds token ids, which have no words; expected a column of words or texts")
    del columns["text_pair_column"]
    rows = words_of(table, **columns, trained_on=trained_on(config))
    output = trainer.predict(dataset)
    assert isinstance(output.predictions, Ragged)
    names = [encodable(config.id2label[index]) for index in range(config.num_labels)]
    predictions = TokenPredictions(names, output.predictions, rows, dataset.windows)
    figures: Figures = {"n": len(rows), "output": options.output, "dtype": str(trainer.model.dtype)}
    figures["runtime"] = output.metrics["test_runtime"]
    if _write_json_lines(predictions, options, source):
        return figures
    return figures | {"predictions": [record["entities"] for record in predictions.records()]}


def _predict_answers(trainer: Trainer, options: Namespace) -> Figures:
    """Write the answer to every question as JSON lines."""
    config = trainer.model.config
    _refuse_table(options, "answers")
    rules = rules_of(config.trained_with)
    if options.top_k is not None and options.top_k > rules.n_best:
        raise ValueError(f"--top-k is {options.top_k}; expected at most --n-best, which is {rules.n_best}")
    source = rows_to_predict(options, config.trained_with, config.head)
    dataset = encode_for(config, source, trainer.processing_class, trainer.args, **columns_of(options))
    output = trainer.predict(dataset)
    assert isinstance(output.predictions, Ragged)
    answers = answers_of(output.predictions, dataset.targets, rules)
    predictions = AnswerPredictions(dataset.targets.spans.questions.ids, answers, options.top_k)
    figures: Figures = {"n": len(answers), "output": options.output, "dtype": str(trainer.model.dtype)}
    figures["runtime"] = output.metrics["test_runtime"]
    if _write_json_lines(predictions, options, source):
        return figures
    return figures | {"predictions": list(predictions.records())}


def _predict_words(trainer: Trainer, options: Namespace) -> Figures:
    """Write the words that are expected under the masks of every text as JSON lines."""
    model, tokenizer = trainer.model, trainer.processing_class
    assert isinstance(model, MaskedLanguageModel)
    assert tokenizer is not None
    if options.above is not None:
        raise ValueError(f"--threshold is {options.above}, and the model fills each mask; leave it out")
    if options.text_pair is not None:
        raise ValueError("--text-pair is given, and the model fills the masks of single texts; leave it out")
    _refuse_table(options, "words")
    source = rows_to_predict(options, model.config.trained_with)
    texts = single_texts(source, **columns_of(options))
    size, length = trainer.args.per_device_eval_batch_size, trainer.args.max_length
    cut = {} if length is None else {"max_length": length, "truncation": True}
    started = time.monotonic()
    fill = FillMaskPipeline(model, tokenizer, top_k=options.top_k or TOP_K, batch_size=size, tokenizer_kwargs=cut)
    filled = fill(texts)
    predictions = WordPredictions([filled] if len(texts) == 1 else filled)
    figures: Figures = {"n": len(texts), "output": options.output, "dtype": str(trainer.model.dtype)}
    figures["runtime"] = time.monotonic() - started
    if _write_json_lines(predictions, options, source):
        return figures
    return figures | {"predictions": [record["words"] for record in predictions.records()]}


def _predict_embeddings(trainer: Trainer, options: Namespace) -> Figures:
    """Write the embedding of every row as JSON lines, or all of them as a matrix of NumPy."""
    config = trainer.model.config
    given = {"--top-k": options.top_k, "--threshold": options.above}
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option} is {value}, and the model gives each text an embedding; leave it out")
    _refuse_table(options, "embeddings")
    source = rows_to_predict(options, config.trained_with, config.head)
    dataset = encode_for(config, source, trainer.processing_class, trainer.args, **columns_of(options))
    output = trainer.predict(dataset)
    assert isinstance(dataset.windows, Sentences)
    assert isinstance(output.predictions, np.ndarray)
    predictions = EmbeddingPredictions.of(output.predictions, dataset.windows, texts_of(source, dataset))
    figures: Figures = {"n": len(predictions.values), "output": options.output, "dtype": str(trainer.model.dtype)}
    figures["runtime"] = output.metrics["test_runtime"]
    if options.output is not None and options.output.endswith(".npy"):
        with open_output(options.output, binary=True) as file:
            predictions.write_npy(file)
        return figures
    if _write_json_lines(predictions, options, source):
        return figures
    return figures | {"predictions": predictions.values.tolist()}


def _refuse_table(options: Namespace, what: str) -> None:
    """Raise ValueError for an output that by its name is to be a table."""
    if options.output is not None and options.output.endswith((".tsv", ".csv")):
        raise ValueError(f"--output is {options.output!r}; {what} are written as JSON lines: expected a name in .jsonl")


def _write_json_lines(
    predictions: TokenPredictions | AnswerPredictions | WordPredictions | EmbeddingPredictions,
    options: Namespace,
    source: DataFile | Table,
) -> bool:
    """Write predictions to `--output` or stdout; return False where `--json` is to have those of `--text` instead."""
    if options.output is not None:
        with open_output(options.output) as file:
            predictions.write_json_lines(file)
    elif options.json and not isinstance(source, DataFile):
        return False
    else:
        predictions.write_json_lines(sys.stdout)
    return True


def bench(options: Namespace) -> Figures:
    """Measure how fast `--model` evaluates here, beside other runtimes when they are installed."""
    shape = shape_of(options.model)
    if shape is not None and options.data is not None:
        raise ValueError(
            f"--data is given, but the shape {options.model} has no tokenizer; expected a model to read it"
        )
    for name in ("rows", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at least 1")
    dtypes = options.dtype or ["float32"]
    if shape is None:
        model = load_model(options.model, language_models=True)
        if model.quantization is not None:  # its weights in float32 are for the other programs
            dtypes = options.dtype or [model.quantization.dtype]
            model = load_model(options.model, language_models=True, dtype="float32")
    else:
        model = BertForSequenceClassification(BertConfig(**shape))
    if model.config.embeds or model.head == MASKED:
        work = "embeds texts" if model.config.embeds else "predicts hidden words"
        raise ValueError(
            f"--model {options.model} {work}, and bench compares logits of texts with those of other programs; measure "
            f"its shape instead: --model {_shape_of(model.config)}"
        )
    if options.data is None:
        dataset = synthetic_rows(model.config, options.rows)
    else:
        args = TrainingArguments(disable_tqdm=True)
        dataset = dataset_of(options.data, AutoTokenizer.from_pretrained(options.model), model.config, args, options)
        dataset = dataset.take(np.arange(min(options.rows, len(dataset))))
    with Progress("bench", unit="rounds", quiet=options.json) as progress:
        figures = measure(
            model, dataset, batch_size=options.batch_size, dtypes=[*dict.fromkeys(dtypes)], progress=progress
        )
    return {"model": options.model} | figures


def _shape_of(config: Config) -> str:
    return f"L{config.num_hidden_layers}-H{config.hidden_size}-A{config.num_attention_heads}"


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


def _measuring_trainer(options: Namespace) -> Trainer:
    """Return a trainer of `--model` that only measures."""
    args = read_arguments(TrainingArguments, options)
    model = load_trained(options.model, dtype=options.dtype, **head_settings(options.model, task_of(options))).freeze()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model.config = with_problem_type(model.config, task_of(options), "the model")
    return Trainer(model, args, processing_class=tokenizer)


def _train(trainer: Trainer, options: Namespace) -> Figures:
    try:
        return _trained(trainer, options)
    except KeyboardInterrupt:
        options.finished, options.steps = bool(trainer.results), trainer.state.global_step
        raise


def _trained(trainer: Trainer, options: Namespace) -> Figures:
    trainer.train(resume_from_checkpoint=options.resume)
    directory = Path(trainer.args.output_dir)
    uploaded = {} if trainer.commit_url is None else {"commit_url": trainer.commit_url}
    ending: Figures = {"output_dir": str(directory), **uploaded}
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
