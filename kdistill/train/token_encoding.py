"""`encode`: text to token files, which training maps into memory instead of reading the text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from ..data.documents import masking_of
from ..data.files import DOCUMENTS, DataFile, FileFormat, are_token_files, is_plain_text
from ..data.patterns import check_each_once, matching_paths
from ..data.tagged import overlap_of_words
from ..data.token_encoders import SHARD_ROWS, Settings
from ..data.token_files import TokenFiles
from ..data.token_writer import write_token_files
from ..losses.problem_types import PROBLEM_TYPES, REGRESSION
from ..models.head_names import SEQUENCE, SPAN, TOKEN
from ..system.names import listing
from ..system.output import given_path
from ..system.progress import Progress
from ..tasks.registry import TASK_OPTIONS, task_option
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..text.windows import MAX_LENGTH, stride_of
from .token_reading import FORM_OF_HEAD

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def encode(
    data: Files,
    tokenizer: PreTrainedTokenizerFast | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    task: str | None = None,
    problem_type: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    keep_texts: bool = False,
    shard_rows: int = SHARD_ROWS,
    quiet: bool = False,
) -> TokenFiles:
    """Write the tokens of rows of text into a directory, which a trainer takes as `train_dataset` or `eval_dataset`.

    A run on them has the bits of a run on the text, and its memory does not grow with the rows. They are written in
    shards: where this was interrupted, the same call goes on behind the last whole one. On all cores, see
    `set_num_threads`.

    Args:
        data: a file, or several, each perhaps a pattern such as `part-*.parquet`; their rows follow each other. Formats
            as in `load_dataset`, or a `DataFile`. JSON Lines, Parquet, TSV, CSV and a text a line are never whole in
            memory.
        tokenizer: the model's, or a directory or hub id that holds it. Of a distillation that of the student, which is
            the teacher's where the student is made of a shape.
        output: the directory; it may not exist, be empty, or hold what the same call has begun.
        max_length: tokens that rows are cut to, or the longest window has (default: the tokenizer's
            model_max_length, of questions 384); give the run's.
        doc_stride: tokens that two windows of a long row of words or of a long context share (default: as in a run);
            likewise.
        task: what is learned of them: None or "text-classification" for labels of texts or pairs,
            "token-classification" for tags of words, "question-answering" for answers in contexts, "masked-lm" for
            words hidden in running text, "feature-extraction" for texts that are embedded.
        problem_type: "regression" where labels are numbers to learn.
        text_column: the column of texts (default: found by its name, as in `load_dataset`).
        text_pair_column: that of second texts, likewise.
        label_column: that of labels, likewise.
        keep_texts: write the texts too, for teachers with tokenizers of their own.
        shard_rows: rows of a shard.
        quiet: show no progress.

    Returns:
        The token files.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: the directory holds something else.
        ValueError: a row cannot be read, a file is named twice, or the task has no token files.
        OSError: the directory cannot be written, the disk is full; what is finished stays.
    """
    directory = given_path("output", output)
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    check_tokenizer("tokenizer", tokenizer)
    if tokenizer is None:
        raise TypeError("tokenizer is None; expected the model's, or a directory or hub id that holds it")
    form = _form_of(task, problem_type)
    for name, value, least in (("shard_rows", shard_rows, 1), ("doc_stride", doc_stride, 0)):
        if value is not None and not (isinstance(value, Integral) and value >= least):
            raise ValueError(f"{name} is {value!r}; expected a whole number >= {least}")
    length, overlap = tokenizer.truncation_length(max_length), None
    if form == "words":
        masking_of(tokenizer)
        if length is None:
            raise ValueError("max_length is None, and the tokenizer states none; expected the tokens of a block")
        if keep_texts or text_pair_column is not None or label_column is not None:
            raise ValueError(
                f"--task {task} reads texts alone; leave text_pair_column, label_column and keep_texts out"
            )
    if form == "tags":
        if text_pair_column is not None:
            raise ValueError(f"text_pair_column is {text_pair_column!r}, and tokens have no pairs; leave it out")
        tokenizer = tokenizer.for_words()
        overlap = overlap_of_words(tokenizer, length, doc_stride)
    elif form == "answers":
        length = min(MAX_LENGTH, length or MAX_LENGTH) if max_length is None else length
        assert length is not None
        overlap, keep_texts = stride_of(doc_stride, length), True
    elif doc_stride is not None:
        raise ValueError(
            f"doc_stride is {doc_stride}, and only rows of words and questions become windows (--task "
            f"{task_option(TOKEN)}, {task_option(SPAN)}); leave it out"
        )
    settings = Settings(
        form, length, keep_texts, text_column, text_pair_column, label_column, shard_rows, overlap=overlap
    )
    files = _files(data, running_text=form == "words")
    with Progress(f"encode {files[0].path}", unit="rows", quiet=quiet) as progress:
        write_token_files(files, tokenizer, directory, settings, progress)
    return TokenFiles(output)


def _form_of(task: str | None, problem_type: str | None) -> str:
    """Return the form of the labels, see `token_header.FORMS`. Raises ValueError for a task that there is not."""
    if task is not None and task not in TASK_OPTIONS:
        raise ValueError(f"task is {task!r}; expected one of {listing(TASK_OPTIONS)}")
    head = SEQUENCE if task is None else TASK_OPTIONS[task]
    if problem_type not in (None, *PROBLEM_TYPES):
        raise ValueError(f"problem_type is {problem_type!r}; expected one of {listing(PROBLEM_TYPES)}")
    if problem_type is not None and head != SEQUENCE:
        raise ValueError(f"--problem-type is {problem_type}, and --task {task} has none; leave it out")
    return FORM_OF_HEAD.get(head, "numbers" if problem_type == REGRESSION else "values")


def _files(data: Files, *, running_text: bool) -> list[DataFile]:
    """Return the files that names and patterns stand for, sorted where a pattern stands for several."""
    found: list[DataFile] = []
    for given in [data] if isinstance(data, str | os.PathLike) else list(data):
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"data holds {given!r:.80}; expected files: a trainer takes rows in memory as they are")
        path, how = os.fspath(given), given.format if isinstance(given, DataFile) else FileFormat()
        for name in matching_paths(path):
            if are_token_files(name):
                raise ValueError(f"{name} holds token files; expected the text that they were made of")
            plain = running_text and is_plain_text(Path(name)) and how == FileFormat(encoding=how.encoding)
            found.append(DataFile(name, FileFormat(DOCUMENTS, encoding=how.encoding) if plain else how))
    if not found:
        raise ValueError("data is an empty list; expected a file at least")
    check_each_once([file.path for file in found])
    return found
