"""Rows of words with a tag each: found in a table as tokens and tags, or as texts with spans."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..system.names import listing
from ..system.unicode import check_characters
from .columns import NO_COLUMNS, TEXT_COLUMNS, TOKEN_COLUMNS, Columns, ColumnUse, parsed_list
from .files import DataFile, FileFormat
from .label_names import warn_of_missing_marks
from .label_values import as_integer, is_list
from .patterns import matching_paths
from .ragged import Ragged
from .sources import read_table
from .table import Table
from .tags import OUTSIDE, implied_tags, is_empty_row, lists_of_tags, tag_ids

TAG_COLUMNS = ("tags", "ner_tags", "labels")
"""Columns of lists of tags."""
SPAN_COLUMNS = ("entities", "spans")
"""Columns of lists of spans in a text."""
PIECE_COLUMNS = ("data",)
"""Columns of lists of pieces of text, some with an entity, as the files of SNIPS are."""
_WORD = re.compile(r"\w+|[^\w\s]")
_TAG = re.compile(r"[BIESLU]-")
_LONGEST_HEADER = 1 << 16  # bytes
_MOST_SHOWN = 3
_WORD_A_LINE = "a file with a word and its tag a line has no header, and ends in .conll or .iob"
_EXPECTED_TAGS = (
    f"; expected lists of tags ({', '.join(TAG_COLUMNS)}) beside words, or of spans ({', '.join(SPAN_COLUMNS)}) beside "
    "texts, as .jsonl, .json and .parquet files hold them, or a word and its tag a line in a .conll or .iob file"
)
_LABELS_OF_SPANS = ("label", "entity", "type", "entity_group", "tag")


@dataclass(frozen=True)
class WordRows:
    """Rows of words.

    Attributes:
        words: of each row.
        tags: of each row as the source holds them, None for a row without; None where no row has them.
        texts: the texts that the words were cut out of, or None, and ...
        offsets: ... where each word is in its text: (start, end), in characters.
        table: the rows' source.
        class_names: names that the source has for the tags 0, 1, ..., or none.
        columns: where words and tags were found.
    """

    words: Sequence[Sequence[str]]
    tags: Sequence[Any] | None
    texts: Sequence[str] | None
    offsets: Sequence[Sequence[tuple[int, int]]] | None
    table: Table
    class_names: Sequence[str] = ()
    columns: Columns = NO_COLUMNS

    def __len__(self) -> int:
        return len(self.words)

    @property
    def column_use(self) -> ColumnUse:
        """The columns that these rows were read from, and the others of the table."""
        if self.columns.label is not None:
            return ColumnUse.of(self.table, self.columns[:1], self.columns.label)
        others = tuple(name for name in self.table.columns if name != self.columns.text)
        texts = (str(self.columns.text),)
        return ColumnUse(self.table.source, texts, (), others, _EXPECTED_TAGS, "column of tags")

    def id2label(self) -> dict[int, str]:
        """Return the tags of these rows as a label map: those that the source states, else those that occur.

        Raises `ValueError` without any.
        """
        if self.tags is None:
            raise ValueError(f"no row has a tag; {self.column_use.why_no_labels()}")
        return dict(enumerate(self.class_names)) or implied_tags(self.tags, self.table)

    def read_tags(self, id2label: Mapping[int, str] | None) -> Ragged | None:
        """Return the tags as `tags.tag_ids` makes them; None where no row has any.

        Raises what it raises, and ValueError for a row with more or fewer tags than words.
        """
        lists = self.tag_lists()
        if lists is None:
            return None
        every = [tag for tags in lists for tag in tags]
        warn_of_missing_marks(self.table.source, every, (id2label or {}).values(), "words")
        read: Ragged = tag_ids(lists, id2label, self.table.where, self.class_names)
        return read

    def tag_lists(self) -> list[Sequence[Any]] | None:
        """Return the tags of each row as the source holds them, empty for one without; None where no row has any.

        Raises what `tags.lists_of_tags` raises, and ValueError for a row with more or fewer tags than words.
        """
        if self.tags is None:
            return None
        for row, (words, tags) in enumerate(zip(self.words, self.tags, strict=True)):
            if is_list(tags) and len(tags) != len(words):
                raise ValueError(
                    f"{self.table.where(row)}: {len(words)} tokens and {len(tags)} tags; expected a tag for each token"
                )
        return lists_of_tags(self.tags, self.table.where)


def _names_columns(names: Sequence[str]) -> bool:
    """Return whether the first line of a file is the header of a table of words or texts, not a word and its tag."""
    known = any(name in (*TOKEN_COLUMNS, *TEXT_COLUMNS) for name in names)
    return len(names) > 1 and known and not any(name == OUTSIDE or _TAG.match(name) for name in names)


def has_a_word_a_line(path: Path) -> bool:
    """Return whether a .tsv holds a word and its tag a line for a model that tags: its first line names no columns.

    False where there is no such file, for its reader.
    """
    if path.suffix.lower() != ".tsv":
        return False
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
    except OSError:
        return False
    return not _names_columns(line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t"))


def read_word_table(source: Any, *, columns_named: bool) -> Table:
    """Return the table of a source as `read_table` does, but of a .tsv with a word and its tag a line.

    Args:
        source: as in `read_table`.
        columns_named: whether the caller names columns, which such a file lacks.
    """
    if isinstance(source, str | os.PathLike) and not isinstance(source, DataFile) and not columns_named:
        path = os.fspath(source)
        if has_a_word_a_line(Path(matching_paths(path)[0])):
            source = DataFile(path, FileFormat("conll"))
    return read_table(source)


def has_words(table: Table) -> bool:
    """Return whether a table holds words with tags, or texts with spans, going by its columns."""
    if any(_is_column_of_lists(table, name) for name in TOKEN_COLUMNS):
        return True
    if any(_is_column_of_pieces(table, name) for name in PIECE_COLUMNS):
        return True
    texts = any(name in table.columns for name in TEXT_COLUMNS)
    return texts and any(_is_column_of_lists(table, name) for name in SPAN_COLUMNS)


def words_of(
    table: Table,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
) -> WordRows:
    """Return the rows of words of a table.

    Words are the lists of a column `tokens` or `words`, with the tags of `tags`, `ner_tags` or `labels`. Or a text is
    cut at white space and around punctuation, and has the spans of `entities` or `spans`: {"start", "end", "label"},
    in characters. Or a row is a list of pieces of text, some with an entity: {"text", "entity"}.

    Args:
        table: the rows.
        text_column: the column of words, texts or pieces.
        label_column: the column of tags or spans.
        trained_on: the columns that the model was trained on, which go before the convention.

    Raises:
        ValueError: a column is missing, there are no rows, or a span is none; with the row's place.
        TypeError: words are no lists of texts; likewise.
    """
    for argument, column in (("text_column", text_column), ("label_column", label_column)):
        if column is not None and column not in table.columns:
            raise ValueError(f"{argument} is {column!r}; the columns of {table.source} are {listing(table.columns)}")
    if len(table) == 0:
        raise ValueError(f"{table.source} has no rows")
    known = [name for name in (text_column, trained_on.text, *TOKEN_COLUMNS, *TEXT_COLUMNS, *PIECE_COLUMNS) if name]
    column = next((name for name in known if name in table.columns), None)
    if column is None:
        raise ValueError(
            f"{table.source} has no words: expected a column {listing(TOKEN_COLUMNS)} of lists, or of texts, "
            f"{listing(TEXT_COLUMNS)}; its columns are {listing(table.columns)}. Name it with --text-column; "
            f"{_WORD_A_LINE}"
        )
    if _is_column_of_pieces(table, column):
        return _of_pieces(table, column)
    first = next((value for value in table.columns[column] if value is not None), None)
    if isinstance(first, str) and not _is_column_of_lists(table, column):
        if column in TOKEN_COLUMNS and column != text_column:
            row = next(row for row, value in enumerate(table.columns[column]) if value is not None)
            raise TypeError(
                f"{table.where(row)}: {column!r} holds {first!r}; expected a list of words, as in ['Ann', 'sings'], "
                f"beside a list of tags. A column of texts is named with --text-column {column}; {_WORD_A_LINE}"
            )
        return _of_texts(table, column, label_column or _first(table, (trained_on.label, *SPAN_COLUMNS)))
    return _of_tokens(table, column, label_column or _first(table, (trained_on.label, *TAG_COLUMNS)))


def _first(table: Table, names: Sequence[str | None]) -> str | None:
    return next((name for name in names if name is not None and name in table.columns), None)


def _listed(value: Any) -> Any:
    """Return the list that a text of a TSV or CSV spells; anything else as it is."""
    return parsed_list(value) if isinstance(value, str) else value


def _is_column_of_lists(table: Table, name: str) -> bool:
    """Return whether the first value of a column, if there is such a column, is a list."""
    value = next((value for value in table.columns.get(name, ()) if value is not None), None)
    return is_list(_listed(value))


def _is_column_of_pieces(table: Table, name: str) -> bool:
    value: Any = next((value for value in table.columns.get(name, ()) if value), None)
    return is_list(value) and all(isinstance(piece, Mapping) and "text" in piece for piece in value)


def _of_tokens(table: Table, column: str, label_column: str | None) -> WordRows:
    words: list[Any] = [_listed(value) for value in table.columns[column]]
    for row, value in enumerate(words):
        if not is_list(value) or not all(isinstance(word, str) for word in value):
            shown = value if not is_list(value) else next(word for word in value if not isinstance(word, str))
            raise TypeError(f"{table.where(row)}: {column!r} holds {shown!r}; expected a list of words")
        for word in value:
            _check_characters(table, row, column, word)
    tags = None if label_column is None else [_listed(value) for value in table.columns[label_column]]
    tags = None if tags is None or all(map(is_empty_row, tags)) else tags
    names = () if label_column is None else table.class_names.get(label_column, ())
    return WordRows(words, tags, None, None, table, names, Columns(column, None, label_column))


def _of_texts(table: Table, column: str, label_column: str | None) -> WordRows:
    texts = list(table.columns[column])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{table.where(row)}: {column!r} holds {text!r}; expected a text")
        _check_characters(table, row, column, text)
    offsets = [split(text) for text in texts]
    tags: list[list[str] | None] | None = None
    if label_column is not None:
        spans = [_spans(table, row, label_column, text) for row, text in enumerate(texts)]
        tags = _tags_of_spans(table, texts, offsets, spans)
    words = [[text[start:end] for start, end in of] for text, of in zip(texts, offsets, strict=True)]
    return WordRows(words, tags, texts, offsets, table, (), Columns(column, None, label_column))


def _of_pieces(table: Table, column: str) -> WordRows:
    texts: list[str] = []
    all_spans: list[list[tuple[int, int, str]] | None] = []
    for row, pieces in enumerate(table.columns[column]):
        text, spans = "", []
        for piece in pieces:
            if not isinstance(piece, Mapping) or not isinstance(piece.get("text"), str):
                raise TypeError(f"{table.where(row)}: {column!r} holds {piece!r}; expected pieces with a text")
            _check_characters(table, row, column, piece["text"])
            start, text = len(text), text + piece["text"]
            if piece.get("entity"):
                spans.append((start, len(text), str(piece["entity"])))
        texts.append(text)
        all_spans.append(spans)
    offsets = [split(text) for text in texts]
    tags = _tags_of_spans(table, texts, offsets, all_spans)
    words = [[text[start:end] for start, end in of] for text, of in zip(texts, offsets, strict=True)]
    return WordRows(words, tags, texts, offsets, table, (), Columns(column, None, None))


def _check_characters(table: Table, row: int, column: str, text: str) -> None:
    if not text.isascii():  # the name would be made for every word
        check_characters(f"{table.where(row)}: column {column!r}", text)


def split(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text are, (start, end) in characters: runs of letters and digits, or other signs."""
    return [match.span() for match in _WORD.finditer(text)]


