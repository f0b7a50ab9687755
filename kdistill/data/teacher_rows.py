"""Put what a teacher answered elsewhere beside the rows that it answered for: by id, by text, or by their order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..system.names import listing
from .columns import TEXT_COLUMNS, TEXT_PAIR_COLUMNS, TOKEN_COLUMNS, Columns, parsed_list
from .dataset import Dataset
from .files import FileFormat, are_token_files, file_and_field, kind_of, read_file
from .label_values import is_empty
from .patterns import matching_paths
from .ragged import starts_of
from .sentences import Sentences
from .sources import read_table
from .table import Table
from .teacher_columns import LOGITS, PROBABILITIES, Answers, TeacherColumn, teacher_column_of, without_teacher_columns
from .windows import Windows
from .words import split

ID_COLUMNS = ("id", "idx", "guid")
"""Columns that tell rows apart, the first that both files have."""
BY_COLUMN, BY_ID, BY_TEXT, BY_PLACE = "column", "id", "text", "position"
"""How answers were found for rows."""
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Match:
    """How the answers of a source were found for rows.

    Attributes:
        how: one of `BY_COLUMN`, `BY_ID`, `BY_TEXT` and `BY_PLACE`.
        rows: examples in all.
        covered: those that have an answer.
        unused: answers of the source that are for none of the rows.
        temperature: see `TeacherColumn`.
    """

    how: str
    rows: int
    covered: int
    unused: int = 0
    temperature: float | None = None


class Found(NamedTuple):
    """Where the answers for rows are in a source.

    Attributes:
        places: int64 (rows,), -1 for a row without one.
        how: one of `BY_COLUMN`, `BY_ID`, `BY_TEXT` and `BY_PLACE`.
        unused: answers that are for none of the rows.
    """

    places: NDArray[np.int64]
    how: str
    unused: int = 0


@dataclass(frozen=True)
class TeacherSource:
    """Answers of a teacher that were computed elsewhere.

    Attributes:
        name: what messages and cards call it.
        column: the answers.
        table: the columns beside them, which tell whose they are; None where nothing does.
        sha256: of the file; None of objects.
    """

    name: str
    column: TeacherColumn
    table: Table | None = None
    sha256: str | None = None

    def __len__(self) -> int:
        return len(self.column.values)

    @classmethod
    def of(cls, given: Any, argument: str) -> TeacherSource:
        """Return the answers that a user gives.

        Args:
            given: the path of a .npy file, (rows, outputs), or of a file of rows with a column `teacher_logits` or
                `teacher_probs`; such rows, see `sources.read_table`; an array, (rows, outputs); or a list with an entry
                for each row, None where there is none.
            argument: what messages call it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file cannot be read, or there are no answers in it.
            TypeError: it is something else.
        """
        if isinstance(given, (str, Path)):
            return _of_file(Path(given), argument)
        shape = getattr(given, "shape", None)
        if isinstance(given, list) or (shape is not None and not hasattr(given, "columns")):
            if isinstance(given, list) and given and all(isinstance(row, dict) and _is_row(row) for row in given):
                return _of_table(read_table(given), argument, None)
            return _of_values(given, argument, argument, None)
        return _of_table(read_table(given), argument, None)


def _is_row(row: dict[str, Any]) -> bool:
    """Return whether an object is a row of a table, instead of numbers by label."""
    return any(name.startswith((LOGITS, PROBABILITIES)) for name in row)


def _of_file(path: Path, argument: str) -> TeacherSource:
    if path.suffix.lower() != ".npy":
        _check_kind(path, argument)
        table = read_file(path)
        return _of_table(table, argument, _sha256(path))
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: {path} does not exist; expected a .npy, .parquet or .jsonl file")
    try:  # mapped, so that a shape beyond the file takes no memory
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, OSError, EOFError, OverflowError, SyntaxError, TokenError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{argument}: {path} cannot be read as an array of NumPy: {message}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{argument}: {path} holds several arrays; expected one, as numpy.save writes it")
    return _of_values(array, str(path), argument, _sha256(path))


def _check_kind(path: Path, argument: str) -> None:
    """Raise ValueError for a file of a kind that holds no answers here, such as .npz or .pt."""
    file, _ = file_and_field(path)
    if not file.is_file() or kind_of(file, FileFormat())[0] is not None:
        return
    several = file.suffix.lower() == ".npz"
    found = "holds several arrays, as numpy.savez writes them" if several else "has an ending of no file of answers"
    remedy = f"; numpy.save('{file.stem}.npy', numpy.load('{file.name}')[NAME]) writes one of them" if several else ""
    raise ValueError(
        f"{argument}: {path} {found}; expected a .npy file with one array (rows, labels), as numpy.save writes it, or "
        f"a .parquet, .jsonl or .csv file of rows with a column {LOGITS} or {PROBABILITIES}{remedy}"
    )


def _of_values(values: Any, name: str, argument: str, sha256: str | None) -> TeacherSource:
    """Return the answers of an array, or of a list with an entry for each row."""
    array = values if isinstance(values, list) else np.asarray(values)
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{argument}: {name} holds {array.dtype}; expected numbers, float32 (rows, labels)")
        if array.ndim not in (1, 2):
            raise ValueError(f"{argument}: {name} has shape {array.shape}; expected (rows, labels)")
        missing = np.isnan(array) if array.ndim == 1 else np.isnan(array).all(axis=1)
        array = [None if gone else row for row, gone in zip(array.tolist(), missing.tolist(), strict=True)]
    column = TeacherColumn(LOGITS, (LOGITS,), False, array, (), Table(name, {LOGITS: array}).where, name)
    return TeacherSource(name, column, None, sha256)


def _of_table(table: Table, argument: str, sha256: str | None) -> TeacherSource:
    column = teacher_column_of(table)
    if column is None:
        raise ValueError(
            f"{argument}: {table.source} has no column {LOGITS!r} or {PROBABILITIES!r}; its columns are "
            f"{listing(table.columns, _MOST_SHOWN)}"
        )
    return TeacherSource(table.source, column, without_teacher_columns(table, column), sha256)


def _sha256(path: Path) -> str:
    """Return the hash of a file, or of all that a pattern stands for."""
    digest = hashlib.sha256()
    for name in matching_paths(str(path)):
        with file_and_field(Path(name))[0].open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def places_of(source: TeacherSource, table: Table, texts: Columns) -> Found:
    """Return where in a source the answer for each row of a table is.

    Rows are told apart by their ids; else by their texts, where the source has these; else, where it has neither, by
    their order.

    Args:
        source: the answers.
        table: the rows.
        texts: the columns of their texts.

    Raises:
        ValueError: none of the rows is there; two answers are for one row; texts of an id differ; or there are more or
            fewer answers than rows where their order counts.
    """
    theirs = source.table
    if theirs is None:
        return _by_place(source, table)
    texts_there = _texts_in(theirs, texts)
    id_column = next((name for name in ID_COLUMNS if name in theirs.columns), None)
    if id_column is not None and id_column in table.columns:
        found = _by_key(source, _ids(theirs, id_column), _ids(table, id_column), f"the {id_column}", BY_ID)
        if texts_there is not None:
            _check_texts(theirs, table, texts_there, texts, found.places, id_column)
    elif texts_there is not None:
        found = _by_key(source, _texts(theirs, texts_there), _texts(table, texts), "the text", BY_TEXT)
    elif id_column is not None:
        raise ValueError(
            f"{source.name} has the column {id_column!r}, and {table.source} has not, nor has {source.name} the texts "
            f"({listing(_named(texts), _MOST_SHOWN)}): nothing tells for which rows its answers are; add one of them"
        )
    else:
        return _by_place(source, table)
    if (found.places < 0).all():
        what = f"ids ({id_column!r})" if found.how == BY_ID else "texts"
        raise ValueError(f"none of the {what} of {table.source} is in {source.name}: are these answers for other rows?")
    return found


def _by_place(source: TeacherSource, table: Table) -> Found:
    if len(source) != len(table):
        raise ValueError(
            f"{source.name} has {len(source):,} rows, and {table.source} {len(table):,}; expected a row for each, in "
            "the same order, or a column of ids or texts in both, which tells whose the answers are"
        )
    return Found(np.arange(len(table)), BY_PLACE)


def _named(texts: Columns) -> list[str]:
    return [name for name in texts[:2] if name is not None]


def _text_columns(table: Table) -> Columns:
    """Return the columns of texts beside token ids, by convention."""
    pair = next((pair for pair in TEXT_PAIR_COLUMNS if set(pair) <= set(table.columns)), None)
    single = next((name for name in (*TEXT_COLUMNS, *TOKEN_COLUMNS) if name in table.columns), None)
    return Columns(single) if pair is None else Columns(*pair)


def _texts_in(table: Table, texts: Columns) -> Columns | None:
    """Return the columns of a table that hold the texts which others have in `texts`; None where it has none."""
    named = _named(texts)
    if named and all(name in table.columns for name in named):
        return texts
    single = next((name for name in TEXT_COLUMNS if name in table.columns), None)
    return None if single is None or len(named) != 1 else Columns(single)


def _texts(table: Table, texts: Columns) -> list[Any]:
    columns = [list(map(_text, table.columns[name])) for name in _named(texts)]
    return list(zip(*columns, strict=True))


def _text(value: Any) -> str:
    """Return a text, or what tells a list of words apart from others."""
    listed = parsed_list(value) if isinstance(value, str) else value
    return listed if isinstance(listed, str) else json.dumps(listed, default=list)


def _ids(table: Table, column: str) -> list[str | None]:
    """Return ids as text: a CSV has nothing else."""
    return [None if is_empty(value) else str(value) for value in table.columns[column]]


def _by_key(source: TeacherSource, theirs: Sequence[Any], ours: Sequence[Any], what: str, how: str) -> Found:
    """Return the place of each of `ours` among `theirs`; `what` they are, for messages."""
    places: dict[Any, int] = {}
    values = source.column.values
    for place, key in enumerate(theirs):
        if key is None:
            continue
        first = places.setdefault(key, place)
        if first != place and repr(values[first]) != repr(values[place]):
            shown = key[0] if isinstance(key, tuple) else key
            raise ValueError(
                f"{source.column.where(place)} has {what} of {source.column.where(first)} ({_short(shown)}) and other "
                "numbers; expected one answer: leave one of the two rows out"
            )
    found = np.array([-1 if key is None else places.get(key, -1) for key in ours], dtype=np.int64)
    wanted = set(ours)
    return Found(found, how, sum(key not in wanted for key in theirs))


def _check_texts(
    theirs: Table, table: Table, texts_there: Columns, texts: Columns, places: NDArray[np.int64], id_column: str
) -> None:
    """Raise ValueError where rows of one id have two texts."""
    if len(_named(texts_there)) != len(_named(texts)):
        return
    others, ours = _texts(theirs, texts_there), _texts(table, texts)
    for row, place in enumerate(places.tolist()):
        if place >= 0 and others[place] != ours[row]:
            raise ValueError(
                f"{table.where(row)} and {theirs.where(place)} have the {id_column} {table.columns[id_column][row]!r} "
                f"and two texts ({_short(ours[row][0])} and {_short(others[place][0])}); expected the answers for "
                "these rows"
            )


def _short(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


@dataclass(frozen=True)
class TaughtRows:
    """Rows, in any form that a trainer takes, and where the answers of a teacher for them are.

    Attributes:
        rows: the rows; without a `source` the answers are in columns of their own, if they are anywhere.
        source: the answers.
        training: whether these are the rows to learn from. Others are found in the source by their texts alone, for
            their ids and their order may be those of training rows.
        on_match: called with how answers were found, if any were.
    """

    rows: Any
    source: TeacherSource | None
    training: bool
    on_match: Callable[[Match], None]

    def encoded(self, encode: Callable[[Any], Dataset], answers_of: Callable[[Dataset], Answers]) -> Dataset:
        """Return the data set with the answers for its rows, see `Dataset.teacher_logits`.

        Args:
            encode: makes a data set of the rows without the columns of answers, or checks one.
            answers_of: (data set) -> what the outputs of the student are.

        Raises:
            ValueError: there are columns of answers beside a source, or see `TeacherColumn.read` and `places_of`.
            TypeError: see `TeacherColumn.read`.
        """
        if self._are_encoded:
            dataset = encode(self.rows)
            if self.source is None or not self.training or dataset.teacher_logits is not None:
                return dataset
            self._refuse_keys()
            table, column = Table("the data set", {"": range(dataset.num_examples)}), None
        else:
            table = read_table(self.rows)
            column = teacher_column_of(table)
            dataset = encode(table if column is None else without_teacher_columns(table, column))
        if column is not None and self.source is not None and self.training:
            raise ValueError(
                f"{table.source} has answers of a teacher ({column.name}), and {self.source.name} is given; expected "
                "one of the two: leave out the file (--teacher-logits, teacher_logits=) or the columns"
            )
        found = self._find(column, table, dataset)
        if found is None:
            return dataset
        column, where = found
        logits, covered = _beside(dataset, table, column, answers_of(dataset), where.places)
        self.on_match(Match(where.how, len(table), covered, where.unused, column.temperature))
        return replace(dataset, teacher_logits=logits)

    @property
    def _are_encoded(self) -> bool:
        """Whether the rows are tokens already, so that answers for them are in their order."""
        return isinstance(self.rows, Dataset) or (
            isinstance(self.rows, str | os.PathLike) and are_token_files(self.rows)
        )

    def _find(self, column: TeacherColumn | None, table: Table, dataset: Dataset) -> tuple[TeacherColumn, Found] | None:
        """Return the answers, and where those for the rows are among them; None where there are none."""
        if column is not None:
            return column, Found(np.arange(len(table)), BY_COLUMN)
        if self.source is None:
            return None
        read = None if self._are_encoded else dataset.reading
        texts = _text_columns(table) if read is None else read.columns
        if self.training:
            return self.source.column, places_of(self.source, table, texts)
        there = None if self.source.table is None else _texts_in(self.source.table, texts)
        if there is None or self.source.table is None:
            return None
        where = _by_key(self.source, _texts(self.source.table, there), _texts(table, texts), "the text", BY_TEXT)
        return None if (where.places < 0).all() else (self.source.column, where)

    def _refuse_keys(self) -> None:
        """Raise ValueError where the answers are told apart by ids or texts, which encoded rows have not."""
        theirs = None if self.source is None else self.source.table
        if theirs is not None and len(theirs.columns):
            raise ValueError(
                f"the rows are encoded already, and {theirs.source} tells by {listing(map(repr, theirs.columns))} for "
                "which its answers are; expected the rows as text, or an array of answers in their order"
            )


def _beside(
    dataset: Dataset, table: Table, column: TeacherColumn, answers: Answers, places: NDArray[np.int64]
) -> tuple[NDArray[np.float32], int]:
    """Return the logits for the rows or tokens of a data set, NaN where there are none, and how many rows have any."""
    logits, lengths = column.read(answers)
    if lengths is not None and isinstance(dataset.windows, Sentences):
        pairs = np.full(len(table), 2)
        return _of_parts(dataset, table, column, (logits, lengths), places, pairs, _texts_of_pairs(dataset.windows))
    if lengths is not None:
        counts = np.array(word_counts(table, dataset))
        assert isinstance(dataset.windows, Windows)
        parts = (np.repeat(dataset.windows.examples, dataset.lengths), dataset.windows.words)
        return _of_parts(dataset, table, column, (logits, lengths), places, counts, parts)
    found = np.full((len(places), logits.shape[1]), np.nan, np.float32)
    found[places >= 0] = logits[places[places >= 0]]
    return found, int((~np.isnan(found)).any(axis=1).sum())


def _texts_of_pairs(sentences: Sentences) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pair of each text, and which of its two it is."""
    first = np.diff(sentences.examples, prepend=-1) != 0
    return sentences.examples, np.where(first, 0, 1)


