"""`HiddenCache`: what lies inside a teacher, on disk in bfloat16, so that later epochs and runs need not ask it again.

One file for each teacher and choice of taps, in the directory of the teacher cache, opened by any number of processes:

    record   16 bytes row key, 4 bytes count of numbers, 4 bytes CRC-32 of all else, then the numbers in bfloat16, by
             tap: (n, C) of rows of tokens, (H, n, n) of scores

Numbers are little-endian. Records are only ever appended, under an exclusive flock, by one who has read those that
others appended meanwhile, and who cuts off what a killed process left incomplete. A record whose checksum fails counts
as absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
import warnings
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data.batch import Batch
from ..models.model import Model, Tap
from ..system.files import close_lockable, open_lockable
from ..system.memory import readable_size
from ..train.objective import Inside
from .cache import HIDDEN_SUFFIX, cache_directory, warn_unusable, write_all
from .row_keys import row_keys
from .teachers import Teacher

HEAD = struct.Struct("<16sII")
_KEY_AND_COUNT = struct.Struct("<16sI")
FORMAT = "kdistill hidden states 1"
Numbers = NDArray[np.uint16]


def hidden_bytes() -> int:
    """Return the bytes of all files of hidden states in the directory of the caches."""
    return sum(path.stat().st_size for path in cache_directory().glob(f"*{HIDDEN_SUFFIX}"))


def to_bfloat16(values: NDArray[np.float32]) -> Numbers:
    """Return finite numbers rounded to bfloat16, to nearest and ties to even, as the upper halves of float32."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(numbers: Numbers) -> NDArray[np.float32]:
    """Return the float32 of numbers of `to_bfloat16`."""
    return (numbers.astype(np.uint32) << np.uint32(16)).view(np.float32)


class HiddenCache:
    """Answers what a teacher has inside, rounded to bfloat16: from disk, or from the teacher, whose answer is kept.

    All answers are rounded, so that a run has the same bits whatever the cache holds.

    Args:
        teacher: the teacher.
        budget: bytes that all such files in the directory may take; rows for which there is no room are asked again
            in each epoch, with one warning.
    """

    def __init__(self, teacher: Teacher, budget: int) -> None:
        self._teacher, self._budget = teacher, budget
        self._files: dict[tuple[Tap, ...], tuple[_File, _Sizes]] = {}

    def __call__(self, batch: Batch, taps: Sequence[Tap]) -> Inside:
        """Return what lies inside the teacher at these taps, see `Teacher.inside`.

        Raises:
            FloatingPointError: a number is not finite, which bfloat16 would hide.
        """
        asked = tuple(taps)
        if asked not in self._files:
            self._files[asked] = _File(self._path(asked), self._budget), _sizes_of(self._teacher.model, asked)
        file, sizes = self._files[asked]
        lengths, keys = np.diff(batch.starts), row_keys(batch).tolist()
        counts = [sum(size.of(int(n)) for size in sizes.values()) for n in lengths]
        found = [file.read(key, count) for key, count in zip(keys, counts, strict=True)]
        missing = np.array([row for row, numbers in enumerate(found) if numbers is None], np.int64)
        if len(missing):
            part = Batch(*_core.take_rows(batch.ids, batch.types, batch.starts, missing))
            made = _cut(sizes, self._teacher.inside(part, asked), lengths[missing])
            for row, numbers in zip(missing.tolist(), made, strict=True):
                found[row] = numbers
            file.append([(keys[row], of) for row, of in zip(missing.tolist(), made, strict=True)])
        return _joined(sizes, [of for of in found if of is not None], lengths)

    def _path(self, taps: tuple[Tap, ...]) -> Path:
        about = f"{FORMAT}\n{self._teacher.observed.weights_hash()}\n{taps!r}"
        return cache_directory() / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}{HIDDEN_SUFFIX}"


class _TapSize(NamedTuple):
    """How many numbers a tap has: for a token, and for a pair of tokens of a row."""

    per_token: int
    per_pair: int

    def of(self, n: int) -> int:
        """Return how many it has for a row of n tokens."""
        return self.per_token * n + self.per_pair * n * n


_Sizes = Mapping[Tap, _TapSize]


def _sizes_of(model: Model, taps: Sequence[Tap]) -> _Sizes:
    """Return the size of each tap: layers may have different numbers of heads."""
    found = {}
    for kind, layer in taps:
        if kind == "hidden":
            found[kind, layer] = _TapSize(model.config.hidden_size, 0)
        else:
            heads, width = model.config.layer_shapes()[layer].heads, model.config.head_width
            found[kind, layer] = _TapSize(0, heads) if kind == "scores" else _TapSize(heads * width, 0)
    return found


