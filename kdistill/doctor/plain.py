"""Rows of which no tokenizer is known, as a data set all the same, so that labels and texts can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import numpy as np

from ..data.columns import Rows
from ..data.dataset import Dataset, Reading
from ..data.label_values import are_numbered, as_integer
from ..data.labels import LabelReader, label_ids
from ..losses.problem_types import REGRESSION
from ..models.configuration import Config

_BEGIN = 0  # a row has at least one token


def words_of(rows: Rows, id2label: Mapping[int, str], reader: LabelReader) -> Dataset:
    """Return rows whose tokens are hashes of their words in lower case; labels that nobody can read are missing.

    Args:
        rows: the rows.
        id2label: the model's label map.
        reader: reads the labels.
    """
    pairs = rows.pairs or [""] * len(rows)
    tokens = [
        [_BEGIN, *(crc32(word.encode(errors="replace")) >> 1 for word in f"{text} {pair}".lower().split())]
        for text, pair in zip(rows.texts, pairs, strict=True)
    ]
    starts = np.concatenate(([0], np.cumsum([len(row) for row in tokens])))
    ids = np.fromiter((token for row in tokens for token in row), np.int32, int(starts[-1]))
    reading = Reading(rows.columns, None, 0, are_numbered(rows.labels or ()))
    given = [None if as_integer(label) == -1 else label for label in rows.labels or [None] * len(rows)]
    try:
        labels = reader(given, id2label, rows.table.where, rows.class_names)
    except (TypeError, ValueError):
        labels = label_ids([None] * len(rows), None, rows.table.where)
    return Dataset(ids, np.zeros_like(ids), starts, labels, reading, rows.column_use)


def implied_config(config: Config, rows: Rows) -> Config:
    """Return the config with the labels that rows imply, for a model of which nothing is known; numbers without."""
    try:
        return config.replace(id2label=rows.id2label())
    except ValueError:
        return config.replace(num_labels=1, problem_type=REGRESSION)


def withheld(rows: Rows) -> int:
    """Return how many labels are -1, as GLUE marks rows whose label is withheld."""
    return sum(as_integer(label) == -1 for label in rows.labels or ())
