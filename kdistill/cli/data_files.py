"""The rows that a command's options name: files with `--columns`, `--delimiter`, `--quoted` and `--encoding`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.columns import TOKEN_COLUMNS, rows_of
from ..data.dataset import Dataset
from ..data.files import DOCUMENTS, DataFile, FileFormat, are_token_files, is_plain_text, read_content
from ..data.patterns import matching_paths
from ..data.questions import CONTEXT_COLUMN, QUESTION_COLUMN
from ..data.table import Table
from ..data.text_files import PLAIN_TEXT_COLUMN
from ..data.texts import Texts
from ..data.words import PIECE_COLUMNS, has_a_word_a_line
from ..models.head_names import ENCODER, MASKED, SPAN, TOKEN
from ..models.trained_with import TrainedWith

STANDARD_INPUT = "-"
TEXT_PAIR_COLUMN = "text_pair"
_TABS = ("tab", "\\t")
FORMAT = ("columns", "delimiter", "quoted", "encoding")
"""Options about how files of rows are written."""


def format_words(options: Mapping[str, Any]) -> list[str]:
    """Return the options of the form of the files that were given, as words of a command."""
    words: list[str] = []
    for name in FORMAT:
        value = options[name]
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
        elif value is not None:
            words.append(f"--{name}={value}" if value.startswith("-") else f"--{name}")
            words += [] if value.startswith("-") else [value]
    return words


def data_file(path: str, options: Mapping[str, Any], head: str | None = None) -> DataFile:
    """Return the file at `path`, written as the options of `FORMAT` describe; None where they were not given.

    A pattern such as `part-*.tsv` stands for several files of the same form.

    For a model that tags tokens (`head`), a .txt or .tsv without such options has a word and its tag a line, unless the
    first line of a .tsv names columns. For one that predicts hidden words a .txt is running text.

    Raises ValueError for an empty name, which would be that of the current directory.
    """
    if not path:
        raise ValueError("a file of rows is named ''; expected its name: is a variable of the shell not set?")
    plain = all(options[name] is None for name in FORMAT if name != "encoding")
    first = Path(matching_paths(path)[0])
    words = head == TOKEN and plain and (first.suffix.lower() == ".txt" or has_a_word_a_line(first))
    documents = head == MASKED and plain and is_plain_text(first)
    return DataFile(path, file_format(options, "conll" if words else DOCUMENTS if documents else None))


def file_format(options: Mapping[str, Any], kind: str | None = None) -> FileFormat:
    """Return the format that the options of `FORMAT` describe, for a name without an ending of this kind.

    Raises:
        ValueError: `--columns` names a column twice or not at all, or `--delimiter` is no character.
    """
    columns, delimiter = options["columns"], options["delimiter"]
    return FileFormat(
        kind,
        delimiter="\t" if delimiter in _TABS else delimiter,
        quoted=options["quoted"],
        column_names=None if columns is None else tuple(name.strip() for name in columns.split(",")),
        encoding=options["encoding"] or "utf-8",
    )


def rows_to_predict(options: Namespace, trained: TrainedWith, head: str | None = None) -> DataFile | Table:
    """Return the rows of `--data`, of `--text`, or of standard input, with a text a line (`--columns`: a TSV).

    Args:
        options: those of `predict`.
        trained: what the model was trained with.
        head: the model's.

    Raises:
        ValueError: there are no rows, more than one kind of them, or texts without the second ones of pairs.
    """
    texts, pairs = options.text, options.text_pair
    if texts is not None and options.data is not None:
        raise ValueError("--data and --text are given; expected one of the two")
    if pairs is not None and len(pairs) != len(texts or ()):
        raise ValueError(f"--text-pair is given {len(pairs)} times and --text {len(texts or ())}; expected as often")
    if texts is not None:
        return _typed(texts, pairs, trained, head)
    if options.data not in (None, STANDARD_INPUT):
        return data_file(options.data, vars(options), head)
    if options.data is None and sys.stdin.isatty():
        raise ValueError(
            'predict has no rows: expected --data FILE, --text "...", or a text a line on standard input, as in '
            "kdistill predict --model MODEL < texts.txt"
        )
    content = sys.stdin.buffer.read()
    if not content:
        raise ValueError('standard input is empty; expected a text a line, or --data FILE or --text "..."')
    return read_content("standard input", content, file_format(vars(options), "txt"))


def _typed(texts: Sequence[str], pairs: Sequence[str] | None, trained: TrainedWith, head: str | None) -> Table:
    """Return the rows of `--text` and `--text-pair`, in the columns that the model was trained on."""
    if head == SPAN:
        if pairs is None:
            raise ValueError("the model answers questions; expected --text-pair, the context, beside each --text")
        return Table("--text", {QUESTION_COLUMN: texts, CONTEXT_COLUMN: pairs})
    if head == ENCODER:
        trained = TrainedWith()  # each text is embedded by itself
    if pairs is None and trained.text_pair_column is not None:
        raise ValueError("the model was trained on pairs of texts; expected --text-pair beside each --text")
    known = None if trained.text_column in (*TOKEN_COLUMNS, *PIECE_COLUMNS) else trained.text_column
    columns = {known or PLAIN_TEXT_COLUMN: texts}
    if pairs is not None:
        columns[trained.text_pair_column or TEXT_PAIR_COLUMN] = pairs
    return Table("--text", columns)


def single_texts(source: DataFile | Table, **columns: Any) -> Sequence[str]:
    """Return the texts of rows that have one each; arguments and errors are those of `data.columns.rows_of`.

    Raises:
        ValueError: also for pairs.
    """
    table = source.table if isinstance(source, DataFile) else source
    rows = rows_of(table, **columns)
    if rows.pairs is not None:
        found = f"{rows.columns.text} and {rows.columns.text_pair}"
        raise ValueError(f"{table.source} has pairs of texts ({found}); name one column with --text-column")
    return rows.texts


def texts_of(source: DataFile | Table, dataset: Dataset) -> dict[str, Sequence[str]]:
    """Return the texts that a data set was made of, as columns `text` and, of pairs, `text_pair`; {} without."""
    if isinstance(source, DataFile) and are_token_files(source):
        kept = dataset.texts or Texts(())
        columns = {PLAIN_TEXT_COLUMN: kept.first, TEXT_PAIR_COLUMN: kept.second}
        return {name: texts for name, texts in columns.items() if texts}
    if dataset.reading is None:
        return {}
    table = source.table if isinstance(source, DataFile) else source
    named = zip((PLAIN_TEXT_COLUMN, TEXT_PAIR_COLUMN), dataset.reading.columns[:2], strict=True)
    return {name: table.columns[column] for name, column in named if column is not None}
