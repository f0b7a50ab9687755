"""Write token files a shard at a time, so that an interrupted encoding goes on behind the last whole shard."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..system.files import LOCK_FILE, LockedError, atomic_path, file_lock, made_directory, write_json
from ..system.names import listing
from ..text.tokenizer import PreTrainedTokenizerFast
from .dataset import OnProgress
from .files import TOKEN_HEADER, DataFile, kind_of
from .label_names import implied_label_map
from .label_values import are_numbered
from .labels import label_ids
from .streams import parts_of, stamp_of
from .table import Table
from .tags import implied_tags, tag_ids
from .token_encoders import Arrays, Encoder, FirstRows, Settings, Values, encoder_for
from .token_files import check_ids, with_values
from .token_header import ARRAYS, LABELS, ORDERED, TEXTS, TOKENIZER_DIRECTORY, Header, Shard, first_damaged


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
            there = _resumed(directory)
            if there is not None and not (directory / TOKENIZER_DIRECTORY).is_dir():  # not copied with the rest
                tokenizer.save_pretrained(directory / TOKENIZER_DIRECTORY)
            writer = _Writer(directory, there or begun, tokenizer)
            if not writer.header.finished:
                writer.write_all(files, encoder_for(tokenizer, settings), progress)
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


class _Writer:
    """Appends shards to the files of a directory, and lists each in tokens.json once it is on disk."""

    def __init__(self, directory: Path, header: Header, tokenizer: PreTrainedTokenizerFast) -> None:
        self._directory, self.header, self._tokenizer = directory, header, tokenizer
        self._values, self._begun = Values(header), False

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

    def write_all(self, files: Sequence[DataFile], encode: Encoder, progress: OnProgress) -> None:
        """Write the shards that are missing, and finish."""
        settings, kept = self.header.settings, self.header.shards
        begin, after = (kept[-1].file, kept[-1].part) if kept else (0, -1)
        if kept:
            encode.first.are_those_of(self.header)
        sizes = [max(int(entry["size"]), 1) for entry in self.header.inputs]
        any_rows = bool(kept)  # files without are passed over, as where a table is read
        for number in range(begin, len(files)):
            of_json = kind_of(Path(files[number].path), files[number].format)[0] == "json"
            for place, part in enumerate(parts_of(files[number], settings["shard_rows"])):
                if len(part.table) and (number > begin or place > after):
                    any_rows = True
                    share = (sum(sizes[:number]) + part.share * sizes[number]) / sum(sizes)
                    counted = self._counting(progress, len(part.table), share)
                    made = encode(part.table, self._values, counted, may_lack=of_json, before=self.header.examples)
                    if len(made.arrays["starts"]) > 1:  # else running text of nothing but white space
                        self._append((number, place), len(part.table), made, encode.first)
        if not self.header.shards:
            raise ValueError(f"{files[0].path} has no {'text that the tokenizer knows' if any_rows else 'rows'}")
        self._finish()

    def _counting(self, progress: OnProgress, rows: int, share: float) -> OnProgress:
        """Return a progress of a part, with which this share of all bytes is read, that counts all rows."""
        done = sum(shard.read for shard in self.header.shards)
        total = max(round((done + rows) / share), done + rows)
        return lambda of, _: progress(done + of, total)

    def _append(self, at: tuple[int, int], read: int, made: Arrays, first_rows: FirstRows) -> None:
        first = not self.header.shards
        if first:
            assert first_rows.columns is not None
            columns, unused, names = first_rows.columns, first_rows.unused, first_rows.class_names
            self.header = replace(self.header, columns=columns, unused=unused, class_names=names)
        self._begin()
        arrays = {name: array.astype(self._dtype(name), copy=False) for name, array in made.arrays.items()}
        arrays["lengths"] = lengths = np.diff(arrays["starts"])
        tokens = int(arrays["starts"][-1])
        examples = int(arrays["examples"][-1]) + 1 if "examples" in arrays else len(lengths)
        bases = {"starts": self.header.tokens, "examples": self.header.examples}
        for name in TEXTS & arrays.keys():
            bases[f"{name}.starts"] = sum(shard.bytes[name] for shard in self.header.shards)
        for name in bases.keys() & arrays.keys():
            arrays[name] = arrays[name] + bases[name]
            if name != "examples" and not first:
                arrays[name] = arrays[name][1:]  # where the shard before ends
        sizes, sums = {}, {}
        for name, array in arrays.items():
            content = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            sizes[name], sums[name] = len(content), zlib.crc32(content)
            with _appending(self._path(name)) as file:
                end = file.seek(0, os.SEEK_END)
                if array.any():
                    file.write(content)
                else:
                    file.truncate(end + len(content))  # a hole takes no disk
                file.flush()
                os.fsync(file.fileno())
        shard = Shard(*at, read, examples, len(lengths), tokens, made.cut, int(lengths.max()), sizes, sums)
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
        if self.header.settings["labels"] == "answers":
            check_ids(self._directory, self.header)
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
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order))
        shards = []
        with (
            (self._directory / f"{LABELS}.bin").open("rb") as former,
            atomic_path(self._directory / f"{ORDERED}.bin") as path,
            path.open("wb") as file,
        ):
            for shard in header.shards:
                labels = np.frombuffer(former.read(shard.bytes[LABELS]), "<i8")
                content = with_values(labels, numbers).astype("<i8", copy=False).tobytes()
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
    each = [[value] for value in header.values]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # who learns them hears of it
            names = dict(enumerate(header.class_names))
            if header.settings["labels"] == "tags":
                ids = tag_ids(each, names or implied_tags(each, table), table.where, header.class_names).values
            else:
                names = names or implied_label_map(header.values, table)
                ids = label_ids(header.values, names, table.where, header.class_names)
    except (ValueError, TypeError):  # numbers, lists, or no labels at all
        return None
    order = np.argsort(ids, kind="stable")
    return order if np.array_equal(ids[order], np.arange(len(ids))) else None
