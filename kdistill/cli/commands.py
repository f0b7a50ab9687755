"""The commands: each takes its parsed options and returns its figures, which `main` prints."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import __version__
from ..bench.bench import bench as measure
from ..bench.bench import synthetic_rows
from ..data.columns import NO_COLUMNS, Rows, read_rows
from ..data.dataset import Dataset
from ..data.files import DataFile
from ..data.label_names import is_unnamed
from ..distill import cache as teacher_cache
from ..distill.teachers import read_as_teacher
from ..doctor.examination import Examination, examine, warn_at_start
from ..hub import public_name
from ..models.classes import BertForSequenceClassification, load_model
from ..models.config import BertConfig, shape_of
from ..models.model import Model
from ..models.trained_with import check_threshold
from ..report.figures import check_pictures
from ..report.per_class import PerClass, class_rows, confused_rows
from ..report.report import Subject
from ..report.summary import compare_search
from ..search.study import BestRun, best_run_of, import_optuna, outcomes
from ..system.files import atomic_write
from ..system.output import check_output, open_output
from ..system.progress import Progress
from ..system.threads import show_config
from ..system.unicode import encodable
from ..tasks.predictions import ALL_DIGITS, predictions_of
from ..tasks.registry import task_for
from ..text.tokenizer import AutoTokenizer, BertTokenizer
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.directory import RESULTS_FILE, RunDirectory
from ..train.encoding import encode_for, name_of, trained_on
from ..train.recipe import Provenance, require_labels
from ..train.state import read_figures
from ..train.without_effect import warn_of_arguments_without_effect
from ..trainers import DistillationTrainer, Trainer
from .command_line import words_for
from .completion import script
from .data_files import FORMAT, data_file, format_words, rows_to_predict, texts_of
from .ending import as_value, next_of_run
from .options import RECIPE, SEARCH_OPTIONS
from .report import names_in, report
from .task import TaskOptions, compute_metrics_of, labels_to_learn, names_by_id, with_problem_type

__all__ = [
    "bench",
    "cache",
    "completion",
    "distill",
    "doctor",
    "evaluate",
    "finetune",
    "info",
    "predict",
    "report",
    "search",
]

Figures = dict[str, Any]
_Arguments = TypeVar("_Arguments", bound=TrainingArguments)
BEST_RUN_FILE = "best_run.toml"
_BEST_RUN_MARK = "# trial "


def finetune(options: Namespace) -> Figures:
    """Fine-tune `--model` on labelled rows."""
    args = read_arguments(TrainingArguments, options)
    _check_output_dir(args, options, sources=[options.model])
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    config = BertConfig.from_pretrained(options.model)
    labels = labels_to_learn(
        config,
        _task(options),
        lambda: read_rows(_data_file(options.train, options), **_columns(options), trained_on=trained_on(config)),
        replace=options.ignore_mismatched_sizes,
    )
    model = load_model(
        options.model,
        id2label=labels,
        problem_type=options.problem_type,
        ignore_mismatched_sizes=options.ignore_mismatched_sizes,
        seed=args.seed,
        **_dropout(options),
    )
    train = _dataset(options.train, tokenizer, model.config, args, options)
    trainer = Trainer(
        model,
        args,
        train_dataset=train,
        compute_metrics=compute_metrics_of(model.config, train, _task(options), args),
        eval_dataset=None if options.eval is None else _dataset(options.eval, tokenizer, model.config, args, options),
        processing_class=tokenizer,
        provenance=_provenance(options, started_from=options.model),
    )
    return _train(trainer, options)


def distill(options: Namespace) -> Figures:
    """Train `--student` on the labels and on the probabilities that `--teacher` gives to them."""
    args = read_arguments(DistillationTrainingArguments, options)
    _check_output_dir(args, options, sources=[options.teacher, options.student])
    trainer = _Distillation(options, args).trainer()
    if not options.resume:
        warn_at_start(trainer)
    return _train(trainer, options)


def search(options: Namespace) -> Figures:
    """Search for the hyperparameters with which `distill` trains the best student."""
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the command shows the trials itself
    args = read_arguments(DistillationTrainingArguments, options)
    with RunDirectory(args.output_dir).made():  # what cannot be written shows before any work
        return _search(args, options)


def _search(args: DistillationTrainingArguments, options: Namespace) -> Figures:
    path = Path(args.output_dir, BEST_RUN_FILE)
    if os.path.lexists(path) and not _is_best_run(path):
        raise FileExistsError(f"{path} exists, and no search wrote it; move it, or choose another --output-dir")
    trainer = _Distillation(options, args).trainer(for_search=True)
    given = {name: getattr(options, name) for name in SEARCH_OPTIONS if hasattr(options, name)}
    try:
        best = trainer.hyperparameter_search(**given)
    except KeyboardInterrupt:
        if trainer.study is not None:
            options.interrupted = _kept_of_search(path, trainer, args)
        raise
    assert isinstance(best, BestRun)
    assert isinstance(best.objective, float)  # the command has one direction
    objective = best.objective
    _write_best_run(path, best, args)
    subject = Subject.of_run(args.output_dir, trainer.recipe, trainer.state, {})
    config = ["--output-dir", as_value(f"{Path(args.output_dir)}-best"), "--config", as_value(str(path))]
    given_too = words_for("distill", options, but=("output_dir", *best.hyperparameters))
    return {
        **best._asdict(),
        "trials": outcomes(trainer.study.trials),
        "best_run": str(path),
        "summary": compare_search(subject, objective, args.metric_for_best_model),
        "next": [["kdistill", "distill", *given_too, *config]],
        "seconds": time.monotonic() - options.started,
    }


def _kept_of_search(path: Path, trainer: DistillationTrainer, args: DistillationTrainingArguments) -> Figures:
    """Write the best run so far of a search that was interrupted, and return how its trials ended."""
    if not args.search_trials:  # a study without trials is deleted
        return {}
    trials = outcomes(trainer.study.trials)
    if not trials.get("complete"):
        return {"trials": trials}
    best = best_run_of(trainer.study)
    assert isinstance(best, BestRun)
    _write_best_run(path, best, args)
    return {"trials": trials, "best_run": str(path)}


def _write_best_run(path: Path, best: BestRun, args: DistillationTrainingArguments) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in best.hyperparameters.items()]
    lines.insert(0, f"{_BEST_RUN_MARK}{best.run_id}: {best.objective}")
    lines.append(f"search_trials = {args.search_trials}  # for the model card; leave it out with other evaluation rows")
    atomic_write(path, "\n".join([*lines, ""]).encode())


def _is_best_run(path: Path) -> bool:
    """Return whether the file is a best_run.toml of a search, which the next one may replace."""
    return path.is_file() and path.read_bytes().startswith(_BEST_RUN_MARK.encode())


class _Distillation:
    """The parts of a distillation, each made when it is first asked for, so that a doctor can look at every one."""

    def __init__(self, options: Namespace, args: DistillationTrainingArguments) -> None:
        self.args = args
        self._options = options

    @property
    def paths(self) -> dict[str, str]:
        """The files of rows, by "train" and "eval"."""
        files = {"train": self._options.train, "eval": self._options.eval}
        return {which: path for which, path in files.items() if path is not None}

    @cached_property
    def teacher(self) -> Model:
        """The teacher, frozen, with the names of its labels that `--label-names` gives."""
        options = self._options
        names = options.label_names
        teacher = load_model(options.teacher, **({} if names is None else {"id2label": names_by_id(names)}))
        teacher.config = with_problem_type(teacher.config, _task(options), "the teacher")
        return teacher.freeze()

    @cached_property
    def teacher_tokenizer(self) -> BertTokenizer:
        """The teacher's tokenizer."""
        return AutoTokenizer.from_pretrained(self._options.teacher)

    @cached_property
    def _loaded_student(self) -> tuple[Model, BertTokenizer] | None:
        """The student and its tokenizer when it is a checkpoint; None when it is a shape."""
        if shape_of(self._options.student) is not None:
            return None
        student, tokenizer = _load_student(self._options, self.teacher, self.teacher_tokenizer, self.args.seed)
        student.config = read_as_teacher(student.config, self.teacher.config)
        return student, tokenizer

    @property
    def tokenizer(self) -> BertTokenizer:
        """The student's tokenizer."""
        return self.teacher_tokenizer if self._loaded_student is None else self._loaded_student[1]

    @cached_property
    def config(self) -> BertConfig:
        """The student's configuration."""
        if self._loaded_student is not None:
            return self._loaded_student[0].config
        shape = shape_of(self._options.student)
        assert shape is not None
        return self.teacher.config.replace(**shape, **_dropout(self._options))

    @cached_property
    def train(self) -> Dataset:
        """The encoded rows to train on."""
        return _dataset(self._options.train, self.tokenizer, self.config, self.args, self._options)

    @cached_property
    def eval(self) -> Dataset | None:
        """The encoded rows to measure on."""
        path = self._options.eval
        return None if path is None else _dataset(path, self.tokenizer, self.config, self.args, self._options)

    def read(self, which: str) -> Rows:
        """Return the rows of "train" or "eval" as they are in the file."""
        columns = _columns(self._options)
        return read_rows(_data_file(self.paths[which], self._options), **columns, trained_on=NO_COLUMNS)

    def check_output_dir(self) -> None:
        """Raise what the run would for its output directory, without creating it."""
        sources = [self._options.teacher, self._options.student]
        _check_output_dir(self.args, self._options, sources=sources)

    def trainer(self, *, for_search: bool = False) -> DistillationTrainer:
        """Return the trainer; for a search, one that copies the student for each trial."""
        options, args, teacher = self._options, self.args, self.teacher
        _ = self.teacher_tokenizer, self.config, self.train
        if self._loaded_student is not None:
            student = self._loaded_student[0]
        else:
            token_counts = np.bincount(self.train.ids, minlength=self.config.vocab_size)
            student = type(teacher).from_teacher(teacher, self.config, token_counts=token_counts, seed=args.seed)
        return DistillationTrainer(
            None if for_search else student,
            args,
            model_init=partial(copy.deepcopy, student) if for_search else None,
            teacher_model=teacher,
            teacher_processing_class=self.teacher_tokenizer,
            train_dataset=self.train,
            compute_metrics=compute_metrics_of(teacher.config, self.train, _task(options), args),
            eval_dataset=self.eval,
            processing_class=self.tokenizer,
            provenance=_provenance(options, started_from=None if self._loaded_student is None else options.student),
        )


