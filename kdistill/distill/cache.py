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
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset, OnProgress
from ..data.ragged import Outputs, Ragged, starts_of, take_rows, units_of
from ..system.files import close_lockable, open_lockable

FORMAT_VERSION = 1
MAGIC = b"KDLOGITS"
HEADER = struct.Struct("<8s2I32s8sI4x")
SUFFIX = ".logits"
DAMAGED_SUFFIX = ".damaged"
KEY_BYTES = 16
# Tokens in one forward pass of the teacher: few enough that a kill loses little work (2 s of BERT-base), many enough
# that two threads seldom wait for each other (5 % faster than 2048 with 6 layers of 384, 1 % with BERT-base).
BATCH_TOKENS = 4096
# A fixed length keeps records that can be mapped and checked all at once. The training rows of WNUT-17 (31 tokens, 13
# labels) take 1.18 times the bytes of their logits, with pieces of 4 tokens 1.17 times and of 16 1.27 times; those of
# BC5CDR (36 tokens, 5 labels) take 1.26, 1.36 and 1.30 times.
TOKENS_OF_A_RECORD = 8


class Teacher(Protocol):
    """The part of a model that the cache uses."""

    @property
    def config(self) -> Any: ...

    @property
    def per_token(self) -> bool: ...

    def weights_hash(self) -> str: ...

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


def row_keys(dataset: Dataset) -> NDArray[np.void]:
    """Return the key of each row, void16 (rows,): the 16-byte BLAKE2b of its (id, type) pairs as int32."""
    tokens = memoryview(np.stack([dataset.ids, dataset.types], axis=1).astype("<i4", copy=False).data).cast("B")
    ends = (dataset.starts * 8).tolist()
    digests = (hashlib.blake2b(tokens[first:end], digest_size=KEY_BYTES).digest() for first, end in pairwise(ends))
    return np.frombuffer(b"".join(digests), dtype=f"V{KEY_BYTES}")


