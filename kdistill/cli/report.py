"""`kdistill report`: rebuilds a finished run's trainer from its directory, measures, and writes the model card."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..data.files import file_and_field
from ..data.patterns import matching_paths
from ..distill.making import teachers_of
from ..hub import public_name
from ..models.auto import load_trained
from ..models.config import is_own_shape, shape_of
from ..models.configuration import CONFIG_FILE
from ..models.model import Model
from ..models.trained_with import check_threshold
from ..system.files import read_json_object
from ..tasks.registry import ChosenMetrics, task_for
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast
from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.directory import ARGS_FILE, COMMAND_FILE
from ..train.encoding import encode_for, name_of
from ..train.evaluate import refuse_threshold
from ..train.recipe import Provenance
from ..train.without_effect import RECURRING
from ..trainers import DistillationTrainer, Trainer
from .artefact_report import is_artefact, report_artefact
from .command_line import parse
from .data_files import FORMAT, data_file
from .task import TaskOptions, compute_metrics_of, head_settings, names_by_id
from .teachers import given_of, names_of_teachers, type_to_load

_COLUMNS = ("text_column", "text_pair_column", "label_column")
_NAMED = ("metrics", "dataset_name", "dataset_tags")
# Options that are inputs of the run's command; a path in them is relative to the directory where the command ran.
_INPUTS = ("teacher", "teacher_logits", "student", "train", "eval")
_LABELS = ("label_names",)
_AS_GIVEN = ("task", "teacher_weights")


def report(options: Namespace) -> dict[str, Any]:
    """Measure the run or int8 artefact in `--model`, write its model card and return the figures.

    The run's inputs are found through its command.txt; options give the new path of an input that has moved.
    """
    if is_artefact(Path(options.model)):
        return report_artefact(options)
    trainer, holdout = _trainer_of_run(options)
    return trainer.create_model_card(
        names_in(options.language),
        options.license,
        names_in(options.tags),
        without_teacher=options.without_teacher or (),
        seed_runs=options.seed_runs or (),
        holdout=holdout,
    )


def names_in(value: str | None) -> list[str]:
    """Return the names in a list with commas."""
    return [] if value is None else [name.strip() for name in value.split(",")]


def _trainer_of_run(options: Namespace) -> tuple[Trainer, Dataset | None]:
    """Return the trainer as it was at the end of the run, and the encoded rows of `--holdout`."""
    directory = Path(options.model)
    if not (directory / ARGS_FILE).is_file():
        raise FileNotFoundError(
            f"--model is {options.model!r}, which has no {ARGS_FILE}; expected the output directory of a run"
            + _if_a_model(directory)
        )
    saved = read_json_object(directory / ARGS_FILE)
    saved |= {"output_dir": str(directory), "disable_tqdm": options.json, "report_to": "none", "push_to_hub": False}
    for what in RECURRING:  # older runs kept the default number of steps beside another strategy
        if saved.get(f"{what}_strategy") != "steps":
            saved.pop(f"{what}_steps", None)
    if hasattr(options, "plots"):
        saved["plots"] = options.plots
    if options.search_trials is not None:
        saved["search_trials"] = options.search_trials
    inputs = _inputs(directory, options)
    if inputs["train"] is None:
        raise ValueError(f"{directory} has no {COMMAND_FILE} with the run's inputs; give them as --train and --eval")
    model = load_trained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    reader: PreTrainedTokenizerFast | None = tokenizer
    keep_texts, given = False, None
    args: TrainingArguments

    def encoded(name: str) -> Dataset | None:
        if inputs[name] is None:
            return None
        file = data_file(inputs[name], inputs, model.config.head)
        return encode_for(
            model.config,
            file if given is None else given.beside(file, training=name == "train"),
            reader,
            args,
            training=name == "train",
            keep_texts=keep_texts,
            **{column: inputs[column] for column in _COLUMNS},
        )

    def chosen_metrics(train: Dataset | None) -> ChosenMetrics | None:
        """Return what measures the metrics that the run's command named; None for a run that no command made."""
        if train is None or not (directory / COMMAND_FILE).is_file():
            return None
        return compute_metrics_of(model.config, train, TaskOptions(metrics=inputs["metrics"]), args)

    start, teachers = inputs["student"], inputs["teacher"] or []
    provenance = Provenance(
        started_from=_started_from(start, pruned=inputs["pruned"]),
        teacher=names_of_teachers(teachers, inputs["teacher_logits"]),
        **{name: name_of(inputs[name]) for name in ("train", "eval", "holdout")},
        dataset=inputs["dataset_name"],
        dataset_tags=names_in(inputs["dataset_tags"]),
    )
    if "alpha" in saved:
        args = DistillationTrainingArguments(**saved)
        if inputs["teacher_logits"] is not None or not teachers:
            given = given_of(inputs["teacher_logits"], inputs["train"])
        models = [_teacher(path, inputs, type_to_load(path, args.teacher_dtype)) for path in teachers]
        tokenizers = [_tokenizer_of(path) for path in teachers]
        sources: list[Any] = [*models, *([] if given is None else [given])]
        tokenizers += [] if given is None else [None]
        taught_by = teachers_of(sources, tokenizers, inputs["teacher_weights"], provenance.teachers())
        reader = taught_by.reader(tokenizer, model.config)
        keep_texts = taught_by.needs_texts(model.config, reader)
        train = encoded("train")
        trainer: Trainer = DistillationTrainer(
            model,
            args,
            teacher_model=sources,
            teacher_processing_class=tokenizers,
            teacher_weights=inputs["teacher_weights"],
            train_dataset=train,
            compute_metrics=chosen_metrics(train),
            eval_dataset=encoded("eval"),
            processing_class=tokenizer,
            provenance=provenance,
        )
    else:
        args = TrainingArguments(**saved)
        train = encoded("train")
        trainer = Trainer(
            model,
            args,
            train_dataset=train,
            compute_metrics=chosen_metrics(train),
            eval_dataset=encoded("eval"),
            processing_class=tokenizer,
            provenance=provenance,
        )
    trainer.load_finished_run()
    if options.threshold is not None:
        threshold = check_threshold("--threshold", options.threshold)
        refuse_threshold(threshold, task_for(model.config))
        trainer.recipe.set_threshold(threshold)
    return trainer, encoded("holdout")


