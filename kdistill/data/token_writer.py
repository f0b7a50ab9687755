"""Write token files a shard at a time, so that an interrupted encoding goes on behind the last whole shard."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..system.files import LOCK_FILE, LockedError, atomic_path, file_lock, made_directory, write_json
from ..system.names import listing
from ..text.tokenizer import PreTrainedTokenizerFast
from .columns import Columns, Rows, label_column_of, rows_of
from .dataset import OnProgress, encode_texts
from .documents import blocks_of_texts, masking_of, words_of_blocks
from .files import TOKEN_HEADER, DataFile, kind_of
from .label_names import implied_label_map
from .label_values import NO_LABEL, are_numbered, is_empty, is_list
from .labels import label_ids, label_numbers
from .ragged import starts_of
from .streams import parts_of, stamp_of
from .table import Table
from .texts import Texts
from .token_files import (
    ARRAYS,
    LABELS,
    ORDERED,
    TOKENIZER_DIRECTORY,
    Header,
    Shard,
    first_damaged,
)

SHARD_ROWS = 1 << 16
"""Rows of a shard: some seconds of work, and 100 MB of memory while they are text."""
MOST_VALUES = 1 << 16
"""Different labels that are listed in tokens.json; more are numbers, or no labels."""


@dataclass(frozen=True)
class Settings:
    """What decides the content of token files beside rows and tokenizer. The same ones go on where they were stopped.

    Attributes:
        labels: the form of the labels, see `token_files.FORMS`: `words` makes blocks of running text of the rows.
        max_length: tokens that rows are cut to; None: none is cut.
        keep_texts: whether the texts are kept, for teachers with tokenizers of their own.
        text_column, text_pair_column, label_column: as in `columns.read_rows`.
        shard_rows: rows of a shard, at most.
    """

    labels: str = "values"
    max_length: int | None = None
    keep_texts: bool = False
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    shard_rows: int = SHARD_ROWS

    @property
    def columns(self) -> dict[str, Any]:
        """Return the columns that are named, as arguments of `columns.rows_of`."""
        return {name: getattr(self, name) for name in ("text_column", "text_pair_column", "label_column")}


class _Arrays(NamedTuple):
    """The arrays of a shard by name, `starts` from 0 on, and how many of its rows were cut."""

    arrays: dict[str, NDArray[Any]]
    cut: int


def write_token_files(
    files: Sequence[DataFile],
    tokenizer: PreTrainedTokenizerFast,
    directory: Path,
    settings: Settings,
    progress: OnProgress,
) -> Header:
    """Write the rows of files as token files, or what is missing of them in a directory that was begun.

    Finished shards whose checksums are right are kept, also those before a damaged one; the others are made anew.

    Args:
        files: the files, in the order of the rows.
        tokenizer: gives the token ids.
        directory: where to write; it may not exist, be empty, or hold what the same call has begun.
        settings: what decides the content.
        progress: called with (rows done, rows in all as far as it can be told).

    Raises:
        FileExistsError: the directory holds something else, or token files of other inputs or settings.
        BlockingIOError: another process writes there.
        OSError: it cannot be written; names the file. What is finished stays.
        ValueError: a row cannot be read.
    """
    inputs = [stamp_of(file) for file in files]
    begun = Header(vars(settings), tokenizer.content_hash, inputs)
    _check(directory, begun)
    try:
        with made_directory(directory), file_lock(directory / LOCK_FILE, wait=False):
            writer = _Writer(directory, _resumed(directory) or begun, tokenizer)
            if not writer.header.finished:
                writer.write_all(files, _Encoder(tokenizer, settings), progress)
            return writer.header
    except LockedError as error:
        raise BlockingIOError(
            f"{directory} is being written by process {error.holder}; wait for it or choose another directory"
        ) from error


def _check(directory: Path, begun: Header) -> None:
    """Raise FileExistsError for a directory that holds anything but what the same call has begun."""
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"--output is {str(directory)!r}, which is a file; expected a new directory")
    if not directory.is_dir() or not any(name.name != LOCK_FILE for name in directory.iterdir()):
        return
    if not (directory / TOKEN_HEADER).is_file():
        names = {entry.name for entry in directory.iterdir()} - {LOCK_FILE, TOKENIZER_DIRECTORY}
        if any(not name.startswith(".") for name in names):
            raise FileExistsError(
                f"--output is {str(directory)!r}, which holds other files; expected a new directory, or one that this "
                "command has begun"
            )
        return
    there = Header.from_json(directory / TOKEN_HEADER)
    different = [name for name, value in begun.settings.items() if there.settings.get(name) != value]
    different += ["the tokenizer"] if there.tokenizer != begun.tokenizer else []
    different += ["the files of --data, or their time of change"] if list(there.inputs) != list(begun.inputs) else []
    if different:
        raise FileExistsError(
            f"--output is {str(directory)!r}, which holds token files of other inputs ({listing(different)} differ); "
            "expected another directory, or the same command, which goes on where it was interrupted"
        )


def _resumed(directory: Path) -> Header | None:
    """Return the header of what is there, without the first damaged shard and those behind it; None for nothing."""
    if not (directory / TOKEN_HEADER).is_file():
        return None
    there = Header.from_json(directory / TOKEN_HEADER)
    damaged = first_damaged(directory, there) if there.shards else None
    if damaged is None:
        return there
    number, what = damaged
    warnings.warn(
        f"{what}: shard {number + 1} of {directory} is damaged; it is made anew, and those after it", stacklevel=5
    )
    return replace(there, shards=there.shards[:number], finished=False)


class _Encoder:
    """Makes the arrays of a shard of rows of text.

    Attributes:
        columns: those that the first rows were read from; None before.
        unused: the others of the first rows.
        class_names: names that the source has for the labels 0, 1, ...
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self.columns: Columns | None = None
        self._warned = False  # of rows that lack the label
        self.unused: Sequence[str] = ()
        self.class_names: Sequence[str] = ()

    def rows(self, table: Table, *, may_lack: bool) -> Rows:
        """Return the rows of a part of the data, of the columns that the first part was read from.

        Args:
            table: the part.
            may_lack: whether rows leave out what they do not have, as those of JSON do.
        """
        if self.columns is None:
            rows = rows_of(table, **self._settings.columns)
            self.columns, self.class_names, use = rows.columns, tuple(rows.class_names), rows.column_use
            if self._settings.labels == "words":
                self._check_texts_alone(rows)
                self.columns = Columns(rows.columns.text)
                use = replace(use, labels=(), unused=(*use.unused, *use.labels))
            self.unused = use.unused
            if use.unused_sentence():
                warnings.warn(use.unused_sentence(), stacklevel=6)
            return rows
        text, pair, label = self.columns
        labelled = self._settings.labels != "words"
        other = label_column_of(table, None) if labelled and label not in table.columns else None
        if label is None and other is not None:
            raise ValueError(
                f"{table.where(0)}: a column of labels ({other!r}), which the first "
                f"{self._settings.shard_rows:,} rows lack; expected it in their rows too, empty where there is none"
            )
        lacking = [name for name in self.columns if name is not None and name not in table.columns and "," not in name]
        if lacking and (not may_lack or text in lacking or other is not None):
            raise ValueError(
                f"{table.where(0)}: no column {listing(map(repr, lacking))}, which the rows before were read from, "
                f"among {listing(map(repr, table.columns))}; expected the same names in all files"
            )
        if lacking:
            if labelled and label in lacking and not self._warned:
                self._warned = True
                found = listing(map(repr, table.columns))
                warnings.warn(
                    f"{table.where(0)}: the rows from here on have no {label!r} among {found} and are encoded without "
                    "a label",
                    stacklevel=6,
                )
            table = replace(table, columns={**table.columns, **{name: [None] * len(table) for name in lacking}})
        rows = rows_of(table, text_column=text, text_pair_column=pair, label_column=label)
        if labelled and tuple(rows.class_names) != tuple(self.class_names):
            raise ValueError(
                f"{table.source} calls its labels {listing(rows.class_names) or 'nothing'}; the rows before it call "
                f"them {listing(self.class_names) or 'nothing'}"
            )
        return rows

    def _check_texts_alone(self, rows: Rows) -> None:
        if rows.columns.text_pair is not None:
            found = f"{rows.columns.text} and {rows.columns.text_pair}"
            raise ValueError(f"{rows.table.source} has pairs of texts ({found}); name one column with --text-column")

    def __call__(self, rows: Rows, number: Callable[[Rows], NDArray[np.int64]], progress: OnProgress) -> _Arrays:
        """Return the arrays; `number` gives each row the number of its label."""
        form, limit = self._settings.labels, self._settings.max_length
        arrays: dict[str, NDArray[Any]]
        if form == "words":
            assert limit is not None
            ids, starts, _ = blocks_of_texts(rows.texts, self._tokenizer, limit, progress)
            words = words_of_blocks(ids, masking_of(self._tokenizer))
            return _Arrays({"ids": ids, "types": np.zeros_like(ids), "starts": starts, LABELS: words}, 0)
        labels = rows.read_labels(None, label_numbers) if form == "numbers" else number(rows)
        tokens = encode_texts(
            Texts(rows.texts, rows.pairs).inputs(), self._tokenizer, max_length=limit, progress=progress
        )
        arrays = {"ids": tokens.ids, "types": tokens.types, "starts": tokens.starts, LABELS: labels}
        if self._settings.keep_texts:
            arrays |= _of_texts("texts", rows.texts)
            arrays |= {} if rows.pairs is None else _of_texts("pairs", rows.pairs)
        return _Arrays(arrays, tokens.cut)


