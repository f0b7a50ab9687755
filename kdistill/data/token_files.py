"""`TokenFiles`: rows of token ids in a directory, mapped into memory instead of read into it, see `token_header`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import PreTrainedTokenizerFast
from .blocks import blocks_of
from .columns import TOKEN_COLUMNS, ColumnUse
from .dataset import Dataset, Reading
from .files import TOKEN_HEADER, DataFile, FileFormat, are_token_files
from .label_names import warn_of_missing_marks, warn_of_other_names
from .labels import NO_LABEL, LabelReader, missing_like
from .masking import Masking
from .questions import CONTEXT_COLUMN, ID_COLUMN, QUESTION_COLUMN, Answer, Questions
from .spans import Spans
from .table import Table
from .tagged import labels_of_all_tokens
from .tags import tag_ids
from .texts import Texts
from .token_header import ARRAYS, LABELS, OF_TWO, TOKENIZER_DIRECTORY, Header, first_damaged
from .windows import Windows
from .words import TAG_COLUMNS

Held = TypeVar("Held")


def token_files_of(source: Any) -> TokenFiles | None:
    """Return the token files that a source of rows is, or the path of, opened; None for any other source.

    Raises:
        ValueError: they are unfinished or damaged, or a format is given for them.
    """
    if isinstance(source, TokenFiles) or not isinstance(source, str | os.PathLike) or not are_token_files(source):
        return source if isinstance(source, TokenFiles) else None
    if isinstance(source, DataFile) and source.format != FileFormat(source.format.kind):
        raise ValueError(
            f"{source.path} holds token files, which need no --columns, --delimiter, --quoted or --encoding; leave "
            "them out"
        )
    return TokenFiles(source)


class TokenFiles:
    """A directory that `kdistill encode` has written, as rows to train and to measure on.

    Args:
        path: the directory.

    Attributes:
        path: the directory.
        header: what tokens.json holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not finished, or a file is damaged; names the shard.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not are_token_files(path):
            raise FileNotFoundError(f"{self.path} has no {TOKEN_HEADER}; expected a directory of `kdistill encode`")
        self.header = Header.from_json(self.path / TOKEN_HEADER)
        if not self.header.finished:
            raise ValueError(
                f"{self.path} is not finished: it has {self.header.rows:,} rows, and more were to come. Run the same "
                "`kdistill encode` again; it goes on from there"
            )
        if not (self.path / TOKENIZER_DIRECTORY).is_dir():
            raise ValueError(
                f"{self.path} lacks its directory {TOKENIZER_DIRECTORY!r}, with which runs compare theirs. Run the "
                "same `kdistill encode` again, which writes it"
            )
        damaged = first_damaged(self.path, self.header)
        if damaged is not None:
            shard, what = damaged
            raise ValueError(
                f"{what}: shard {shard + 1} of {len(self.header.shards)} of {self.path} is damaged. Run the same "
                "`kdistill encode` again, which makes it and those after it anew"
            )

    def __len__(self) -> int:
        return self.header.rows

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def source(self) -> str:
        """What messages call them."""
        return str(self.path)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that they were made with."""
        return PreTrainedTokenizerFast.from_pretrained(self.path / TOKENIZER_DIRECTORY)

    @property
    def has_pairs(self) -> bool:
        """Whether rows are pairs of texts."""
        return self.header.columns.text_pair is not None

    @property
    def are_blocks(self) -> bool:
        """Whether rows are blocks of running text, for a language model."""
        return bool(self.header.settings["labels"] == "words")

    @property
    def are_windows(self) -> bool:
        """Whether rows are windows, of rows of words with tags or of questions."""
        return self.header.form.in_windows

    @property
    def hold_words(self) -> bool:
        """Whether rows are windows of rows of words with tags."""
        return bool(self.header.settings["labels"] == "tags")

    @property
    def labels_table(self) -> Table:
        """A table with a row for each different label: what a model has to know to get labels, without the texts."""
        columns, values = self.header.columns, list(self.header.values)
        if self.are_windows and not self.hold_words:
            return Table(self.source, {QUESTION_COLUMN: [""], CONTEXT_COLUMN: [""]})
        if self.hold_words:
            names = {TAG_COLUMNS[0]: self.header.class_names} if self.header.class_names else {}
            tags = {TAG_COLUMNS[0]: [[value] for value in values]} if values else {}
            return Table(
                self.source, {TOKEN_COLUMNS[0]: [[""]] * max(len(values), 1), **tags}, self.header.places or None, names
            )
        texts = {name: [""] * len(values) for name in columns[:2] if name is not None}
        if columns.label is None:
            return Table(self.source, texts)
        names = {columns.label: self.header.class_names} if self.header.class_names else {}
        return Table(self.source, {**texts, columns.label: values}, self.header.places, names)

    def array(self, name: str) -> NDArray[Any]:
        """Return an array, mapped."""
        dtype = self.header.form.dtype if name == LABELS else ARRAYS[name]
        path = self.path / self.header.file_name(name)
        found = np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)
        return found.reshape(-1, 2) if name in OF_TWO or (name == LABELS and self.header.form.width == 2) else found

    def dataset(
        self,
        id2label: Mapping[int, str] | None,
        read_labels: LabelReader | None,
        *,
        max_length: int | None,
        types: bool,
        texts: bool,
    ) -> Dataset:
        """Return the rows; what memory they take is that of the pages that the kernel keeps of the files.

        Args:
            id2label: the model's label map, which checks ids and translates names.
            read_labels: makes the array of labels, as in `dataset.encode`; None: all are missing, NaN.
            max_length: tokens that the model's rows are cut to, as these are.
            types: whether the model's tokenizer gives token types; they are 0 otherwise.
            texts: whether to give the texts too, which are there.

        Raises:
            ValueError: a label does not fit, as in `dataset.encode`.
        """
        header = self.header
        ids = self.array("ids")
        return Dataset(
            ids,
            self.array("types") if types else np.zeros(len(ids), np.int32),  # never written: one page of zeros
            self.array("starts"),
            self._labels(id2label, read_labels),
            reading=Reading(header.columns, max_length, header.cut, header.numbered),
            column_use=self._column_use,
            texts=self.texts() if texts else None,
            lengths=self.array("lengths"),
        )

    @property
    def _column_use(self) -> ColumnUse:
        columns = self.header.columns
        read = tuple(name for name in columns[:2] if name is not None)
        labels = () if columns.label is None else (columns.label,)
        return ColumnUse(self.source, read, labels, tuple(self.header.unused))

    def windows(
        self, id2label: Mapping[int, str] | None, *, max_length: int | None, types: bool, texts: bool, all_tokens: bool
    ) -> Dataset:
        """Return rows of words as windows with a label for each token.

        Args:
            id2label: as in `dataset`.
            max_length: tokens of the longest window of the model, as they are here.
            types: as in `dataset`.
            texts: whether to give the words too, which are there.
            all_tokens: as in `tagged.encode_words`; the labels are then in memory.

        Raises:
            ValueError: a tag is not the model's.
        """
        ids, labels = self.array("ids"), self._tags(id2label)
        further = self.array("further").view(np.bool_)
        words = Mapped(self.texts().first, list[str]) if texts else None
        return Dataset(
            ids,
            self.array("types") if types else np.zeros(len(ids), np.int32),
            self.array("starts"),
            labels_of_all_tokens(labels, further, id2label or {}) if all_tokens else labels,
            reading=Reading(self.header.columns, max_length, 0, self.header.numbered),
            column_use=self._column_use,
            per_token=True,
            windows=Windows(self.array("examples"), self.array("words"), words),
            lengths=self.array("lengths"),
        )

    def questions(self, *, max_length: int | None, types: bool) -> Dataset:
        """Return questions as windows of their contexts.

        Args:
            max_length: tokens of a window of the model, as they are here.
            types: as in `dataset`.
        """
        ids, columns = self.array("ids"), self.header.columns
        assert columns.text is not None
        assert columns.text_pair is not None
        records = self.texts().first
        names, questions, contexts = (Mapped(records, itemgetter(place)) for place in range(3))
        table = Table(self.source, {ID_COLUMN: names})
        held = Questions(
            names,
            questions,
            contexts,
            Mapped(records, _answers_of),
            table,
            (columns.text, columns.text_pair, columns.label),
        )
        return Dataset(
            ids,
            self.array("types") if types else np.zeros(len(ids), np.int32),
            self.array("starts"),
            self.array(LABELS),
            reading=Reading(columns, max_length, 0),
            column_use=self._column_use,
            windows=Spans(held, self.array("examples"), self.array("offsets"), self.array("context")),
            lengths=self.array("lengths"),
        )

    def _tags(self, id2label: Mapping[int, str] | None) -> NDArray[np.int64]:
        """Return the labels of tokens as the model's: those in the file where they are the same, else in memory."""
        labels, values = self.array(LABELS), list(self.header.values)
        warn_of_missing_marks(self.source, values, (id2label or {}).values(), "different tags")
        each = [[value] for value in values]
        read = tag_ids(each, id2label, self.labels_table.where, self.header.class_names).values
        return labels if np.array_equal(read, np.arange(len(read))) else with_values(labels, read)

    def blocks(self, masking: Masking) -> Dataset:
        """Return blocks of running text, from which `masking` hides words."""
        header = self.header
        column = header.columns.text
        assert column is not None
        return Dataset(
            self.array("ids"),
            self.array("types"),
            self.array("starts"),
            self.array(LABELS),
            reading=Reading(header.columns, header.max_length, header.cut),
            column_use=ColumnUse(self.source, (column,), ("the text itself",), tuple(header.unused)),
            per_token=True,
            masking=masking,
            lengths=self.array("lengths"),
        )

    @property
    def has_texts(self) -> bool:
        """Whether the texts were kept."""
        return bool(self.header.settings["keep_texts"])

    def texts(self) -> Texts:
        """Return the texts, which stay in their file."""
        names = ("texts", "pairs") if self.has_pairs and not self.are_windows else ("texts",)
        return Texts(*(MappedTexts(self.array(name), self.array(f"{name}.starts")) for name in names))

    def _labels(self, id2label: Mapping[int, str] | None, read_labels: LabelReader | None) -> NDArray[Any]:
        """Return the labels as the model's: those in the file where they are the same, else made of them in memory."""
        if read_labels is None:
            return np.broadcast_to(np.full(1, np.nan, np.float32), len(self))
        labels = self.array(LABELS)
        if self.header.settings["labels"] == "numbers":
            return labels
        table, values = self.labels_table, list(self.header.values)
        if not values:  # no row has a label
            none = read_labels([None], id2label, table.where, ())
            if none.shape == (1,) and none.dtype.kind == "i":
                return labels
            return np.broadcast_to(none, (len(self), *none.shape[1:]))
        names, class_names = id2label or {}, self.header.class_names
        warn_of_missing_marks(self.source, values, names.values(), "different labels")
        read = read_labels(values, id2label, table.where, class_names)
        warn_of_other_names(self.source, class_names, names)
        if read.ndim == 1 and read.dtype.kind == "i" and np.array_equal(read, np.arange(len(read))):
            return labels
        with_none = np.concatenate((read, missing_like(read[:1])))
        return np.asarray(with_none[np.where(labels == NO_LABEL, len(read), labels)])


