"""From parts of the data to the arrays of token files: an encoder for each form of labels, see `token_header.FORMS`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..system.names import listing
from ..text.tokenizer import PreTrainedTokenizerFast
from .columns import Columns, ColumnUse, label_column_of, rows_of
from .dataset import OnProgress, encode_texts
from .documents import blocks_of_texts, masking_of, words_of_blocks
from .label_values import NO_LABEL, as_integer, is_empty, is_list
from .labels import UNTAGGED, label_numbers
from .question_windows import encode_questions
from .questions import ANSWERS_COLUMN, read_questions, with_a_row_for_each_question
from .ragged import Ragged, starts_of
from .spans import Spans
from .table import Table
from .tagged import cut_words
from .texts import Texts
from .token_header import LABELS, Header
from .words import SPAN_COLUMNS, TAG_COLUMNS, WordRows, words_of

SHARD_ROWS = 1 << 16
"""Rows of a shard: some seconds of work, and 100 MB of memory while they are text."""
MOST_VALUES = 1 << 16
"""Different labels that are listed in tokens.json; more are numbers, or no labels."""


@dataclass(frozen=True)
class Settings:
    """What decides the content of token files beside rows and tokenizer. The same ones go on where they were stopped.

    Attributes:
        labels: the form of the labels, see `token_header.FORMS`.
        max_length: tokens that rows are cut to, or the longest window has; None: none is cut.
        keep_texts: whether the texts are kept, for teachers with tokenizers of their own.
        text_column, text_pair_column, label_column: as in `columns.read_rows`.
        shard_rows: rows of a shard, at most.
        overlap: tokens that two windows of a row share, where rows become windows; else None.
    """

    labels: str = "values"
    max_length: int | None = None
    keep_texts: bool = False
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    shard_rows: int = SHARD_ROWS
    overlap: int | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Return the columns that are named, as arguments of `columns.rows_of`."""
        return {name: getattr(self, name) for name in ("text_column", "text_pair_column", "label_column")}


class Arrays(NamedTuple):
    """The arrays of a shard by name, `starts` and `examples` from 0 on, and how many of its rows were cut."""

    arrays: dict[str, NDArray[Any]]
    cut: int


class Encoder(Protocol):
    """Makes the arrays of shards.

    Attributes:
        first: what the first rows were read from.
    """

    first: FirstRows

    def __call__(self, table: Table, values: Values, progress: OnProgress, *, may_lack: bool, before: int) -> Arrays:
        """Return the arrays of a part of the data.

        Args:
            table: the part.
            values: gives labels their numbers.
            progress: called after each block.
            may_lack: whether rows leave out what they do not have, as those of JSON do.
            before: how many examples there are before.
        """


class FirstRows:
    """What the first rows were read from, which all others must have, too.

    Args:
        count: the rows of a shard, for messages.
        label_of: (table) -> a column that looks like labels; None where there is none, or nobody reads labels.

    Attributes:
        columns: of texts, second texts and labels; None before the first rows.
        unused: the other columns.
        class_names: names that the source has for the labels 0, 1, ...
    """

    def __init__(self, count: int, label_of: Callable[[Table], str | None]) -> None:
        self._count, self._label_of = count, label_of
        self.columns: Columns | None = None
        self.unused: Sequence[str] = ()
        self.class_names: Sequence[str] = ()
        self._warned = False  # of rows that lack the label

    def are_those_of(self, header: Header) -> None:
        """Take what an earlier call has read."""
        self.columns, self.unused, self.class_names = header.columns, header.unused, tuple(header.class_names)

    def are(self, columns: Columns, use: ColumnUse, class_names: Sequence[str] = ()) -> None:
        """Take what the first rows were read from, and warn of columns that are not."""
        self.columns, self.unused, self.class_names = columns, use.unused, tuple(class_names)
        if use.unused_sentence():
            warnings.warn(use.unused_sentence(), stacklevel=7)

    def with_their_columns(self, table: Table, *, may_lack: bool) -> Table:
        """Return a part with all the columns. Raises ValueError where it lacks one, or has labels that they lack."""
        assert self.columns is not None
        text, _, label = self.columns
        other = self._label_of(table) if label not in table.columns else None
        if label is None and other not in (None, *self.unused):
            raise ValueError(
                f"{table.where(0)}: a column of labels ({other!r}), which the first {self._count:,} rows lack; "
                "expected it in their rows too, empty where there is none"
            )
        lacking = [name for name in self.columns if name is not None and name not in table.columns and "," not in name]
        if lacking and (not may_lack or text in lacking or other is not None):
            raise ValueError(
                f"{table.where(0)}: no column {listing(map(repr, lacking))}, which the rows before were read from, "
                f"among {listing(map(repr, table.columns))}; expected the same names in all files"
            )
        if label in lacking and not self._warned:
            self._warned = True
            found = listing(map(repr, table.columns))
            warnings.warn(
                f"{table.where(0)}: the rows from here on have no {label!r} among {found} and are encoded without a "
                "label",
                stacklevel=7,
            )
        return replace(table, columns={**table.columns, **{name: [None] * len(table) for name in lacking}})

    def check_names(self, table: Table, class_names: Sequence[str]) -> None:
        """Raise ValueError for a part whose source has other names for its labels."""
        if tuple(class_names) != tuple(self.class_names):
            raise ValueError(
                f"{table.source} calls its labels {listing(class_names) or 'nothing'}; the rows before it call "
                f"them {listing(self.class_names) or 'nothing'}"
            )


