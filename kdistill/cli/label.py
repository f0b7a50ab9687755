"""`kdistill label`: what a teacher answers, written beside the rows as data that `distill` learns from."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..data.dataset import Dataset
from ..data.label_names import is_unnamed
from ..data.ragged import Outputs, Ragged
from ..data.sentences import Sentences
from ..data.table import Table
from ..data.teacher_files import LabelledRows, check_has_no_answers, ending_of
from ..data.teacher_rows import word_counts
from ..data.windows import Windows
from ..distill.cache import cached_rows, teacher_logits
from ..hub import public_name
from ..models.auto import load_trained
from ..models.configuration import Config
from ..models.head_names import MASKED, SPAN, TOKEN
from ..models.model import Model
from ..system.output import check_output
from ..system.progress import Progress
from ..tasks.registry import task_for, task_option
from ..text.classes import AutoTokenizer
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import encode_for
from .inputs import columns_of, read_arguments, rows_file, task_of
from .task import check_labels_are_meant, head_settings, names_by_id, with_problem_type

Figures = dict[str, Any]


def label(options: Namespace) -> Figures:
    """Write the rows of `--data` with the logits that `--teacher` gives them to `--output`."""
    ending = ending_of(options.output)
    check_output("--output", options.output, inputs=[options.data, options.teacher])
    args = read_arguments(DistillationTrainingArguments, options)
    names = None if options.label_names is None else names_by_id(options.label_names)
    settings = head_settings(options.teacher, task_of(options))
    teacher = load_trained(options.teacher, id2label=names, dtype=options.dtype, **settings)
    teacher.config = with_problem_type(teacher.config, task_of(options), "the teacher")
    _check_head(teacher, options, ending)
    tokenizer = AutoTokenizer.from_pretrained(options.teacher)
    file = rows_file(options.data, options, teacher.head)
    check_labels_are_meant(teacher.config, task_of(options), options.teacher, lambda: file.table)
    check_has_no_answers(file.table)
    dataset = encode_for(teacher.config, file, tokenizer, args, **columns_of(options))
    started = time.monotonic()
    known = int(cached_rows(teacher.freeze(), dataset).sum()) if args.teacher_cache else 0
    with Progress(f"label {file.path}", unit="rows", quiet=args.disable_tqdm) as progress:
        logits = teacher_logits(teacher, dataset, progress=progress, enabled=args.teacher_cache)
    rows = LabelledRows(
        file.table,
        _by_row(logits, dataset, file.table),
        _by_row(_probabilities(logits, teacher.config, dataset), dataset, file.table) if options.probs else None,
        () if teacher.config.embeds or is_unnamed(teacher.config.id2label) else list(teacher.config.id2label.values()),
        {
            "kdistill": __version__,
            "teacher": public_name(options.teacher),
            "teacher_fingerprint": teacher.weights_digest(),
            "teacher_dtype": options.dtype,
            "task": task_option(teacher.head),
        },
    )
    rows.write(options.output)
    return {
        "n": len(file.table),
        "output": options.output,
        "teacher": public_name(options.teacher),
        "teacher_fingerprint": teacher.weights_digest(),
        "dtype": options.dtype,
        "labels": list(rows.names),
        "cached_rows": known,
        "runtime": time.monotonic() - started,
    }


def _check_head(teacher: Model, options: Namespace, ending: str) -> None:
    """Raise ValueError for a teacher whose answers no file holds."""
    if teacher.head in (SPAN, MASKED):
        why = (
            "has logits for each token of a window, which belong to one way of cutting contexts"
            if teacher.head == SPAN
            else "answers for hidden words, which are others in each epoch"
        )
        raise ValueError(
            f"--teacher {options.teacher} is a model for {task_option(teacher.head)}: it {why}; give it to distill "
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


def _probabilities(logits: Outputs, config: Config, dataset: Dataset) -> Outputs:
    """Return the probabilities of all answers, at temperature 1."""
    answers = task_for(config, dataset.labels).answers
    if isinstance(logits, Ragged):
        return Ragged(answers(logits.values)[0].astype(np.float32), logits.starts)
    return np.asarray(answers(logits)[0].astype(np.float32))


def _by_row(outputs: Outputs, dataset: Dataset, table: Table) -> list[Any]:
    """Return the answers for each row of the file."""
    if isinstance(outputs, Ragged):
        return _by_word(outputs.values, dataset, word_counts(table, dataset))
    if isinstance(dataset.windows, Sentences) and len(outputs) > len(table):
        pairs: list[Any] = outputs.reshape(len(table), 2, outputs.shape[1]).tolist()
        return pairs
    found: list[Any] = outputs.tolist()
    return found


def _by_word(values: NDArray[np.float32], dataset: Dataset, counts: Sequence[int]) -> list[Any]:
    """Return a list for each row with the answer for each of its words, None for one that has no token."""
    windows = dataset.windows
    assert isinstance(windows, Windows)
    found: list[list[Any]] = [[None] * count for count in counts]
    examples = np.repeat(windows.examples, dataset.lengths)
    answers = np.flatnonzero(windows.words >= 0)
    listed = values[answers].tolist()
    for example, word, value in zip(examples[answers].tolist(), windows.words[answers].tolist(), listed, strict=True):
        found[example][word] = value
    return found