def _spans(table: Table, row: int, column: str, text: str) -> list[tuple[int, int, str]] | None:
    """Return the spans in a row's text as (start, end, label), None where it has no list of them."""
    given = _listed(table.columns[column][row])
    if is_empty_row(given):
        return None
    where = table.where(row)
    if not is_list(given):
        raise TypeError(f"{where}: {column!r} holds {given!r}; expected a list of spans")
    spans = []
    for span in given:
        label = (
            next((span[name] for name in _LABELS_OF_SPANS if name in span), None) if isinstance(span, Mapping) else 0
        )
        ends = [as_integer(span.get(name)) for name in ("start", "end")] if isinstance(span, Mapping) else [None]
        if not isinstance(label, str) or None in ends:
            raise ValueError(f'{where}: {column!r} holds {span!r}; expected {{"start": 0, "end": 5, "label": "name"}}')
        start, end = ends
        spans.append((int(start or 0), int(end or 0), label))
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"{where}: the span {label!r} is {start} to {end} in a text of {len(text)} characters; expected "
                f"0 <= start < end <= {len(text)}"
            )
    return spans


def _tags_of_spans(
    table: Table,
    texts: Sequence[str],
    offsets: Sequence[Sequence[tuple[int, int]]],
    spans: Sequence[list[tuple[int, int, str]] | None],
) -> list[list[str] | None]:
    """Return the tags of the words, in IOB2. A word that a span covers in part belongs to it; of two, to the first.

    Raises ValueError for two spans of a text that overlap, as a word has one tag.
    """
    found: list[list[str] | None] = []
    count = inside = 0
    wordless: list[str] = []
    for row, (words, of) in enumerate(zip(offsets, spans, strict=True)):
        if of is None:
            found.append(None)
            continue
        tags = [OUTSIDE] * len(words)
        apart = sorted(set(of))
        for one, other in pairwise(apart):
            if other[0] < one[1]:
                shown = " and ".join(f"{label!r} ({start} to {end})" for start, end, label in (one, other))
                raise ValueError(
                    f"{table.where(row)}: the spans {shown} overlap; expected spans apart from each other, as a word "
                    "has one tag: leave one of the two out"
                )
        for start, end, label in apart:
            covered = [place for place, (a, b) in enumerate(words) if a < end and b > start and tags[place] == OUTSIDE]
            count += 1
            inside += any(words[place][0] < start or words[place][1] > end for place in covered)
            if not covered:
                wordless.append(f"{label!r} ({start} to {end}) in {table.where(row)}")
            for place in covered:
                tags[place] = f"{'B' if place == covered[0] else 'I'}-{label}"
        found.append(tags)
    if inside:
        warnings.warn(
            f"{table.source}: {inside:,} of {count:,} spans begin or end inside of a word, which is tagged whole",
            stacklevel=4,
        )
    if wordless:
        warnings.warn(
            f"{table.source}: {len(wordless):,} of {count:,} spans are left out, as they have no word of their own: "
            f"{listing(wordless, _MOST_SHOWN)}",
            stacklevel=4,
        )
    return found