class Values:
    """The different labels, in the order in which they occur first, and the number of each."""

    def __init__(self, header: Header) -> None:
        self.values, self.places = list(header.values), list(header.places)
        self._numbers = {self._key(value): number for number, value in enumerate(self.values)}

    def number(self, label: Any, table: Table, row: int) -> int:
        """Return the number of a label of a row of a table, which is not missing.

        Raises:
            TypeError: it is neither text nor numbers.
            ValueError: there are too many different ones.
        """
        try:
            number = self._numbers.get(self._key(label))
        except TypeError as error:
            raise TypeError(
                f"{table.where(row)}: label {label!r} is a {type(label).__name__}; expected text or numbers"
            ) from error
        if number is None:
            number = self._numbers[self._key(label)] = len(self.values)
            if number >= MOST_VALUES:
                raise ValueError(
                    f"{table.where(row)}: {MOST_VALUES:,} rows before it have different labels; where they are "
                    "numbers to learn, give --problem-type regression; else name another --label-column"
                )
            self.values.append(json.loads(json.dumps(label)))
            self.places.append(table.where(row))
        return number

    @staticmethod
    def _key(label: Any) -> Any:
        """Return what tells labels apart: 1, 1.0, "1" and true are four."""
        if isinstance(label, str):
            return str, label
        return json.dumps(label) if is_list(label) else (type(label), label, json.dumps(label))


class LabelledTexts:
    """Encodes texts or pairs with a label for each: of its value the number (`values`), or the number itself."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self.first = FirstRows(settings.shard_rows, lambda table: label_column_of(table, None))

    def __call__(self, table: Table, values: Values, progress: OnProgress, *, may_lack: bool, before: int) -> Arrays:
        """Return the arrays of a part of the data."""
        if self.first.columns is None:
            rows = rows_of(table, **self._settings.columns)
            self.first.are(rows.columns, rows.column_use, rows.class_names)
        else:
            table = self.first.with_their_columns(table, may_lack=may_lack)
            text, pair, label = self.first.columns
            rows = rows_of(table, text_column=text, text_pair_column=pair, label_column=label)
            self.first.check_names(table, rows.class_names)
        labels: NDArray[Any]
        if self._settings.labels == "numbers":
            labels = rows.read_labels(None, label_numbers)
        else:
            given = [None] * len(rows) if rows.labels is None else rows.labels
            numbers = (
                NO_LABEL if not is_list(label) and is_empty(label) else values.number(label, table, row)
                for row, label in enumerate(given)
            )
            labels = np.fromiter(numbers, np.int64, len(rows))
        tokens = encode_texts(
            Texts(rows.texts, rows.pairs).inputs(),
            self._tokenizer,
            max_length=self._settings.max_length,
            progress=progress,
        )
        arrays = _of_tokens(tokens.ids, tokens.types, tokens.starts, labels)
        if self._settings.keep_texts:
            arrays |= _of_texts("texts", rows.texts)
            arrays |= {} if rows.pairs is None else _of_texts("pairs", rows.pairs)
        return Arrays(arrays, tokens.cut)


class RunningText:
    """Encodes running text as blocks, whose labels are the words that may be hidden (`words`)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self.first = FirstRows(settings.shard_rows, lambda table: None)

    def __call__(self, table: Table, values: Values, progress: OnProgress, *, may_lack: bool, before: int) -> Arrays:
        """Return the arrays of a part of the data."""
        limit = self._settings.max_length
        assert limit is not None
        if self.first.columns is None:
            rows = rows_of(table, **self._settings.columns)
            if rows.columns.text_pair is not None:
                found = f"{rows.columns.text} and {rows.columns.text_pair}"
                raise ValueError(f"{table.source} has pairs of texts ({found}); name one column with --text-column")
            use = rows.column_use
            self.first.are(Columns(rows.columns.text), replace(use, labels=(), unused=(*use.unused, *use.labels)))
        else:
            table = self.first.with_their_columns(table, may_lack=may_lack)
            rows = rows_of(table, text_column=self.first.columns.text, text_pair_column=None, label_column=None)
        ids, starts, _ = blocks_of_texts(rows.texts, self._tokenizer, limit, progress)
        words = words_of_blocks(ids, masking_of(self._tokenizer))
        return Arrays(_of_tokens(ids, np.zeros_like(ids), starts, words), 0)