def _if_a_model(directory: Path) -> str:
    """Return what to do with a model that no run has left, such as one of prune or another program."""
    if not (directory / CONFIG_FILE).is_file():
        return ""
    return f". A model is measured on labelled rows by `kdistill evaluate --model {directory} --data FILE`"


def _started_from(start: str | None, *, pruned: bool) -> str | None:
    if start is None or is_own_shape(start) or shape_of(start):
        return None
    return started_from_pruned(start) if pruned else public_name(start)


def started_from_pruned(model: str) -> str:
    """Return what a model card says that a model of `kdistill prune --rounds` started from."""
    return f"{public_name(model)}, pruned"


def _teacher(path: str, inputs: Mapping[str, Any], dtype: str | None) -> Model:
    settings = head_settings(path, TaskOptions(task=inputs["task"]))
    return load_trained(path, dtype=dtype, keep_weights=False, **_labels(inputs["label_names"]), **settings)


def _tokenizer_of(teacher: str) -> PreTrainedTokenizerFast | None:
    """Return the teacher's tokenizer; None for the directory of a model alone, with which Python can make a run."""
    try:
        return AutoTokenizer.from_pretrained(teacher)
    except FileNotFoundError:
        return None


def _labels(names: str | None) -> dict[str, Any]:
    return {} if names is None else {"id2label": names_by_id(names)}


def _in_directory(directory: Path, path: str) -> str:
    """Return a path that is relative to `directory` as one that is not, if it exists there."""
    first = Path(matching_paths(str(directory / path))[0])  # of several that a pattern stands for
    return str(directory / path) if file_and_field(first)[0].exists() else path


def _inputs(directory: Path, options: Namespace) -> dict[str, Any]:
    """Return the run's inputs by option: from this command's options, else from its command.txt, else None."""
    inputs: dict[str, Any] = dict.fromkeys((*_INPUTS, *_COLUMNS, *FORMAT, *_NAMED, *_LABELS, *_AS_GIVEN))
    pruned = False
    if (directory / COMMAND_FILE).is_file():
        remark, _, command = os.fsdecode((directory / COMMAND_FILE).read_bytes()).strip().partition("\n")
        run_options = parse(shlex.split(command)[1:])
        run_directory = Path(remark.partition(", in ")[2])
        if run_options.command == "prune":  # in rounds
            pruned, run_options.train = True, run_options.data
            run_options.teacher = [run_options.teacher or run_options.model]
        inputs |= {name: getattr(run_options, name, None) for name in inputs}
        for name in (*_INPUTS, *_LABELS):
            given = inputs[name]
            if isinstance(given, list):
                inputs[name] = [_in_directory(run_directory, path) for path in given]
            elif given is not None:
                inputs[name] = _in_directory(run_directory, given)
        inputs["student"] = inputs["student"] or getattr(run_options, "model", None)
    inputs |= {name: of for name in inputs if (of := getattr(options, name, None)) is not None}
    return inputs | {"holdout": options.holdout, "pruned": pruned}
