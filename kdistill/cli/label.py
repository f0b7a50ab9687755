"""`kdistill label`: what a teacher answers, written beside the rows as data that `distill` learns from."""

from __future__ import annotations

import time
from argparse import Namespace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..data.dataset import Dataset
from ..data.files import DataFile
from ..data.label_names import is_unnamed
from ..data.ragged import Ragged, starts_of
from ..data.sentences import Sentences
from ..data.table import Table
from ..data.teacher_files import LabelledRows, check_has_no_answers, ending_of
from ..data.teacher_rows import word_counts
from ..data.windows import Windows
from ..distill.cache import cached_rows, teacher_logits
from ..distill.sources import weights_of_teachers
from ..hub import public_name
from ..losses.mixing import mixed_answers
from ..models.auto import load_trained
from ..models.head_names import MASKED, SPAN, TOKEN
from ..models.model import Model
from ..system.output import check_output
from ..system.progress import Progress
from ..tasks.base import Task
from ..tasks.registry import task_for, task_option
from ..text.classes import AutoTokenizer
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import encode_for
from .inputs import columns_of, read_arguments, rows_file, task_of
from .task import check_labels_are_meant, head_settings, names_by_id, with_problem_type

Figures = dict[str, Any]


class _Answers(NamedTuple):
    """What a teacher answered for the rows of a file.

    Attributes:
        values: float32 (parts, outputs), NaN for a part without an answer.
        counts: how many parts each row has: its words, or the two texts of a pair; None: each row is one.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64] | None

    def by_row(self) -> list[Any]:
        """Return the answer of each row as numbers, or a list of those of its parts, None for one without."""
        listed: list[Any] = self.values.tolist()
        for part in np.flatnonzero(np.isnan(self.values).any(axis=1)).tolist():
            listed[part] = None
        if self.counts is None:
            return listed
        starts = starts_of(self.counts).tolist()
        return [listed[start:end] for start, end in pairwise(starts)]


def label(options: Namespace) -> Figures:
    """Write the rows of `--data` with the logits that `--teacher` gives them to `--output`."""
    ending = ending_of(options.output)
    check_output("--output", options.output, inputs=[options.data, *options.teacher])
    args, started = read_arguments(DistillationTrainingArguments, options), time.monotonic()
    teachers = [_load(path, options, ending) for path in options.teacher]
    first, weights = teachers[0], weights_of_teachers(options.teacher_weights, len(teachers))
    for path, other in zip(options.teacher, teachers, strict=True):
        _check_alike(path, other, first)
    file = rows_file(options.data, options, first.head)
    check_labels_are_meant(first.config, task_of(options), options.teacher[0], lambda: file.table)
    check_has_no_answers(file.table)
    known, each = 0, list[_Answers]()
    for path, teacher in zip(options.teacher, teachers, strict=True):
        cached, answers, task = _ask(path, teacher, file, args, options)
        known, each = known + cached, [*each, answers]
    temperature = _temperature(args, task, len(each))
    answers = _averaged(each, weights, task, temperature or 1.0)
    named = " + ".join(map(public_name, options.teacher))
    dtype = " ".join(dict.fromkeys(str(teacher.dtype) for teacher in teachers))
    digests = " ".join(teacher.weights_digest() for teacher in teachers)
    names = list(first.config.id2label.values())
    rows = LabelledRows(
        file.table,
        answers.by_row(),
        _probabilities(_averaged(each, weights, task, 1.0), task).by_row() if options.probs else None,
        () if first.config.embeds or is_unnamed(first.config.id2label) else names,
        {
            "kdistill": __version__,
            "teacher": named,
            "teacher_fingerprint": digests,
            "teacher_dtype": dtype,
            "task": task_option(first.head),
        },
        temperature,
    )
    rows.write(options.output)
    return {
        "n": len(file.table),
        "output": options.output,
        "teacher": named,
        "teacher_fingerprint": digests,
        "dtype": dtype,
        "temperature": temperature,
        "labels": list(rows.names),
        "cached_rows": known,
        "runtime": time.monotonic() - started,
    }


def _temperature(args: DistillationTrainingArguments, task: Task, teachers: int) -> float | None:
    """Return the temperature at which probabilities are averaged; None where there is nothing to average.

    Raises:
        ValueError: it is given and has no effect.
    """
    if teachers > 1 and task.mixing is not None and task.mixing.log_confidence is not None:
        return args.temperature if args.is_given("temperature") else 1.0
    if args.is_given("temperature"):
        why = "there is one --teacher" if teachers == 1 else "their answers are numbers without probabilities"
        raise ValueError(
            f"--temperature is {args.temperature:g}, and only the average of several teachers' probabilities has one: "
            f"{why}; leave it out"
        )
    return None


def _averaged(each: list[_Answers], weights: NDArray[np.float64], task: Task, temperature: float) -> _Answers:
    """Return the answers of the only teacher, or those that have the mean of all probabilities at a temperature."""
    if len(each) == 1:
        return each[0]
    assert task.mixing is not None
    mixed = mixed_answers(task.mixing, [of.values for of in each], weights, temperature)
    assert isinstance(mixed, np.ndarray)
    return each[0]._replace(values=mixed)


def _load(path: str, options: Namespace, ending: str) -> Model:
    names = None if options.label_names is None else names_by_id(options.label_names)
    teacher = load_trained(path, id2label=names, dtype=options.dtype, **head_settings(path, task_of(options)))
    teacher.config = with_problem_type(teacher.config, task_of(options), "the teacher")
    _check_head(path, teacher, options, ending)
    return teacher


def _ask(
    path: str, teacher: Model, file: DataFile, args: DistillationTrainingArguments, options: Namespace
) -> tuple[int, _Answers, Task]:
    """Return how many rows the cache knew, the answers of a teacher that reads with its own tokenizer, and its task."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    dataset = encode_for(teacher.config, file, tokenizer, args, **columns_of(options))
    known = int(cached_rows(teacher.freeze(), dataset).sum()) if args.teacher_cache else 0
    with Progress(f"label, {public_name(path)}", unit="rows", quiet=args.disable_tqdm) as progress:
        logits = teacher_logits(teacher, dataset, progress=progress, enabled=args.teacher_cache)
    task = task_for(teacher.config, dataset.labels)
    if isinstance(logits, Ragged):
        return known, _of_words(logits.values, dataset, file.table), task
    pairs = isinstance(dataset.windows, Sentences) and len(logits) > len(file.table)
    return known, _Answers(logits, np.full(len(file.table), 2) if pairs else None), task