class TaggedWords:
    """Encodes rows of words as windows with a tag for each word (`tags`)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self.first = FirstRows(
            settings.shard_rows,
            lambda table: next((name for name in (*TAG_COLUMNS, *SPAN_COLUMNS) if name in table.columns), None),
        )

    def __call__(self, table: Table, values: Values, progress: OnProgress, *, may_lack: bool, before: int) -> Arrays:
        """Return the arrays of a part of the data."""
        settings = self._settings
        if self.first.columns is None:
            rows = words_of(table, text_column=settings.text_column, label_column=settings.label_column)
            self.first.are(rows.columns, rows.column_use, rows.class_names)
        else:
            table = self.first.with_their_columns(table, may_lack=may_lack)
            text, _, label = self.first.columns
            rows = words_of(table, text_column=text, label_column=label)
            self.first.check_names(table, rows.class_names)
        assert settings.overlap is not None
        cut = cut_words(
            rows,
            _numbered(rows, values),
            self._tokenizer,
            max_length=settings.max_length,
            overlap=settings.overlap,
            progress=progress,
        )
        cut.warn_of_left_out(rows)
        arrays = _of_tokens(cut.ids, cut.types, cut.starts, cut.labels)
        arrays |= {"examples": cut.examples, "words": cut.words, "further": cut.further}
        if settings.keep_texts:
            arrays |= _of_texts("texts", [json.dumps(list(of), ensure_ascii=False) for of in rows.words])
        return Arrays(arrays, cut.longer)


class AnsweredQuestions:
    """Encodes questions as windows of their contexts with the places of the answers (`answers`)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self.first = FirstRows(
            settings.shard_rows, lambda table: ANSWERS_COLUMN if ANSWERS_COLUMN in table.columns else None
        )

    def __call__(self, table: Table, values: Values, progress: OnProgress, *, may_lack: bool, before: int) -> Arrays:
        """Return the arrays of a part of the data."""
        settings, table = self._settings, with_a_row_for_each_question(table)
        question, context, answers = settings.columns.values()
        seen = self.first.columns is not None
        if self.first.columns is not None:
            table = self.first.with_their_columns(table, may_lack=may_lack)
            question, context, answers = self.first.columns
        questions = read_questions(
            table, question_column=question, context_column=context, answers_column=answers, first=before
        )
        assert settings.max_length is not None
        assert settings.overlap is not None
        rows = encode_questions(
            questions,
            self._tokenizer,
            max_length=settings.max_length,
            doc_stride=settings.overlap,
            progress=progress,
        )
        assert isinstance(rows.windows, Spans)
        assert rows.column_use is not None
        if not seen:
            self.first.are(Columns(*questions.columns), rows.column_use)
        arrays = _of_tokens(rows.ids, rows.types, rows.starts, rows.labels)
        spans = rows.windows
        arrays |= {"examples": spans.examples, "offsets": spans.offsets, "context": spans.context}
        each = zip(questions.ids, questions.questions, questions.contexts, questions.answers, strict=True)
        arrays |= _of_texts("texts", [json.dumps(of, ensure_ascii=False) for of in each])
        return Arrays(arrays, int((np.bincount(spans.examples) > 1).sum()))


def _numbered(rows: WordRows, values: Values) -> Ragged | None:
    """Return the number of each tag, UNTAGGED where it is not known, an empty list for a row without tags."""
    lists = rows.tag_lists()
    if lists is None:
        return None
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    numbers = (_number_of_tag(tag, rows.table, row, values) for row, tags in enumerate(lists) for tag in tags)
    return Ragged(np.fromiter(numbers, np.int64, int(lengths.sum())), starts_of(lengths))


def _number_of_tag(tag: Any, table: Table, row: int, values: Values) -> int:
    if not is_list(tag) and is_empty(tag):
        return UNTAGGED
    if not isinstance(tag, str) and not is_list(tag) and as_integer(tag) == NO_LABEL:
        return NO_LABEL
    return values.number(tag, table, row)


def _of_tokens(
    ids: NDArray[Any], types: NDArray[Any], starts: NDArray[Any], labels: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    return {"ids": ids, "types": types, "starts": starts, LABELS: labels}


def _of_texts(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    content = [text.encode() for text in texts]
    starts = starts_of(np.fromiter(map(len, content), np.int64, len(content)))
    return {name: np.frombuffer(b"".join(content), np.uint8), f"{name}.starts": starts}


_ENCODERS: dict[str, Callable[[PreTrainedTokenizerFast, Settings], Encoder]] = {
    "values": LabelledTexts,
    "numbers": LabelledTexts,
    "words": RunningText,
    "tags": TaggedWords,
    "answers": AnsweredQuestions,
}


def encoder_for(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Encoder:
    """Return what makes the arrays of the form that the settings name."""
    return _ENCODERS[settings.labels](tokenizer, settings)
