"""The teacher cache: a teacher's logits on disk, looked up by the content of the rows.

One file for each teacher (its weights hash), opened by any number of processes at once:

    header   64 bytes   magic, format version, logits of a record, the teacher's key, checksum, tokens of a record
    record   16 bytes row key, float32 logits, 8 bytes checksum;   repeated, in the order of computing

A record of a teacher that answers for rows is a row, and 0 stands in the header for its tokens. One that answers for
each token has the tokens of a row in pieces of `TOKENS_OF_A_RECORD`, the last one filled up with zeros, each a record
of so many times as many logits, whose key is made of the row's key and the number of the piece, and whose key's last
bit tells the first piece from others. A row is there when all of its pieces are.

All numbers are little-endian. Records are only ever appended, in blocks, under an exclusive flock; readers take no
lock. A process killed while appending leaves at most one incomplete record, which the next writer cuts off under the
lock; any other damage by a crash fails its checksum and counts as absent. A complete record is never cut off or
changed, so a mapping of the file stays valid.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.blocks import blocks_of
from ..data.dataset import Dataset, OnProgress
from ..data.ragged import Outputs, Ragged, starts_of, units_of
from ..system.files import close_lockable, open_lockable
from ..system.memory import large_zeros
from .cache_index import SUFFIX as INDEX_SUFFIX
from .cache_index import runs_of
from .row_keys import KEY_BYTES, TOKENS_OF_A_RECORD, piece_keys, row_keys

FORMAT_VERSION = 1
MAGIC = b"KDLOGITS"
HEADER = struct.Struct("<8s2I32s8sI4x")
SUFFIX = ".logits"
DAMAGED_SUFFIX, HIDDEN_SUFFIX = ".damaged", ".hidden"  # the latter: of hidden_cache.py, in the same directory
# Tokens in one forward pass of the teacher: few enough that a kill loses little work (2 s of BERT-base), many enough
# that two threads seldom wait for each other (5 % faster than 2048 with 6 layers of 384, 1 % with BERT-base).
BATCH_TOKENS = 4096
_LOOKED_UP_BYTES = 1 << 24  # of the records that are compared at once


class Teacher(Protocol):
    """The part of a model that the cache uses."""

    @property
    def config(self) -> Any: ...

    @property
    def per_token(self) -> bool: ...

    def weights_hash(self, dtype: Any = None) -> str: ...

    def forward(self, batch: Batch) -> NDArray[np.float32]: ...


def cache_directory() -> Path:
    """Return the directory of the caches: $KDISTILL_CACHE, or `kdistill` in the user's cache directory.

    Raises:
        FileNotFoundError: neither exists, as in a container whose user has no home.
    """
    if chosen := os.environ.get("KDISTILL_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "kdistill"
    try:
        return Path.home() / ".cache" / "kdistill"
    except RuntimeError as error:
        raise FileNotFoundError("there is no home directory; set KDISTILL_CACHE to a directory") from error


class TeacherCache:
    """The file of one teacher's logits.

    Args:
        directory: where the file lies, created if missing.
        weights_hash: of everything the logits depend on besides the row.
        num_labels: logits of a record.
        tokens: tokens of a record, 0 where a record is a row.
        create: whether to create the file if it is missing; without, it is only read.

    Raises:
        OSError: the file cannot be created or written.
    """

    def __init__(
        self, directory: Path, weights_hash: str, num_labels: int, *, tokens: int = 0, create: bool = True
    ) -> None:
        version = f"{FORMAT_VERSION}, {tokens} tokens" if tokens else f"{FORMAT_VERSION}"
        self._key = hashlib.sha256(f"kdistill teacher logits {version}\n{weights_hash}".encode()).digest()
        self._num_labels, self._tokens = num_labels, tokens
        self._record = _record_type(num_labels)
        # Odd factors drawn from the teacher's key, so that a record of another file has a wrong checksum here.
        words = (KEY_BYTES + 4 * num_labels) // 4
        stream = hashlib.shake_256(self._key).digest(8 * (words + 1))
        self._factors = np.frombuffer(stream, dtype="<u8") | np.uint64(1)
        self.path = directory / f"{self._key.hex()[:32]}{SUFFIX}"
        if create:
            directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass

    def lookup(self, keys: NDArray[np.void]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Look up rows, including those that other processes have appended by now.

        Args:
            keys: void16 (rows,), see `row_keys`.

        Returns:
            Which rows are in the cache, bool (rows,), and their logits, float32 (rows, num_labels), zero where absent.
        """
        records, wanted = self._records(), _halves(keys)
        found, logits = np.zeros(len(keys), np.bool_), np.zeros((len(keys), self._num_labels), np.float32)
        runs = list(runs_of(self.path.with_suffix(INDEX_SUFFIX), self._key, records, self._are_valid))
        at_once = max(_LOOKED_UP_BYTES // self._record.itemsize, 1)
        for first in range(0, len(keys), at_once):
            left = first + np.argsort(wanted[first : first + at_once, 0])  # in this order they are found faster
            for run in runs:
                if not len(left):
                    break
                here, numbers = run.find(wanted[left, 0])
                if not len(here):
                    continue
                rows, candidates = left[here], records[numbers]
                right = (_halves(candidates["key"]) == wanted[rows]).all(axis=1) & self._are_valid(candidates)
                found[rows[right]], logits[rows[right]] = True, candidates["logits"][right]
                left = np.delete(left, here[right])
        return found, logits

    def append(self, keys: NDArray[np.void], logits: NDArray[np.float32]) -> None:
        """Append one record for each key, in one block.

        Args:
            keys: void16 (rows,).
            logits: float32 (rows, num_labels).

        Raises:
            OSError: the file cannot be written.
        """
        records = np.zeros(len(keys), dtype=self._record)
        records["key"], records["logits"] = keys, logits
        records["checksum"] = self._checksums(records)
        with self._locked() as file:
            write_all(file, records.tobytes())

    def _records(self) -> NDArray[np.void]:
        """Return the complete records, mapped; those with a wrong checksum, which count as absent, are among them."""
        try:
            with self.path.open("rb") as file:
                count = (os.fstat(file.fileno()).st_size - HEADER.size) // self._record.itemsize
                if count < 1:
                    return np.zeros(0, dtype=self._record)
                return np.asarray(np.memmap(file, self._record, "r", HEADER.size, (count,)))
        except FileNotFoundError:  # `clear` deleted it since this object was made; the next append creates it again
            return np.zeros(0, dtype=self._record)

    def _are_valid(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which records have the right checksum, bool (records,)."""
        return np.asarray(records["checksum"] == self._checksums(records))

    def _checksums(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        """Return the checksum of each record, uint64: the sum of its 32-bit words times odd factors, plus an offset.

        A single wrong word is always detected (an odd factor has an inverse modulo 2**64), several with a probability
        of about 1 - 2**-32; the offset makes a record of zeros invalid. 67,000 records take 0.5 ms.
        """
        words = np.ascontiguousarray(records).view("<u4").reshape(len(records), -1)
        sums = np.full(len(records), self._factors[-1], dtype=np.uint64)
        for column, factor in enumerate(self._factors[:-1]):
            sums += words[:, column] * factor
        return sums

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock the file against other writers and yield it, open for appending at the end of a complete record."""
        while True:
            file = open_lockable(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._is_usable(file):
                    torn = (os.fstat(file).st_size - HEADER.size) % self._record.itemsize
                    if torn:
                        os.ftruncate(file, os.fstat(file).st_size - torn)
                    yield file
                    return
            finally:
                close_lockable(file)

    def _is_usable(self, file: int) -> bool:
        """Return whether the locked file is the one at `path` with the right header; write the header if missing."""
        try:
            if not os.path.samestat(os.fstat(file), self.path.stat()):
                return False  # `clear` or the lines below replaced it while this process waited for the lock
        except FileNotFoundError:
            return False
        found = os.pread(file, HEADER.size, 0)
        header = _header(self._num_labels, self._key, self._tokens)
        if found == header:
            return True
        if len(found) < HEADER.size:
            os.ftruncate(file, 0)
            write_all(file, header)
            return True
        aside = self.path.with_suffix(DAMAGED_SUFFIX)
        self.path.with_suffix(INDEX_SUFFIX).unlink(missing_ok=True)
        self.path.replace(aside)
        warnings.warn(f"the teacher cache {self.path} had a damaged header; kept as {aside.name}", stacklevel=2)
        return False


class RowsInCache:
    """What the cache has for some rows of a data set that follow each other, and a place to put what it lacks.

    Attributes:
        keys: of the rows.
        found: which rows are known, bool (rows,).
        values: their logits, float32 (rows, num_labels), or (tokens, num_labels) of a teacher that answers for each; a
            part of the array of all, where there is one.
    """

    def __init__(
        self, teacher: Teacher, dataset: Dataset, rows: slice, values: NDArray[np.float32] | None = None
    ) -> None:
        starts = dataset.starts[rows.start : rows.stop + 1]
        tokens = slice(starts[0], starts[-1])
        local = starts - starts[0]
        self.keys = row_keys(Batch(dataset.ids[tokens], dataset.types[tokens], local))
        self._labels = int(teacher.config.num_outputs)
        self._starts = local if teacher.per_token else None
        self.found = np.zeros(len(self.keys), dtype=np.bool_)
        units = tokens if teacher.per_token else rows
        self.values = (
            np.zeros((units.stop - units.start, self._labels), np.float32) if values is None else values[units]
        )

    def open(self, teacher: Teacher, directory: Path, *, create: bool = True, dtype: str | None = None) -> TeacherCache:
        """Return the teacher's file, of another compute type if one is given. Raises OSError if it cannot be made."""
        tokens = 0 if self._starts is None else TOKENS_OF_A_RECORD
        width = self._labels * (tokens or 1)
        return TeacherCache(directory, teacher.weights_hash(dtype), width, tokens=tokens, create=create)

    def look_up(self, cache: TeacherCache) -> None:
        """Take what the file has."""
        if self._starts is None:
            self.found, self.values[:] = cache.lookup(self.keys)
            return
        lengths = np.diff(self._starts)
        found, logits = cache.lookup(piece_keys(self.keys, lengths))
        first, piece = self._pieces(lengths)
        missing = np.concatenate(([0], np.cumsum(~found)))
        self.found = np.asarray(np.diff(missing[first]) == 0)
        token = np.arange(int(self._starts[-1])) - np.repeat(self._starts[:-1], lengths)
        record = np.repeat(first[:-1], lengths) + token // TOKENS_OF_A_RECORD
        pieces = logits.reshape(len(piece), TOKENS_OF_A_RECORD, self._labels)
        self.values[:] = pieces[record, token % TOKENS_OF_A_RECORD]

    def append(self, cache: TeacherCache, rows: NDArray[np.int64]) -> None:
        """Write these rows. Raises OSError."""
        if self._starts is None:
            cache.append(self.keys[rows], self.values[rows])
            return
        of = Ragged(self.values, self._starts).take(rows)
        first, piece = self._pieces(of.lengths)
        pieces = np.zeros((len(piece), TOKENS_OF_A_RECORD, self._labels), dtype=np.float32)
        token = np.arange(len(of.values)) - np.repeat(of.starts[:-1], of.lengths)
        record = np.repeat(first[:-1], of.lengths) + token // TOKENS_OF_A_RECORD
        pieces[record, token % TOKENS_OF_A_RECORD] = of.values
        cache.append(piece_keys(self.keys[rows], of.lengths), pieces.reshape(len(piece), -1))

    def put(self, rows: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Take the computed logits of these rows."""
        self.values[rows if self._starts is None else units_of(self._starts, rows)] = logits

    def copy(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Give `rows` the logits of `others`, which are equal rows."""
        if self._starts is None:
            self.values[rows] = self.values[others]
        else:
            self.values[units_of(self._starts, rows)] = self.values[units_of(self._starts, others)]

    @staticmethod
    def _pieces(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the pieces of each row begin, int64 (rows + 1,), and the number of each in its row."""
        count = -(-lengths // TOKENS_OF_A_RECORD)
        first = starts_of(count)
        return first, np.arange(first[-1]) - np.repeat(first[:-1], count)


def teacher_logits(
    teacher: Teacher,
    dataset: Dataset,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: OnProgress | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    enabled: bool = True,
) -> Outputs:
    """Return the teacher's logits for every row, from the cache where it has them.

    Missing rows are computed, equal ones once, and appended block by block, so that stopping at any time loses at most
    one block. Of more than a million rows each million is looked up for itself, in the memory of one. Two processes
    that start together both compute; later runs find the records of both. When the cache cannot be read or written, a
    warning is issued and the logits are computed without it.

    Args:
        teacher: the model.
        dataset: the rows.
        batch_tokens: about how many tokens go through the teacher at once.
        progress: called with (rows computed, rows to compute).
        cache_dir: the cache's directory (default: `cache_directory()`).
        enabled: whether to use the cache at all.

    Returns:
        float32 (rows, num_labels), in the order of the data set; of a teacher that answers for each token a `Ragged` of
        float32 (tokens, num_labels). Many lie in a file without a name beside the cache, see `large_zeros`.

    Raises:
        FloatingPointError: logits are not finite; the message gives the first row, and such logits are not stored.
    """
    units = len(dataset.ids) if teacher.per_token else len(dataset)
    directory, cache, asked, done, left = None, None, 0, 0, len(dataset)
    if enabled:
        try:
            directory = cache_directory() if cache_dir is None else Path(cache_dir)
        except OSError as error:
            warn_unusable(error)
    values = large_zeros((units, int(teacher.config.num_outputs)), np.float32, directory)
    for part in blocks_of(len(dataset)):  # equal rows of a block are computed once also without a cache
        of = RowsInCache(teacher, dataset, part, values)
        if directory is not None:
            try:
                if cache is None:
                    cache = of.open(teacher, directory)
                of.look_up(cache)
            except OSError as error:
                warn_unusable(error)
                cache, directory = None, None
        absent = np.flatnonzero(~of.found)
        _, first, same = np.unique(of.keys[absent], return_index=True, return_inverse=True)
        rows = absent[first]
        left -= len(of.found)
        asked += len(rows)
        for block in _blocks(rows, dataset.lengths[part], batch_tokens):
            if progress is not None:
                progress(done, asked + left)
            of.put(block, _forward(teacher, dataset, block + part.start))
            if cache is not None:
                try:
                    of.append(cache, block)
                except OSError as error:
                    warn_unusable(error)
                    cache, directory = None, None
            done += len(block)
        if progress is not None:
            progress(done, asked + left)
        of.copy(absent, rows[same])
    return Ragged(values, dataset.starts) if teacher.per_token else values


def cached_rows(teacher: Teacher, dataset: Dataset, dtype: str | None = None) -> NDArray[np.bool_]:
    """Return which rows the cache has in a compute type, bool (rows,), writing nothing. Raises OSError on failure."""
    found = np.zeros(len(dataset), np.bool_)
    for part in blocks_of(len(dataset)):
        of = RowsInCache(teacher, dataset, part)
        of.look_up(of.open(teacher, cache_directory(), create=False, dtype=dtype))
        found[part] = of.found
    return found


def _blocks(rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_tokens: int) -> list[NDArray[np.int64]]:
    """Return blocks of about `batch_tokens` tokens, each of rows of similar length.

    The blocks are in random order, so that an estimate of the time left is right from the start.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}; expected at least 1")
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    block_of = (np.cumsum(lengths[rows]) - 1) // batch_tokens
    blocks = np.split(rows, np.flatnonzero(np.diff(block_of)) + 1)
    return [blocks[i] for i in np.random.default_rng(0).permutation(len(blocks))]


def _forward(teacher: Teacher, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    batch, _ = dataset.batch(rows)
    logits = teacher.forward(batch)
    expected = (len(batch.ids) if teacher.per_token else len(rows), int(teacher.config.num_outputs))
    if logits.shape != expected:
        raise ValueError(f"the teacher's logits have shape {logits.shape}; expected {expected}")
    finite = np.isfinite(logits).all(axis=1)
    if teacher.per_token:
        finite = np.logical_and.reduceat(finite, batch.starts[:-1])
    bad = rows[~finite]
    if len(bad):
        raise FloatingPointError(f"the teacher's logits are not finite for {len(bad)} rows, the first is row {bad[0]}")
    return logits


@dataclass(frozen=True)
class CacheFile:
    """One teacher's file: the rows that have `num_labels` logits, or so many of each token.

    A row that two processes computed counts twice. `bytes` is the file's size.
    """

    path: Path
    rows: int
    num_labels: int
    bytes: int


def info(cache_dir: str | os.PathLike[str] | None = None) -> list[CacheFile]:
    """Return the cache's files, sorted by path. Files without a valid header are left out.

    Args:
        cache_dir: the cache's directory (default: `cache_directory()`).
    """
    files = []
    for path in _files(cache_dir, SUFFIX):
        with path.open("rb") as file:
            header, size = file.read(HEADER.size), os.fstat(file.fileno()).st_size
        if len(header) < HEADER.size:
            continue
        _, _, width, key, _, tokens = HEADER.unpack(header)
        if header == _header(width, key, tokens):
            rows = (size - HEADER.size) // _record_type(width).itemsize
            if tokens and rows:
                records = np.memmap(path, dtype=_record_type(width), mode="r", offset=HEADER.size, shape=(rows,))
                last = np.ascontiguousarray(records["key"]).view(np.uint8)[KEY_BYTES - 1 :: KEY_BYTES]
                rows = int((last % 2 == 0).sum())
            files.append(CacheFile(path, rows, width // (tokens or 1), size))
    return files


def clear(cache_dir: str | os.PathLike[str] | None = None) -> int:
    """Delete the cache's files and return the bytes freed. A process that is writing continues in a new file.

    Args:
        cache_dir: the cache's directory (default: `cache_directory()`).
    """
    freed = 0
    for path in (
        of for suffix in (SUFFIX, INDEX_SUFFIX, DAMAGED_SUFFIX, HIDDEN_SUFFIX) for of in _files(cache_dir, suffix)
    ):
        freed += path.stat().st_size
        path.unlink()
    return freed


def _files(cache_dir: str | os.PathLike[str] | None, suffix: str) -> list[Path]:
    return sorted((cache_directory() if cache_dir is None else Path(cache_dir)).glob(f"*{suffix}"))


def row_bytes(num_labels: int, tokens: int | None = None) -> int:
    """Return the bytes that a row takes in the cache; with `tokens`, one of so many that have an answer each."""
    if tokens is None:
        return _record_type(num_labels).itemsize
    return -(-tokens // TOKENS_OF_A_RECORD) * _record_type(num_labels * TOKENS_OF_A_RECORD).itemsize


def _record_type(num_labels: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"V{KEY_BYTES}"), ("logits", "<f4", (num_labels,)), ("checksum", "<u8")])


def _header(num_labels: int, key: bytes, tokens: int) -> bytes:
    fields = (MAGIC, FORMAT_VERSION, num_labels, key)
    checksum = hashlib.blake2b(HEADER.pack(*fields, b"", tokens), digest_size=8).digest()
    return HEADER.pack(*fields, checksum, tokens)


def _halves(keys: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return keys, void16 (rows,), as uint64 (rows, 2)."""
    return np.ascontiguousarray(keys).view("<u8").reshape(-1, 2)


def write_all(file: int, content: bytes) -> None:
    """Write all of it, in as many calls as that takes."""
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def warn_unusable(error: OSError) -> None:
    """Warn that the cache cannot be used, and why."""
    warnings.warn(f"the teacher cache cannot be used ({error}); continuing without it", stacklevel=3)