def doctor(options: Namespace) -> Figures:
    """Look at a run of `distill` before it is made: what would fail or mislead, and what to do about it."""
    examination, options.disable_tqdm = Examination(), True
    args = examination.attempt("arguments", lambda: read_arguments(DistillationTrainingArguments, options))
    if args is None:
        args = DistillationTrainingArguments(disable_tqdm=True)
    examine(examination, _Distillation(options, args))
    return examination.figures()


def evaluate(options: Namespace) -> Figures:
    """Measure `--model` on labelled rows, with `--per-class` each of its classes too."""
    trainer = _measuring_trainer(options)
    config, rows = trainer.model.config, _data_file(options.data, options)
    dataset = encode_for(config, rows, trainer.processing_class, trainer.args, **_columns(options))
    trainer.compute_metrics = compute_metrics_of(config, dataset, _task(options))
    if options.per_class:
        return _evaluate_per_class(trainer, dataset)
    return _without_prefix(trainer.evaluate(dataset))


def _evaluate_per_class(trainer: Trainer, dataset: Dataset) -> Figures:
    require_labels(dataset)
    config = trainer.model.config
    task = task_for(config, dataset.labels)
    if not task.names_labels:
        raise ValueError(f"--per-class is given, and a model for {task.name} gives numbers; leave it out")
    output = trainer.predict(dataset, metric_key_prefix="eval")
    classes = PerClass.of(task, output.predictions, dataset.labels)
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
    if task_for(trainer.model.config).threshold is not None and threshold is not None:
        trainer.recipe.set_threshold(threshold)
    config = trainer.model.config
    names = [encodable(config.id2label[index]) for index in range(config.num_labels)]
    answer = partial(predictions_of, task_for(config), names=names, threshold=threshold, top_k=options.top_k)
    answer(logits=np.zeros((1, config.num_labels), np.float32))  # refuses options before the work
    source = rows_to_predict(options, config.trained_with)
    dataset = encode_for(config, source, trainer.processing_class, trainer.args, **_columns(options))
    output = trainer.predict(dataset)
    predictions = answer(logits=output.predictions, texts=texts_of(source, dataset))
    figures: Figures = {"n": len(dataset), "output": options.output, "runtime": output.metrics["test_runtime"]}
    if options.output is not None:
        with open_output(options.output) as file:
            if options.output.endswith(".jsonl"):
                predictions.write_json_lines(file)
            else:
                predictions.write_tsv(file, options.digits)
    elif options.json and not isinstance(source, DataFile):
        figures["predictions"] = predictions.as_pipeline()
    else:
        predictions.write_tsv(sys.stdout, options.digits)
    return figures