def piece_keys(keys: NDArray[np.void], lengths: NDArray[np.int64]) -> NDArray[np.void]:
    """Return the keys of the pieces of rows, void16 (pieces,): the BLAKE2b of the row's key and the piece's number.

    Of the last byte's lowest bit, 0 marks the first piece of a row.

    Args:
        keys: of the rows, void16 (rows,).
        lengths: tokens of the rows, int64 (rows,).
    """
    digests = (
        hashlib.blake2b(key + piece.to_bytes(4, "little"), digest_size=KEY_BYTES).digest()
        for key, length in zip(keys.tolist(), lengths.tolist(), strict=True)
        for piece in range(-(-length // TOKENS_OF_A_RECORD))
    )
    marked = np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, KEY_BYTES)
    marked[:, -1] |= 1
    marked[starts_of(-(-lengths // TOKENS_OF_A_RECORD))[:-1], -1] ^= 1
    return marked.view(f"V{KEY_BYTES}").ravel()


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
        records = self._valid_records()
        logits = np.zeros((len(keys), self._num_labels), dtype=np.float32)
        if len(records) == 0:
            return np.zeros(len(keys), dtype=np.bool_), logits
        # Sorting 8 of the 16 bytes as integers is 2.5 times faster than sorting all as bytes. Two keys that agree in
        # these and not in the rest hide one of the two: a row computed again, never a wrong answer.
        stored, wanted = _halves(records["key"]), _halves(keys)
        order = np.argsort(stored[:, 0], kind="stable")
        position = np.searchsorted(stored[order, 0], wanted[:, 0])
        candidate = order[np.minimum(position, len(order) - 1)]
        found = (stored[candidate] == wanted).all(axis=1)
        logits[found] = records["logits"][candidate[found]]
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
            _write_all(file, records.tobytes())

    def _valid_records(self) -> NDArray[np.void]:
        """Return the complete records with a valid checksum."""
        try:
            with self.path.open("rb") as file:
                count = (os.fstat(file.fileno()).st_size - HEADER.size) // self._record.itemsize
                if count < 1:
                    return np.zeros(0, dtype=self._record)
                records = np.memmap(file, dtype=self._record, mode="r", offset=HEADER.size, shape=(count,))
        except FileNotFoundError:  # `clear` deleted it since this object was made; the next append creates it again
            return np.zeros(0, dtype=self._record)
        valid = records["checksum"] == self._checksums(records)
        return np.asarray(records) if valid.all() else np.asarray(records)[valid]

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
            _write_all(file, header)
            return True
        aside = self.path.with_suffix(DAMAGED_SUFFIX)
        self.path.replace(aside)
        warnings.warn(f"the teacher cache {self.path} had a damaged header; kept as {aside.name}", stacklevel=2)
        return False


class _Rows:
    """What the cache has for the rows of a data set, and a place to put what it lacks.

    Attributes:
        keys: of the rows.
        found: which rows are known, bool (rows,).
        values: their logits, float32 (rows, num_labels), or (tokens, num_labels) of a teacher that answers for each.
    """

    def __init__(self, teacher: Teacher, dataset: Dataset) -> None:
        self.keys = row_keys(dataset)
        self._labels = int(teacher.config.num_outputs)
        self._starts = dataset.starts if teacher.per_token else None
        self.found = np.zeros(len(dataset), dtype=np.bool_)
        count = len(dataset) if self._starts is None else len(dataset.ids)
        self.values = np.zeros((count, self._labels), dtype=np.float32)

    @property
    def outputs(self) -> Outputs:
        """The logits of all rows."""
        return self.values if self._starts is None else Ragged(self.values, self._starts)

    def open(self, teacher: Teacher, directory: Path, *, create: bool = True) -> TeacherCache:
        """Return the teacher's file. Raises OSError if it cannot be made."""
        tokens = 0 if self._starts is None else TOKENS_OF_A_RECORD
        width = self._labels * (tokens or 1)
        return TeacherCache(directory, teacher.weights_hash(), width, tokens=tokens, create=create)

    def look_up(self, cache: TeacherCache) -> None:
        """Take what the file has."""
        if self._starts is None:
            self.found, self.values = cache.lookup(self.keys)
            return
        lengths = np.diff(self._starts)
        found, logits = cache.lookup(piece_keys(self.keys, lengths))
        first, piece = self._pieces(lengths)
        missing = np.concatenate(([0], np.cumsum(~found)))
        self.found = np.asarray(np.diff(missing[first]) == 0)
        token = np.arange(int(self._starts[-1])) - np.repeat(self._starts[:-1], lengths)
        record = np.repeat(first[:-1], lengths) + token // TOKENS_OF_A_RECORD
        pieces = logits.reshape(len(piece), TOKENS_OF_A_RECORD, self._labels)
        self.values = pieces[record, token % TOKENS_OF_A_RECORD]

    def append(self, cache: TeacherCache, rows: NDArray[np.int64]) -> None:
        """Write these rows. Raises OSError."""
        if self._starts is None:
            cache.append(self.keys[rows], self.values[rows])
            return
        of = take_rows(self.outputs, rows)
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
    one block. Two processes that start together both compute; later runs find the records of both. When the cache
    cannot be read or written, a warning is issued and the logits are computed without it.

    Args:
        teacher: the model.
        dataset: the rows.
        batch_tokens: about how many tokens go through the teacher at once.
        progress: called with (rows computed, rows to compute).
        cache_dir: the cache's directory (default: `cache_directory()`).
        enabled: whether to use the cache at all.

    Returns:
        float32 (rows, num_labels), in the order of the data set; of a teacher that answers for each token a `Ragged` of
        float32 (tokens, num_labels).

    Raises:
        FloatingPointError: logits are not finite; the message gives the first row, and such logits are not stored.
    """
    of, cache = _Rows(teacher, dataset), None
    if enabled:
        try:
            cache = of.open(teacher, cache_directory() if cache_dir is None else Path(cache_dir))
            of.look_up(cache)
        except OSError as error:
            warn_unusable(error)
    absent = np.flatnonzero(~of.found)
    _, first, same = np.unique(of.keys[absent], return_index=True, return_inverse=True)
    rows = absent[first]
    done = 0
    for block in _blocks(rows, dataset.lengths, batch_tokens):
        if progress is not None:
            progress(done, len(rows))
        of.put(block, _forward(teacher, dataset, block))
        if cache is not None:
            try:
                of.append(cache, block)
            except OSError as error:
                warn_unusable(error)
                cache = None
        done += len(block)
    if progress is not None:
        progress(done, len(rows))
    of.copy(absent, rows[same])
    return of.outputs


def cached_rows(teacher: Teacher, dataset: Dataset) -> NDArray[np.bool_]:
    """Return which rows the cache has, bool (rows,), without writing anything. Raises OSError if it cannot be read."""
    of = _Rows(teacher, dataset)
    of.look_up(of.open(teacher, cache_directory(), create=False))
    return of.found


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
    for path in [*_files(cache_dir, SUFFIX), *_files(cache_dir, DAMAGED_SUFFIX)]:
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


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def warn_unusable(error: OSError) -> None:
    """Warn that the cache cannot be used, and why."""
    warnings.warn(f"the teacher cache cannot be used ({error}); continuing without it", stacklevel=3)
