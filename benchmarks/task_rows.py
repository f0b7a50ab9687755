"""The rows of tasks other than the classification of texts: entities, slots, and answers to questions.

`wnut17` and `bc5cdr` come with a development part. The others are split here. A tenth of the sentences of `snips`,
drawn at random, and ten of the 48 articles of `squadshifts` (its Wikipedia part) are evaluated on, so that no question
is about an article that has been trained on. `held_out` splits the training rows once more in the same way: recipes are
chosen on these rows, and reported on the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdistill.data.conll import read_conll
from kdistill.data.questions import read_questions
from kdistill.data.sources import read_table
from kdistill.data.words import words_of

Row = Mapping[str, Any]
SPLIT_SEED = 0
SHARE_OF_SENTENCES, SHARE_OF_ARTICLES = 0.1, 0.2
"""Shares that are evaluated on, where a data set has no part of its own for that."""


class TaskRows(NamedTuple):
    """The rows of a task.

    Attributes:
        train: to train on.
        eval: to evaluate on.
        id2label: the tags of words; None where questions are answered.
    """

    train: Sequence[Row]
    eval: Sequence[Row]
    id2label: Mapping[int, str] | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are reported."""
        return ("exact_match", "f1") if self.id2label is None else ("f1",)


def _shuffled(rows: Sequence[Row]) -> list[Row]:
    return [rows[index] for index in np.random.default_rng(SPLIT_SEED).permutation(len(rows))]


def _split_sentences(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return rows to train on and to evaluate on; sentences of the latter are not among the former."""
    shuffled = _shuffled(rows)
    count = round(SHARE_OF_SENTENCES * len(rows))
    evaluated = {tuple(row["tokens"]) for row in shuffled[:count]}
    return [row for row in shuffled[count:] if tuple(row["tokens"]) not in evaluated], shuffled[:count]


def _split_articles(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return rows to train on and to evaluate on, from different articles."""
    titles = sorted({row["title"] for row in rows})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(titles))
    evaluated = {titles[index] for index in order[: round(SHARE_OF_ARTICLES * len(titles))]}
    parts = ([row for row in rows if (row["title"] in evaluated) is wanted] for wanted in (False, True))
    train, evaluation = parts
    return _shuffled(train), evaluation


def _sentences(path: Path) -> list[Row]:
    table = read_conll(path, path.read_text(encoding="utf-8"))
    return [{"tokens": tokens, "tags": tags} for tokens, tags in zip(table["tokens"], table["tags"], strict=True)]


def _slots(directory: Path) -> list[Row]:
    """Return the sentences of all intents, cut into words. Some files are not UTF-8 everywhere."""
    pieces: list[Row] = []
    for path in sorted(directory.glob("train_*_full.json")):
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        pieces += [{"data": row["data"]} for rows in content.values() for row in rows]
    rows = words_of(read_table(pieces))
    return [{"tokens": words, "tags": tags} for words, tags in zip(rows.words, rows.tags or (), strict=True)]


def _questions(path: Path) -> list[Row]:
    questions = read_questions(path)
    titles = questions.table["title"]
    return [
        {
            "id": questions.ids[row],
            "title": titles[row],
            "question": questions.questions[row],
            "context": questions.contexts[row],
            "answers": [{"text": text, "answer_start": start} for text, start in questions.answers[row] or ()],
        }
        for row in range(len(questions))
    ]


def _parts(name: str, data: Path) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows of a data set to train on and to evaluate on."""
    if name == "wnut17":
        return _shuffled(_sentences(data / name / "train.conll")), _sentences(data / name / "dev.conll")
    if name == "bc5cdr":
        return _shuffled(_sentences(data / name / "train.tsv")), _sentences(data / name / "devel.tsv")
    if name == "snips":
        return _split_sentences(_slots(data / name))
    return _split_articles(_questions(data / name / "new_wiki_v1.0.json"))


NAMES = ("wnut17", "bc5cdr", "snips", "squadshifts")


def rows_of(name: str, data: Path, *, held_out: bool = False, count: int = 0) -> TaskRows:
    """Return the rows of a data set.

    Args:
        name: one of `NAMES`.
        data: the directory with a directory for each data set.
        held_out: evaluate on a part of the training rows instead.
        count: take so many of the rows to train on, and of those to evaluate on, for a quick look; 0: all.
    """
    train, evaluation = _parts(name, data)
    of_words = "tokens" in train[0]
    id2label = words_of(read_table([*train, *evaluation])).id2label() if of_words else None
    if held_out:
        train, evaluation = _split_sentences(train) if of_words else _split_articles(train)
    count = count or max(len(train), len(evaluation))
    return TaskRows(train[:count], evaluation[:count], id2label)
