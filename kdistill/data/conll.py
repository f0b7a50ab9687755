"""Read files of words with tags: a word a line and an empty line between sentences, as in CoNLL's shared tasks."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence

from .headers import is_tag
from .table import Table
from .text_files import lines_of

TOKENS, TAGS = "tokens", "tags"
"""The columns of what is read."""
_NEW_DOCUMENT = "-DOCSTART-"
_REMARK = "# "
_SPACES = re.compile(" +")
# Names that the columns of words and of tags have where a file has a header.
_NAMES_OF_WORDS = ("word", "words", "token", "tokens", "text", "sentence")
_NAMES_OF_TAGS = ("tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "iob", "entity", "entities")
_OTHER_FILES = (
    " (a table has a header with tokens and tags, or text and entities, and ends in .tsv or .csv; a text a line is "
    "read with --columns text)"
)


def read_conll(path: str | os.PathLike[str], text: str) -> Table:
    """Return a row for each sentence: its words, from the first column, and their tags, from the last.

    The place of a row is the lines of its words, such as `train.conll:3-14`.

    Columns are separated by a tab where a line has one, else by white space. A file of one column has words without
    tags. Lines of `-DOCSTART-` are left out, and so are remarks such as `# text = ...` of CoNLL-U. Where the first
    column looks like tags and the last does not, a warning says so.

    Raises:
        ValueError: a line has no tag or another number of columns than the first, or is a header, with file and line;
            there are none; the first column counts the words; or most words have spaces in them, as texts do.
    """
    name, sentences, places = os.fspath(path), [], []
    words: list[str] = []
    tags: list[str] = []
    columns = begun = ended = 0
    for number, line in enumerate([*lines_of(text), ""], start=1):
        # Not str.split(): words may hold other spaces, such as the narrow one between the digits of 10 000.
        fields = [field.strip(" ") for field in (line.split("\t") if "\t" in line else _SPACES.split(line.strip(" ")))]
        if not line.strip() or fields[0] == _NEW_DOCUMENT:
            if words:
                sentences.append((words, tags))
                places.append(f"{name}:{begun}" if begun == ended else f"{name}:{begun}-{ended}")
                words, tags = [], []
            continue
        if _is_remark(line, fields, columns or 2):
            continue
        if not columns and fields[0].lower() in _NAMES_OF_WORDS and fields[-1].lower() in _NAMES_OF_TAGS:
            raise ValueError(
                f"{name}:{number}: {line.strip()!r} is a header, and a file with a word and its tag a line has none; "
                "expected the file without this line"
            )
        columns = columns or len(fields)
        if len(fields) != columns or not fields[0]:
            raise ValueError(
                f"{name}:{number}: {len(fields)} columns ({line.strip()!r}); expected {columns} as before: a word, its "
                f"tag in the last column, and an empty line between sentences{_OTHER_FILES}"
            )
        begun, ended = begun if words else number, number
        words.append(fields[0])
        tags.append(fields[-1])
    if not sentences:
        raise ValueError(f"{name} has no words; expected a word and its tag a line")
    if columns > 1 and all(of == [str(place) for place in range(1, len(of) + 1)] for of, _ in sentences):
        raise ValueError(
            f"{name}: the first column counts the words, as in CoNLL-U; expected the word in the first and its tag in "
            "the last, such as the second and the fourth column of such a file"
        )
    spaced = [word for of, _ in sentences for word in of if " " in word]
    if len(spaced) * 2 > sum(len(of) for of, _ in sentences):
        raise ValueError(
            f"{name}: {len(spaced):,} lines begin with more than a word, such as {spaced[0]!r}; expected a word and "
            f"its tag a line{_OTHER_FILES}"
        )
    found = {TOKENS: [of for of, _ in sentences]}
    if columns > 1:
        _warn_of_tags_first(name, sentences)
        found[TAGS] = [of for _, of in sentences]
    return Table(name, found, places)


def _warn_of_tags_first(name: str, sentences: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Warn where most words, and not most tags, are written as tags."""
    words, tags = ([text for row in sentences for text in row[column]] for column in (0, 1))
    tags_first = [word for word in words if is_tag(word)]
    if len(tags_first) * 2 > len(words) and sum(map(is_tag, tags)) * 2 <= len(tags):
        shown = max(tags_first, key=len)
        warnings.warn(
            f"{name}: the first column looks like the tags ({shown!r}) and the last does not ({tags[0]!r}); expected "
            "the word in the first column and its tag in the last",
            stacklevel=3,
        )


def _is_remark(line: str, fields: list[str], columns: int) -> bool:
    """Return whether a line is no word: it begins with "# ", and has other columns than words or an equals sign."""
    return line.startswith(_REMARK) and "\t" not in line and (len(fields) != columns or fields[2:3] == ["="])
