"""Running text in three parts that share no document: for a teacher's head, for students, and to measure on.

The books are cut at paragraphs into documents of some 2,000 words, after what Project Gutenberg wrote before and behind
them is dropped; a document of WikiText is an article, with its separated hyphens, commas and points put back. The last
twentieth of each book, and of the articles, is measured on. Of the rest, War and Peace and the first half of the
articles are the teacher's; the other books and articles are the students'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WORDS_OF_A_DOCUMENT = 2000
MEASURED_SHARE = 0.05
OF_THE_TEACHER, OF_STUDENTS = ("war_and_peace",), ("middlemarch", "pride_and_prejudice")


class RunningText(NamedTuple):
    """Documents.

    Attributes:
        teacher: to train the teacher's head on.
        student: to distil on.
        eval: to measure perplexity on.
    """

    teacher: list[str]
    student: list[str]
    eval: list[str]


def running_text(data: Path) -> RunningText:
    """Return the documents of the directories `books` and `wikitext2` in three parts."""
    articles = _articles(data / "wikitext2" / "valid.txt")
    kept, measured = _parted(articles)
    half = len(kept) // 2
    parts = RunningText(kept[:half], kept[half:], measured)
    for names, part in ((OF_THE_TEACHER, parts.teacher), (OF_STUDENTS, parts.student)):
        for name in names:
            kept, measured = _parted(_chapters(data / "books" / f"{name}.txt"))
            part += kept
            parts.eval.extend(measured)
    return parts


def _parted(documents: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return all documents but the last ones, and the last ones."""
    count = max(1, round(MEASURED_SHARE * len(documents)))
    return list(documents[:-count]), list(documents[-count:])


def _articles(path: Path) -> list[str]:
    """Return the articles of WikiText, each from the line with its title on."""
    articles: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r" = [^=].* = ", line):
            articles.append([])
        if articles and line.strip():
            articles[-1].append(re.sub(r" @(.)@ ", r"\1", line.strip()).replace("<unk>", "[UNK]"))
    return [" ".join(lines) for lines in articles]


def _chapters(path: Path) -> list[str]:
    """Return documents of whole paragraphs of a book."""
    text = path.read_text(encoding="utf-8-sig")
    _, _, text = text.partition("*** START OF THIS PROJECT")
    text, _, _ = text.partition("\n")[2].partition("*** END OF THIS PROJECT")
    documents: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", text):
        if len(documents[-1]) >= WORDS_OF_A_DOCUMENT:
            documents.append([])
        documents[-1] += paragraph.split()
    return [" ".join(words) for words in documents if words]