def word_counts(table: Table, dataset: Dataset) -> list[int]:
    """Return how many words each row has. Raises ValueError for rows of token ids, which have none."""
    if not isinstance(dataset.windows, Windows) or dataset.reading is None or dataset.reading.columns.text is None:
        raise ValueError(
            f"{table.source} holds token ids, whose words nobody knows; expected rows of words beside the answers of a "
            "teacher for each word"
        )
    if dataset.reading.columns.text not in table.columns:
        raise ValueError(
            f"{table.source} is encoded already, and the answers of a teacher for each word are found by its words; "
            "expected the file of rows that it was made of"
        )
    return [_count_words(value) for value in table.columns[dataset.reading.columns.text]]


def _count_words(value: Any) -> int:
    listed = parsed_list(value) if isinstance(value, str) else value
    if isinstance(listed, str):
        return len(split(listed))
    pieces = bool(listed) and all(isinstance(piece, Mapping) for piece in listed)
    return len(split("".join(piece["text"] for piece in listed))) if pieces else len(listed)


def _of_parts(
    dataset: Dataset,
    table: Table,
    column: TeacherColumn,
    read: tuple[NDArray[np.float32], NDArray[np.int64]],
    places: NDArray[np.int64],
    counts: NDArray[np.int64],
    parts: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.float32], int]:
    """Return the logits of units that answer for parts of a row, float32 (units, outputs), and how many rows have any.

    Args:
        dataset: the encoded rows.
        table: the rows.
        column: where the answers are, for messages.
        read: the logits of all parts of all rows of the source, and how many of them each row has, -1 for none.
        places: the row of the source for each row of the table, -1 for none.
        counts: parts of each row of the table: words, or the two texts of a pair.
        parts: the row and the part that each unit answers for, the part -1 for none.
    """
    logits, lengths = read
    for row, place in enumerate(places.tolist()):
        if place >= 0 and lengths[place] not in (-1, counts[row]):
            what = "texts" if isinstance(dataset.windows, Sentences) else "words"
            raise ValueError(
                f"{column.where(place)}: {column.name} has answers for {lengths[place]} {what}, and {table.where(row)} "
                f"has {counts[row]}; expected one for each"
            )
    starts, (rows, part) = starts_of(np.maximum(lengths, 0)), parts
    place_of = np.maximum(places[rows], 0)
    known = (part >= 0) & (places[rows] >= 0) & (lengths[place_of] >= 0)
    found = np.full((len(part), logits.shape[1]), np.nan, np.float32)
    found[known] = logits[starts[place_of[known]] + part[known]]
    with_any = np.zeros(len(table), np.bool_)
    with_any[rows[~np.isnan(found).all(axis=1)]] = True
    return found, int(with_any.sum())