def bench(options: Namespace) -> Figures:
    """Measure how fast `--model` evaluates here, beside PyTorch and ONNX Runtime when they are installed."""
    shape = shape_of(options.model)
    if shape is not None and options.data is not None:
        raise ValueError(
            f"--data is given, but the shape {options.model} has no tokenizer; expected a model to read it"
        )
    for name in ("rows", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at least 1")
    model = load_model(options.model) if shape is None else BertForSequenceClassification(BertConfig(**shape))
    if options.data is None:
        dataset = synthetic_rows(model.config, options.rows)
    else:
        args = TrainingArguments(disable_tqdm=True)
        dataset = _dataset(options.data, AutoTokenizer.from_pretrained(options.model), model.config, args, options)
        batch, labels = dataset.batch(np.arange(min(options.rows, len(dataset))))
        dataset = Dataset(*batch, labels)
    with Progress("bench", unit="rounds", quiet=options.json) as progress:
        figures = measure(model, dataset, batch_size=options.batch_size, progress=progress)
    return {"model": options.model} | figures


def info(options: Namespace) -> Figures:
    """Return versions, CPU, threads and the state of the teacher cache; with `--model`, also the model's shape."""
    figures: Figures = dict(show_config())
    figures |= _cache_figures()
    if options.model is not None:
        model = load_model(options.model)
        figures["model"] = options.model
        figures["num_parameters"] = model.num_parameters()
        figures["labels"] = list(model.config.id2label.values())
        for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"):
            figures[name] = getattr(model.config, name)
    return figures


def cache(options: Namespace) -> Figures:
    """Return the content of the teacher cache, or delete its files."""
    if options.action == "clear":
        return {"teacher_cache": str(teacher_cache.cache_directory()), "bytes_freed": teacher_cache.clear()}
    return _cache_figures()


def completion(options: Namespace) -> Figures:
    """Return the script that lets a shell complete commands and options."""
    return {"shell": options.shell, "script": script(options.shell)}


def read_arguments(cls: type[_Arguments], options: Namespace) -> _Arguments:
    """Return the training arguments given as options; the others keep their defaults."""
    given = {field.name: getattr(options, field.name) for field in fields(cls) if hasattr(options, field.name)}
    if options.json:
        given["disable_tqdm"] = True
    given.setdefault("recipe", RECIPE)
    args = cls(**given)
    warn_of_arguments_without_effect(args, given, stacklevel=2, of_a_command=True)
    if args.plots:
        check_pictures()
    return args


def _cache_figures() -> Figures:
    files = teacher_cache.info()
    return {
        "teacher_cache": str(teacher_cache.cache_directory()),
        "teacher_cache_files": len(files),
        "teacher_cache_rows": sum(file.rows for file in files),
        "teacher_cache_bytes": sum(file.bytes for file in files),
    }


def _check_output_dir(args: TrainingArguments, options: Namespace, sources: list[str]) -> None:
    """Raise, before any work, for an output directory that holds a run or model, or an input of this command.

    A checkpoint of a run is deleted with the run that is overwritten, or later, when newer ones are kept.
    """
    output = Path(args.output_dir).resolve()
    own = [output, *RunDirectory(output).checkpoints()] if output.is_dir() else []
    for source in sources:
        if Path(source).resolve() in own:
            raise ValueError(
                f"--output-dir is {args.output_dir!r}, and this command reads {source}; choose another directory"
            )
    RunDirectory(args.output_dir).check(resume=options.resume, overwrite=args.overwrite_output_dir)


def _load_student(
    options: Namespace, teacher: Model, teacher_tokenizer: BertTokenizer, seed: int
) -> tuple[Model, BertTokenizer]:
    """Load a student from a checkpoint, with the teacher's labels where its labels are unnamed or may be replaced."""
    replaced = options.ignore_mismatched_sizes or is_unnamed(BertConfig.from_pretrained(options.student).id2label)
    student = load_model(
        options.student,
        id2label=teacher.config.id2label if replaced else None,
        ignore_mismatched_sizes=options.ignore_mismatched_sizes,
        seed=seed,
        **_dropout(options),
    )
    try:
        return student, AutoTokenizer.from_pretrained(options.student)
    except FileNotFoundError:
        return student, teacher_tokenizer  # teacher and student must share their vocabulary anyway


def _dropout(options: Namespace) -> dict[str, Any]:
    """Return the given options that replace the config's dropout."""
    given = {name: getattr(options, name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    return {name: p for name, p in given.items() if p is not None}


def _columns(options: Namespace) -> dict[str, str | None]:
    return {name: getattr(options, name) for name in ("text_column", "text_pair_column", "label_column")}


def _task(options: Namespace) -> TaskOptions:
    return TaskOptions(**{name: getattr(options, name, None) for name in TaskOptions._fields})


def _dataset(
    path: str, tokenizer: BertTokenizer, config: BertConfig, args: TrainingArguments, options: Namespace
) -> Dataset:
    return encode_for(config, _data_file(path, options), tokenizer, args, **_columns(options))


def _data_file(path: str, options: Namespace) -> DataFile:
    return data_file(path, {name: getattr(options, name) for name in FORMAT})


def _measuring_trainer(options: Namespace) -> Trainer:
    """Return a trainer of `--model` that only measures."""
    args = read_arguments(TrainingArguments, options)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = load_model(options.model)
    model.config = with_problem_type(model.config, _task(options), "the model")
    model.freeze()
    return Trainer(model, args, processing_class=tokenizer)


def _provenance(options: Namespace, *, started_from: str | None) -> Provenance:
    """Return the names of the inputs for the model card, and the command that repeats the run."""
    teacher: str | None = getattr(options, "teacher", None)
    return Provenance(
        started_from=None if started_from is None else public_name(started_from),
        teacher=None if teacher is None else public_name(teacher),
        train=name_of(options.train),
        eval=name_of(options.eval),
        dataset=getattr(options, "dataset_name", None),
        dataset_tags=names_in(getattr(options, "dataset_tags", None)),
        command=f"# kdistill {__version__}, in {Path.cwd()}\n{options.command_line}",
    )


def _train(trainer: Trainer, options: Namespace) -> Figures:
    trainer.train(resume_from_checkpoint=options.resume)
    directory = Path(trainer.args.output_dir)
    uploaded = {} if trainer.commit_url is None else {"commit_url": trainer.commit_url}
    ending: Figures = {"output_dir": str(directory), **uploaded}
    trainer.failed.attempt(
        "summary",
        lambda: ending.update(_ending(trainer, options)),
        kept_in=str(directory),
        again=f"measure it with `kdistill report --model {directory}`",
    )
    failed = {"failed": dict(trainer.failed)} if trainer.failed else {}
    return read_figures(directory / RESULTS_FILE) | ending | failed


def _ending(trainer: Trainer, options: Namespace) -> Figures:
    rows = trainer.train_dataset
    has_pairs = rows is not None and rows.reading is not None and rows.reading.columns.text_pair is not None
    pair_file = (options.eval or options.train) if has_pairs else None
    commands = next_of_run(trainer.args.output_dir, pair_file=pair_file, file_format=format_words(vars(options)))
    checkpoints = RunDirectory(trainer.args.output_dir).checkpoints()
    return {
        "summary": trainer.summary(),
        "next": commands,
        "seconds": time.monotonic() - options.started,
        "checkpoints": len(checkpoints),
        "checkpoint_bytes": sum(file.stat().st_size for path in checkpoints for file in path.iterdir()),
    }