def _cut(sizes: _Sizes, inside: Inside, lengths: NDArray[np.int64]) -> list[Numbers]:
    """Return what each row has inside, the numbers of its taps one after another."""
    by_tap = []
    for tap, values in inside.items():
        if not np.isfinite(values).all():
            raise FloatingPointError(f"what lies inside the teacher at {tap} is not finite")
        ends = np.cumsum([sizes[tap].of(int(n)) for n in lengths])
        by_tap.append(np.split(to_bfloat16(values).reshape(-1), ends[:-1]))
    return [np.concatenate(of_row) for of_row in zip(*by_tap, strict=True)]


def _joined(sizes: _Sizes, rows: list[Numbers], lengths: NDArray[np.int64]) -> Inside:
    """Return what `_cut` was given."""
    inside, begins = {}, [0] * len(rows)
    for tap, size in sizes.items():
        ends = [begin + size.of(int(n)) for begin, n in zip(begins, lengths, strict=True)]
        values = from_bfloat16(
            np.concatenate([of[begin:end] for of, begin, end in zip(rows, begins, ends, strict=True)])
        )
        inside[tap] = values.reshape(-1, size.per_token) if size.per_token else values
        begins = ends
    return inside


def bytes_of_rows(model: Model, taps: Sequence[Tap], lengths: NDArray[np.int64]) -> int:
    """Return how many bytes rows of so many tokens take on disk."""
    numbers = sum(size.of(int(n)) for size in _sizes_of(model, taps).values() for n in lengths)
    return HEAD.size * len(lengths) + 2 * numbers


class _File:
    """A file of records, and where each begins. What cannot be read or written is a warning, and the file is left."""

    def __init__(self, path: Path, budget: int) -> None:
        self._path, self._budget = path, budget
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> place of the record, and its bytes
        self._end = 0
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._closes: Callable[[], object] = lambda: None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = open_lockable(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._closes = weakref.finalize(self, close_lockable, self._descriptor)
            self._read_on(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def read(self, key: bytes, count: int) -> Numbers | None:
        """Return the numbers of a row, of which there must be `count`; None where the file does not have them whole."""
        place = self._places.get(key)
        if place is None or self._descriptor is None or place[1] != HEAD.size + 2 * count:
            return None
        try:
            record = os.pread(self._descriptor, place[1], place[0])
        except OSError as error:
            self._give_up(error)
            return None
        if len(record) < place[1] or record[: HEAD.size] != _head(key, memoryview(record)[HEAD.size :]):
            del self._places[key]
            return None
        return np.frombuffer(record, "<u2", offset=HEAD.size).astype(np.uint16, copy=False)

    def append(self, rows: list[tuple[bytes, Numbers]]) -> None:
        """Append records, unless they exceed the budget."""
        if self._descriptor is None or self._budget <= 0:
            return
        content, places = bytearray(), {}
        for key, numbers in rows:
            body = numbers.astype("<u2", copy=False).tobytes()
            places[key] = len(content), HEAD.size + len(body)
            content += _head(key, memoryview(body)) + body
        try:
            with self._lock:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                try:
                    self._append(self._descriptor, bytes(content), places)
                finally:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            self._give_up(error)

    def _append(self, descriptor: int, content: bytes, places: dict[bytes, tuple[int, int]]) -> None:
        self._read_on(descriptor)
        if os.fstat(descriptor).st_size > self._end:  # of a writer that was killed
            os.ftruncate(descriptor, self._end)
        taken = hidden_bytes()
        if taken + len(content) > self._budget:
            warnings.warn(
                f"the hidden cache is full: its files in {self._path.parent} take {readable_size(taken)}, and "
                f"hidden_cache is {readable_size(self._budget)}; the teacher answers other rows in each epoch",
                stacklevel=8,
            )
            self._budget = 0
            return
        write_all(descriptor, content)
        self._places |= {key: (self._end + place, size) for key, (place, size) in places.items()}
        self._end += len(content)

    def _read_on(self, descriptor: int) -> None:
        """Find the records from `_end` on, up to one that is not whole."""
        size = os.fstat(descriptor).st_size
        while self._end + HEAD.size <= size:
            key, count, _ = HEAD.unpack(os.pread(descriptor, HEAD.size, self._end))
            length = HEAD.size + 2 * count
            if count < 1 or self._end + length > size:
                return
            self._places[key] = self._end, length
            self._end += length

    def _give_up(self, error: OSError) -> None:
        warn_unusable(error)
        self._descriptor = None
        self._closes()


def _head(key: bytes, body: memoryview) -> bytes:
    """Return what comes before the numbers of a record."""
    count = len(body) // 2
    return HEAD.pack(key, count, zlib.crc32(body, zlib.crc32(_KEY_AND_COUNT.pack(key, count))))