def with_values(labels: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return labels with other numbers: `numbers[label]` for each that is not missing (below 0)."""
    found = np.empty(len(labels), np.int64)
    for block in blocks_of(len(labels)):
        some = labels[block]
        found[block] = np.where(some < 0, some, numbers[np.maximum(some, 0)]) if len(numbers) else some
    return found


class MappedTexts(Sequence[str]):
    """Texts in a file, each decoded when it is asked for.

    Args:
        content: of all, UTF-8, uint8 (bytes,).
        starts: where each begins, and the last one ends, int64 (texts + 1,).
    """

    def __init__(self, content: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self._content, self._starts = content, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._content[self._starts[place] : self._starts[place + 1]].tobytes().decode()


class Mapped(Sequence[Held]):
    """What examples in a file hold, each parsed when it is asked for.

    Args:
        texts: JSON for each example.
        read: makes what is held of the parsed JSON.
    """

    def __init__(self, texts: Sequence[str], read: Callable[[Any], Held]) -> None:
        self._texts, self._read = texts, read

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Held: ...
    @overload
    def __getitem__(self, index: slice) -> list[Held]: ...
    def __getitem__(self, index: int | slice) -> Held | list[Held]:
        if isinstance(index, slice):
            return [self._read(json.loads(text)) for text in self._texts[index]]
        return self._read(json.loads(self._texts[index]))


def _answers_of(question: list[Any]) -> tuple[Answer, ...] | None:
    return None if question[3] is None else tuple(Answer(*answer) for answer in question[3])


def check_ids(path: Path, header: Header) -> None:
    """Raise ValueError where two questions of different shards have one id, in memory of 16 bytes for each."""
    texts = (np.memmap(path / header.file_name(name), ARRAYS[name], "r") for name in ("texts", "texts.starts"))
    names = Mapped(MappedTexts(*texts), itemgetter(0))
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    for place in np.flatnonzero(np.diff(hashes[order]) == 0).tolist():
        one, other = order[place : place + 2].tolist()
        if names[one] == names[other]:
            raise ValueError(
                f"the id {names[one]!r} is that of question {one:,} and of question {other:,}, counted from 0; "
                "expected another for each question, as answers are scored by it"
            )