def _check_alike(path: str, teacher: Model, first: Model) -> None:
    """Raise ValueError for a teacher that gives other answers than the first."""
    theirs, ours = ((of.head, of.config.num_outputs, of.config.problem_type) for of in (teacher, first))
    named = teacher.config.embeds or teacher.config.id2label == first.config.id2label
    if theirs != ours or not named:
        raise ValueError(
            f"--teacher {path} is a model for {task_option(teacher.head)} with the labels "
            f"{list(teacher.config.id2label.values())}, and the first one for {task_option(first.head)} with "
            f"{list(first.config.id2label.values())}; expected the same task and labels: name both with --label-names, "
            "or label with each by itself"
        )


def _check_head(path: str, teacher: Model, options: Namespace, ending: str) -> None:
    """Raise ValueError for a teacher whose answers no file holds."""
    if teacher.head in (SPAN, MASKED):
        why = (
            "has logits for each token of a window, which belong to one way of cutting contexts"
            if teacher.head == SPAN
            else "answers for hidden words, which are others in each epoch"
        )
        raise ValueError(
            f"--teacher {path} is a model for {task_option(teacher.head)}: it {why}; give it to distill "
            "itself: kdistill distill --teacher"
        )
    if teacher.head == TOKEN and ending == ".npy":
        raise ValueError(
            f"--output is {options.output!r}, and rows of words have different numbers of answers; expected .parquet "
            "or .jsonl"
        )
    if options.probs and task_for(teacher.config).score_function == "none":
        raise ValueError("--probs is given, and the teacher's answers are numbers without probabilities; leave it out")
    if options.probs and ending == ".npy":
        raise ValueError(f"--probs is given, and {options.output} holds one array; expected .parquet or .jsonl")


def _probabilities(answers: _Answers, task: Task) -> _Answers:
    """Return the probabilities of all answers, at temperature 1."""
    there = ~np.isnan(answers.values).any(axis=1)
    found = np.full_like(answers.values, np.nan)
    found[there] = task.answers(answers.values[there])[0]
    return answers._replace(values=found)


def _of_words(values: NDArray[np.float32], dataset: Dataset, table: Table) -> _Answers:
    """Return the answer for each word of each row, given those of all tokens."""
    windows, counts = dataset.windows, np.array(word_counts(table, dataset), np.int64)
    assert isinstance(windows, Windows)
    examples, answers = np.repeat(windows.examples, dataset.lengths), np.flatnonzero(windows.words >= 0)
    found = np.full((int(counts.sum()), values.shape[1]), np.nan, np.float32)
    found[starts_of(counts)[examples[answers]] + windows.words[answers]] = values[answers]
    return _Answers(found, counts)
