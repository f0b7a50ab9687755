"""Rows for choosing a recipe: sentences of the training file, held out together with their phrases.

SST-2's training rows are sentences and phrases of them, so rows drawn at random share words with the others. A sentence
here is a row of at least eight words that is not part of another row. The rows left to train on are those that are not
held out and that do not occur in held-out sentences alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

LEAST_WORDS = 8


def split(train: Path, count: int, directory: Path) -> tuple[Path, Path]:
    """Write `count` held-out sentences and the rows to train on to `directory`; return (to train on, held out)."""
    with train.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    words = [tuple(row[0].split()) for row in rows]
    parts = {part for row in words for part in _phrases(row) if part != hash(row)}
    sentences = [index for index, row in enumerate(words) if hash(row) not in parts]
    long = [index for index in sentences if len(words[index]) >= LEAST_WORDS]
    held = set(np.random.default_rng(0).choice(long, count, replace=False).tolist())
    alone = set(_all_phrases(words[index] for index in held))
    alone -= set(_all_phrases(words[index] for index in sentences if index not in held))
    fit = [index for index, row in enumerate(words) if index not in held and hash(row) not in alone]
    paths = directory / "fit.tsv", directory / "held_out.tsv"
    for path, chosen in zip(paths, (fit, sorted(held)), strict=True):
        lines = (header, *(rows[index] for index in chosen))
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return paths


def _phrases(words: Sequence[str]) -> Iterator[int]:
    """Yield the hash of every run of words, the whole row included: a set of the runs would take gigabytes."""
    return (hash(tuple(words[i:j])) for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def _all_phrases(rows: Iterable[Sequence[str]]) -> Iterator[int]:
    return (phrase for row in rows for phrase in _phrases(row))
