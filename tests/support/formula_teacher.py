"""A teacher that is a formula and counts what it is asked, and records of a cache that follow from a number."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kdistill.data.batch import Batch
from kdistill.data.dataset import Dataset
from kdistill.distill.cache import TeacherCache

HEADER_BYTES, RECORD_BYTES = 64, 16 + 3 * 4 + 8


class FormulaTeacher:
    """Three logits that depend on a row's ids and types alone."""

    config = SimpleNamespace(num_outputs=3)
    per_token = False

    def __init__(self, name: str = "first") -> None:
        self.name = name
        self.rows_computed: list[bytes] = []

    def weights_hash(self, dtype: Any = None) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def forward(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = [slice(a, b) for a, b in pairwise(batch.starts)]
        self.rows_computed += [batch.ids[row].tobytes() + batch.types[row].tobytes() for row in rows]
        logits = [(np.sin(batch.ids[row]).sum(), batch.types[row].sum(), len(batch.ids[row])) for row in rows]
        return np.array(logits, dtype=np.float32) + np.float32(len(self.name))


def make_dataset(rows: list[list[int]]) -> Dataset:
    starts = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    ids = np.concatenate(rows).astype(np.int32)
    return Dataset(ids, np.zeros_like(ids), starts, np.full(len(rows), -100))


def keys_and_logits(first: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Keys and logits that follow from a row's number."""
    numbers = range(first, first + count)
    keys = np.frombuffer(b"".join(hashlib.sha256(b"%d" % i).digest()[:16] for i in numbers), dtype="V16")
    return keys, np.array([(i, -i, i / 7) for i in numbers], dtype=np.float32)


def open_cache(directory: Path) -> TeacherCache:
    return TeacherCache(directory, "weights", 3)


def check(directory: Path, count: int) -> None:
    """Rows 0..count-1 are there with the right logits, and the next one is not."""
    keys, logits = keys_and_logits(0, count + 1)
    found, stored = open_cache(directory).lookup(keys)
    assert found.tolist() == [True] * count + [False]
    np.testing.assert_array_equal(stored, np.where(found[:, None], logits, 0))
