"""Token files: rows of token ids in a directory, mapped into memory instead of read into it.

    tokens.json   what they are: task, tokenizer, maximum length, labels, and the shards with a checksum of each array
    tokenizer/    the tokenizer's own files
    ids.bin       int32 (tokens,), token ids
    types.bin     int32 (tokens,), token types; a hole in the file where all are 0
    starts.bin    int64 (rows + 1,), row r holds tokens starts[r]:starts[r + 1]
    lengths.bin   int64 (rows,), tokens of each row
    labels.bin    what `FORMS` says; `labels.ordered.bin` once the labels have their final numbers
    texts.bin     with `--keep-texts`: the texts in UTF-8; texts.starts.bin, int64 (rows + 1,): where each begins
    pairs.bin     with `--keep-texts` the second texts of pairs, and pairs.starts.bin

All numbers are little-endian, one array a file, since the core reads rows out of one array. A shard is a run of rows:
the same part of each file. `data.token_writer` writes them one after another, and `tokens.json` anew after each.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ..system.files import read_json_object
from ..text.tokenizer import PreTrainedTokenizerFast
from .columns import NO_COLUMNS, Columns, ColumnUse
from .dataset import Dataset, Reading
from .files import TOKEN_HEADER, DataFile, FileFormat, are_token_files
from .label_names import warn_of_missing_marks, warn_of_other_names
from .labels import NO_LABEL, LabelReader, missing_like
from .masking import Masking
from .table import Table
from .texts import Texts

FORMAT = "kdistill token files"
VERSION = 1
TOKENIZER_DIRECTORY = "tokenizer"
LABELS, ORDERED = "labels", "labels.ordered"
_CHECKED = 1 << 22  # bytes read at once to check them
_MAX_HEADER_BYTES = 1 << 30  # some two million shards

ARRAYS: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"),
    "types": np.dtype("<i4"),
    "starts": np.dtype("<i8"),
    "lengths": np.dtype("<i8"),
    "texts": np.dtype("u1"),
    "texts.starts": np.dtype("<i8"),
    "pairs": np.dtype("u1"),
    "pairs.starts": np.dtype("<i8"),
}
"""The arrays beside the labels, with their types."""


class LabelForm(NamedTuple):
    """How labels.bin holds the labels.

    Attributes:
        dtype: of an entry.
        per_token: whether there is one for each token instead of one for each row.
    """

    dtype: np.dtype[Any]
    per_token: bool = False


FORMS = {
    "values": LabelForm(np.dtype("<i8")),
    "numbers": LabelForm(np.dtype("<f4")),
    "words": LabelForm(np.dtype("<i8"), per_token=True),
}
"""`values`: the place of a label in the list of different labels in tokens.json, NO_LABEL for none. `numbers`: those of
a regression, NaN for none. `words`: of running text the tokens that may be hidden, NO_LABEL for others."""


@dataclass(frozen=True)
class Shard:
    """A run of rows that is written and checked as a whole.

    Attributes:
        file, part: the number of the file that they are from, and of the part of it.
        read: rows of that part.
        rows: how many were made of them.
        tokens: of all its rows.
        cut: how many were longer than the maximum length.
        longest: tokens of the longest one.
        bytes: of its part of each array, by name.
        crc32: of these.
    """

    file: int
    part: int
    read: int
    rows: int
    tokens: int
    cut: int
    longest: int
    bytes: Mapping[str, int]
    crc32: Mapping[str, int]


@dataclass(frozen=True)
class Header:
    """What tokens.json holds.

    Attributes:
        settings: what decides the content beside the rows, see `token_writer.Settings`.
        tokenizer: the tokenizer's content hash.
        inputs: the files that are read, each with its size and time of change.
        columns: of the texts, second texts and labels.
        labels: the name of the array of labels.
        values: the different labels as the source holds them, in the order of their numbers.
        places: where each of them occurs first, for messages.
        class_names: names that the source itself has for the labels 0, 1, ..., or none.
        numbered: see `dataset.Reading`.
        unused: the columns that were not read.
        shards: the finished ones, in their order.
        finished: whether all rows are there.
    """

    settings: Mapping[str, Any]
    tokenizer: str
    inputs: Sequence[Mapping[str, Any]]
    columns: Columns = NO_COLUMNS
    labels: str = LABELS
    values: Sequence[Any] = ()
    places: Sequence[str] = ()
    class_names: Sequence[str] = ()
    numbered: bool = False
    unused: Sequence[str] = ()
    shards: Sequence[Shard] = ()
    finished: bool = False

    @property
    def rows(self) -> int:
        """The rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> int:
        """The tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def cut(self) -> int:
        """The rows that were longer than the maximum length."""
        return sum(shard.cut for shard in self.shards)

    @property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return max((shard.longest for shard in self.shards), default=0)

    @property
    def form(self) -> LabelForm:
        """How the labels are held."""
        return FORMS[self.settings["labels"]]

    @property
    def max_length(self) -> int | None:
        """The tokens that rows were cut to, None for any length."""
        length: int | None = self.settings["max_length"]
        return length

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content |= {"columns": self.columns._asdict(), "shards": [vars(shard) for shard in self.shards]}
        return {"format": FORMAT, "version": VERSION, **content}

    @classmethod
    def from_json(cls, path: Path) -> Header:
        """Read it. Raises ValueError for a file that is no such header, or of another version."""
        content = read_json_object(path, _MAX_HEADER_BYTES)
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not what `kdistill encode` writes; expected a directory of token files")
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(f"{path} has version {version}; this kdistill reads {VERSION}: encode the rows anew")
        try:
            content["shards"] = [Shard(**shard) for shard in content["shards"]]
            content["columns"] = Columns(**content["columns"])
            header = cls(**content)
            header._check()
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); encode the rows anew, into another directory") from error
        return header

    def _check(self) -> None:
        """Raise TypeError or KeyError where a value has another type than those that are written."""
        texts = [self.tokenizer, *self.places, *self.class_names, *self.unused, *filter(None, self.columns)]
        numbers = [] if self.max_length is None else [self.max_length]
        for shard in self.shards:
            numbers += [shard.file, shard.part, shard.read, shard.rows, shard.tokens, shard.cut, shard.longest]
            numbers += [of[name] for of in (shard.bytes, shard.crc32) for name in self.listed_arrays()]
        if (
            not all(isinstance(of, list) for of in (self.places, self.class_names, self.unused, self.values))
            or not all(isinstance(text, str) for text in texts)
            or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            or len(self.places) != len(self.values)
            or self.labels not in (LABELS, ORDERED)
            or self.settings["labels"] not in FORMS
        ):
            raise TypeError("a value is none of those that are written")

    def listed_arrays(self) -> list[str]:
        """Return the names of the arrays that there are, as shards list them."""
        names = ["ids", "types", "starts", "lengths", LABELS]
        if self.settings["keep_texts"]:
            names += ["texts", "texts.starts"]
            names += ["pairs", "pairs.starts"] if self.columns.text_pair is not None else []
        return names

    def file_name(self, array: str) -> str:
        """Return the name of the file that holds an array."""
        return f"{self.labels if array == LABELS else array}.bin"


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
    def labels_table(self) -> Table:
        """A table with a row for each different label: what a model has to know to get labels, without the texts."""
        columns, values = self.header.columns, list(self.header.values)
        texts = {name: [""] * len(values) for name in columns[:2] if name is not None}
        if columns.label is None:
            return Table(self.source, texts)
        names = {columns.label: self.header.class_names} if self.header.class_names else {}
        return Table(self.source, {**texts, columns.label: values}, self.header.places, names)

    def array(self, name: str) -> NDArray[Any]:
        """Return an array, mapped."""
        dtype = self.header.form.dtype if name == LABELS else ARRAYS[name]
        path = self.path / self.header.file_name(name)
        return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)

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
        header, columns = self.header, self.header.columns
        read = tuple(name for name in columns[:2] if name is not None)
        use = ColumnUse(self.source, read, () if columns.label is None else (columns.label,), tuple(header.unused))
        ids = self.array("ids")
        return Dataset(
            ids,
            self.array("types") if types else np.zeros(len(ids), np.int32),  # never written: one page of zeros
            self.array("starts"),
            self._labels(id2label, read_labels),
            reading=Reading(columns, max_length, header.cut, header.numbered),
            column_use=use,
            texts=self.texts() if texts else None,
            lengths=self.array("lengths"),
        )

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
        names = ("texts", "pairs") if self.has_pairs else ("texts",)
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


def first_damaged(path: Path, header: Header) -> tuple[int, str] | None:
    """Return the first shard that is not as it was written and a sentence about it; None where all are whole.

    Raises:
        OSError: a file cannot be read.
    """
    found: list[tuple[int, str]] = []
    for name in header.listed_arrays():
        file = path / header.file_name(name)
        if not file.is_file():
            return 0, f"{file} is missing"
        problem = next(_damage(file, name, header), None)
        found += [] if problem is None else [problem]
    return min(found, default=None)


def _damage(path: Path, name: str, header: Header) -> Iterator[tuple[int, str]]:
    expected, size = sum(shard.bytes[name] for shard in header.shards), path.stat().st_size
    with path.open("rb") as file:
        for number, shard in enumerate(header.shards):
            left, crc = shard.bytes[name], 0
            while left and (content := file.read(min(left, _CHECKED))):
                crc, left = zlib.crc32(content, crc), left - len(content)
            if left:
                yield number, f"{path} has {size:,} bytes of {expected:,}"
            if crc != shard.crc32[name]:
                yield number, f"{path} does not hold what was written (its checksum differs)"
    if header.finished and size > expected:
        yield len(header.shards) - 1, f"{path} has {size:,} bytes; expected {expected:,}"
