"""`Labelling`: what a teacher answers, beside the rows, as data that `distill` learns from."""

from __future__ import annotations

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
from ..data.teacher_files import LabelledRows, check_has_no_answers
from ..data.teacher_rows import word_counts
from ..data.token_files import TokenFiles, token_files_of
from ..data.windows import Windows
from ..distill.cache import cached_rows, teacher_logits
from ..distill.sources import weights_of_teachers
from ..hub import public_name
from ..losses.mixing import mixed_answers
from ..models.auto import load_trained
from ..models.head_names import MASKED, SPAN, TOKEN
from ..models.model import Model
from ..system.progress import Progress
from ..tasks.base import Task
from ..tasks.registry import task_for, task_option
from ..text.classes import AutoTokenizer
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import encode_for
from .inputs import columns_of, task_of
from .task import head_settings, names_by_id, with_problem_type
from .teachers import check_each_once

Figures = dict[str, Any]


class _Answers(NamedTuple):
    """What a teacher answered for the rows of a file.

    Attributes:
        values: float32 (parts, outputs), NaN for a part without an answer.
        counts: how many parts each row has: its words, or the two texts of a pair; None: each row is one.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64] | None

    def array(self) -> NDArray[np.float32]:
        """Return the answers as one array (rows, outputs), or of the texts of pairs (rows, 2, outputs)."""
        return self.values if self.counts is None else self.values.reshape(len(self.counts), -1, self.values.shape[1])

    def by_row(self) -> list[Any]:
        """Return the answer of each row as numbers, or a list of those of its parts, None for one without."""
        listed: list[Any] = self.values.tolist()
        for part in np.flatnonzero(np.isnan(self.values).any(axis=1)).tolist():
            listed[part] = None
        if self.counts is None:
            return listed
        starts = starts_of(self.counts).tolist()
        return [listed[start:end] for start, end in pairwise(starts)]


class Labelling:
    """Teachers, and what the rows of a table become with their answers.

    Args:
        options: those of `label`.
        args: the training arguments among them.
        ending: of the output's name.

    Attributes:
        first: the first teacher.
        teacher: what a figure calls them.
        fingerprint: of their weights.
        dtype: the compute types that they answer in.

    Raises:
        ValueError: one is named twice, they do not fit together, or no file with this ending holds their answers.
    """

    def __init__(self, options: Namespace, args: DistillationTrainingArguments, ending: str) -> None:
        check_each_once(options.teacher)
        self._teachers = [(path, _load(path, options, ending)) for path in options.teacher]
        self._weights = weights_of_teachers(options.teacher_weights, len(self._teachers))
        self.first = self._teachers[0][1]
        for path, other in self._teachers:
            _check_alike(path, other, self.first)
        self._tokenizers = {path: AutoTokenizer.from_pretrained(path) for path in options.teacher}
        self._ending = ending
        self._args, self._columns, self._probs = args, columns_of(options), options.probs
        self.teacher = " + ".join(map(public_name, options.teacher))
        self.fingerprint = " ".join(teacher.weights_digest() for _, teacher in self._teachers)
        self.dtype = " ".join(dict.fromkeys(str(teacher.dtype) for _, teacher in self._teachers))

    def __call__(self, file: DataFile | Table) -> tuple[LabelledRows, int]:
        """Return rows with the answers of the teachers, and how many answers the teacher cache knew.

        Raises:
            ValueError: they cannot be read, or have answers of a teacher already.
        """
        files = token_files_of(file)
        if files is None:
            table = file.table if isinstance(file, DataFile) else file
        else:
            table = _encoded_rows(files, self._ending)
        check_has_no_answers(table)
        known, each = 0, list[_Answers]()
        for path, teacher in self._teachers:
            dataset = encode_for(teacher.config, files or file, self._tokenizers[path], self._args, **self._columns)
            cached, answers, task = _ask(path, teacher, dataset, table, self._args)
            known, each = known + cached, [*each, answers]
        temperature = _temperature(self._args, task, len(each))
        answers = _averaged(each, self._weights, task, temperature or 1.0)
        rows = LabelledRows(
            table,
            answers.array() if self._ending == ".npy" else answers.by_row(),
            _probabilities(_averaged(each, self._weights, task, 1.0), task).by_row() if self._probs else None,
            self.names,
            self.about,
            temperature,
        )
        return rows, known

    @property
    def names(self) -> list[str]:
        """The names of the outputs; empty where they have none."""
        config = self.first.config
        return [] if config.embeds or is_unnamed(config.id2label) else list(config.id2label.values())

    @property
    def about(self) -> dict[str, str]:
        """Where the answers come from, as a file says it."""
        return {
            "kdistill": __version__,
            "teacher": self.teacher,
            "teacher_fingerprint": self.fingerprint,
            "teacher_dtype": self.dtype,
            "task": task_option(self.first.head),
        }

    def figures(self, options: Namespace, count: int, known: int) -> Figures:
        """Return the figures of the command, without its time.

        Args:
            options: those of `label`.
            count: the rows.
            known: how many answers the teacher cache knew.
        """
        return {
            "n": count,
            "output": options.output,
            "teacher": self.teacher,
            "teacher_fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "temperature": _temperature(self._args, task_for(self.first.config), len(self._teachers)),
            "labels": self.names,
            "cached_rows": known,
        }


def _encoded_rows(files: TokenFiles, ending: str) -> Table:
    """Return a table as long as token files, whose texts nobody writes. Raises ValueError for an output with texts."""
    if files.are_windows:
        raise ValueError(
            f"--data {files.path} holds token files of rows of words, whose answers are written beside the words; "
            "expected the file that they were made of"
        )
    if ending != ".npy":
        raise ValueError(
            f"--data {files.path} holds token files, and --output ends in {ending}, a file of texts with their "
            "answers; expected a name in .npy, for an answer for each row in their order, or --data with the file that "
            "they were made of"
        )
    return Table(files.source, {"": range(len(files))})


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
    settings = {"id2label": names, "dtype": options.dtype, "keep_weights": False}
    teacher = load_trained(path, **settings, **head_settings(path, task_of(options)))
    teacher.config = with_problem_type(teacher.config, task_of(options), "the teacher")
    _check_head(path, teacher, options, ending)
    return teacher


def _ask(
    path: str, teacher: Model, dataset: Dataset, table: Table, args: DistillationTrainingArguments
) -> tuple[int, _Answers, Task]:
    """Return how many rows the cache knew, the answers of a teacher to rows that it has read, and its task."""
    known = int(cached_rows(teacher, dataset).sum()) if args.teacher_cache else 0
    with Progress(f"label, {public_name(path)}", unit="rows", quiet=args.disable_tqdm) as progress:
        logits = teacher_logits(teacher, dataset, progress=progress, enabled=args.teacher_cache)
    task = task_for(teacher.config, dataset.labels)
    if isinstance(logits, Ragged):
        return known, _of_words(logits.values, dataset, table), task
    pairs = isinstance(dataset.windows, Sentences) and len(logits) > len(table)
    return known, _Answers(logits, np.full(len(table), 2) if pairs else None), task


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