def _of_texts(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    content = [text.encode() for text in texts]
    starts = starts_of(np.fromiter(map(len, content), np.int64, len(content)))
    return {name: np.frombuffer(b"".join(content), np.uint8), f"{name}.starts": starts}


class _Values:
    """The different labels, in the order in which they occur first, and the number of each."""

    def __init__(self, header: Header) -> None:
        self.values, self.places = list(header.values), list(header.places)
        self._numbers = {self._key(value): number for number, value in enumerate(self.values)}

    def __call__(self, rows: Rows) -> NDArray[np.int64]:
        """Return the number of each row's label, NO_LABEL where it has none."""
        if rows.labels is None:
            return np.full(len(rows), NO_LABEL, np.int64)
        return np.fromiter((self._number(rows, *entry) for entry in enumerate(rows.labels)), np.int64, len(rows))

    def _number(self, rows: Rows, row: int, label: Any) -> int:
        if not is_list(label) and is_empty(label):
            return NO_LABEL
        try:
            key = self._key(label)
        except TypeError as error:
            raise TypeError(
                f"{rows.table.where(row)}: label {label!r} is a {type(label).__name__}; expected text or numbers"
            ) from error
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            if number >= MOST_VALUES:
                raise ValueError(
                    f"{rows.table.where(row)}: {MOST_VALUES:,} rows before it have different labels; where they are "
                    "numbers to learn, give --problem-type regression; else name another --label-column"
                )
            self.values.append(json.loads(json.dumps(label)))
            self.places.append(rows.table.where(row))
        return number

    @staticmethod
    def _key(label: Any) -> Any:
        """Return what tells labels apart: 1, 1.0, "1" and true are four."""
        return json.dumps(label) if is_list(label) else (type(label), label, json.dumps(label))


class _Writer:
    """Appends shards to the files of a directory, and lists each in tokens.json once it is on disk."""

    def __init__(self, directory: Path, header: Header, tokenizer: PreTrainedTokenizerFast) -> None:
        self._directory, self.header, self._tokenizer = directory, header, tokenizer
        self._values, self._begun = _Values(header), False

    def _begin(self) -> None:
        """Leave in the files what the header lists, and no more: rows that cannot be read change nothing."""
        if self._begun:
            return
        if not (self._directory / TOKEN_HEADER).is_file():
            self._tokenizer.save_pretrained(self._directory / TOKENIZER_DIRECTORY)
        if not self.header.shards:
            self.header = replace(self.header, labels=LABELS, finished=False)
        self._write_header()
        names = self.header.listed_arrays()
        for name in names:
            with _appending(self._path(name)) as file:
                file.truncate(sum(shard.bytes[name] for shard in self.header.shards))
        for path in self._directory.glob("*.bin"):
            if path not in {self._path(name) for name in names}:
                path.unlink()
        self._begun = True

    def write_all(self, files: Sequence[DataFile], encode: _Encoder, progress: OnProgress) -> None:
        """Write the shards that are missing, and finish."""
        settings, kept = self.header.settings, self.header.shards
        begin, after = (kept[-1].file, kept[-1].part) if kept else (0, -1)
        if kept:
            encode.columns, encode.unused = self.header.columns, self.header.unused
            encode.class_names = tuple(self.header.class_names)
        sizes = [max(int(entry["size"]), 1) for entry in self.header.inputs]
        for number in range(begin, len(files)):
            of_json = kind_of(Path(files[number].path), files[number].format)[0] == "json"
            for place, part in enumerate(parts_of(files[number], settings["shard_rows"])):
                if number > begin or place > after:
                    share = (sum(sizes[:number]) + part.share * sizes[number]) / sum(sizes)
                    rows = encode.rows(part.table, may_lack=of_json)
                    self._write_part((number, place), rows, share, encode, progress)
        if not self.header.shards:
            raise ValueError(f"{files[0].path} has no text that the tokenizer knows")
        self._finish()

    def _write_part(
        self, at: tuple[int, int], rows: Rows, share: float, encode: _Encoder, progress: OnProgress
    ) -> None:
        done = sum(shard.read for shard in self.header.shards)
        total = max(round((done + len(rows)) / share), done + len(rows))
        made = encode(rows, self._values, lambda of, _: progress(done + of, total))
        if len(made.arrays["starts"]) == 1:
            return  # running text of nothing but white space
        if not self.header.shards:
            assert encode.columns is not None
            self.header = replace(
                self.header, columns=encode.columns, unused=encode.unused, class_names=encode.class_names
            )
        self._append(at, len(rows), made)

    def _append(self, at: tuple[int, int], read: int, made: _Arrays) -> None:
        self._begin()
        arrays = {name: array.astype(self._dtype(name), copy=False) for name, array in made.arrays.items()}
        arrays["lengths"] = lengths = np.diff(arrays["starts"])
        tokens = int(arrays["starts"][-1])
        first, bases = not self.header.shards, {"starts": self.header.tokens}
        for name in ("texts", "pairs"):
            if name in arrays:
                bases[f"{name}.starts"] = sum(shard.bytes[name] for shard in self.header.shards)
        for name, base in bases.items():
            arrays[name] = (arrays[name] if first else arrays[name][1:]) + base
        sizes, sums = {}, {}
        for name, array in arrays.items():
            content = memoryview(np.ascontiguousarray(array).view(np.uint8).data)
            sizes[name], sums[name] = len(content), zlib.crc32(content)
            with _appending(self._path(name)) as file:
                end = file.seek(0, os.SEEK_END)
                if array.any():
                    file.write(content)
                else:
                    file.truncate(end + len(content))  # a hole takes no disk
                file.flush()
                os.fsync(file.fileno())
        shard = Shard(*at, read, len(lengths), tokens, made.cut, int(lengths.max()), sizes, sums)
        self.header = replace(
            self.header,
            shards=(*self.header.shards, shard),
            values=tuple(self._values.values),
            places=tuple(self._values.places),
        )
        self._write_header()

    def _finish(self) -> None:
        """Give the labels the numbers that a model has for them which learns them anew, and mark the end."""
        self._begin()
        header = replace(self.header, numbered=are_numbered(self.header.values), finished=True)
        order = _order_of(header)
        if order is not None and header.labels == LABELS:
            header = self._with_ordered_labels(header, order)
        former, self.header = self.header, header
        self._write_header()
        if former.labels != header.labels:
            (self._directory / f"{former.labels}.bin").unlink(missing_ok=True)

    def _with_ordered_labels(self, header: Header, order: NDArray[np.int64]) -> Header:
        """Write the labels in another order of their values; return the header that lists them so."""
        numbers = np.empty(len(order) + 1, np.int64)
        numbers[order], numbers[len(order)] = np.arange(len(order)), NO_LABEL
        shards = []
        with (
            (self._directory / f"{LABELS}.bin").open("rb") as former,
            atomic_path(self._directory / f"{ORDERED}.bin") as path,
            path.open("wb") as file,
        ):
            for shard in header.shards:
                labels = np.frombuffer(former.read(shard.bytes[LABELS]), "<i8")
                content = numbers[np.where(labels == NO_LABEL, len(order), labels)].astype("<i8", copy=False).tobytes()
                file.write(content)
                shards.append(replace(shard, crc32={**shard.crc32, LABELS: zlib.crc32(content)}))
        values = tuple(header.values[place] for place in order)
        places = tuple(header.places[place] for place in order)
        return replace(header, labels=ORDERED, values=values, places=places, shards=tuple(shards))

    def _dtype(self, name: str) -> np.dtype[Any]:
        return self.header.form.dtype if name == LABELS else ARRAYS[name]

    def _path(self, name: str) -> Path:
        return self._directory / self.header.file_name(name)

    def _write_header(self) -> None:
        write_json(self._directory / TOKEN_HEADER, self.header.to_json())


@contextmanager
def _appending(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write at its end; an error such as that of a full disk names it."""
    try:
        with path.open("ab") as file:
            yield file
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _order_of(header: Header) -> NDArray[np.int64] | None:
    """Return the order of the values in which a model numbers them that learns them anew; None where it has another."""
    table = Table("", {"label": header.values}, header.places)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # who learns them hears of it
            names = dict(enumerate(header.class_names)) or implied_label_map(header.values, table)
            ids = label_ids(header.values, names, table.where, header.class_names)
    except (ValueError, TypeError):  # numbers, lists, or no labels at all
        return None
    order = np.argsort(ids, kind="stable")
    return order if np.array_equal(ids[order], np.arange(len(ids))) else None
