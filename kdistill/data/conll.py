"""Read files of words with tags: a word a line and an empty line between sentences, as in CoNLL's shared tasks."""

from __future__ import annotations

import os

from .table import Table
from .text_files import lines_of

TOKENS, TAGS = "tokens", "tags"
"""The columns of what is read."""
_NEW_DOCUMENT = "-DOCSTART-"
_REMARK = "# "


def read_conll(path: str | os.PathLike[str], text: str) -> Table:
    """Return a row for each sentence: its words, from the first column, and their tags, from the last.

    Columns are separated by a tab where a line has one, else by white space. A file of one column has words without
    tags. Lines of `-DOCSTART-` are left out, and so are remarks such as `# text = ...` of CoNLL-U.

    Raises:
        ValueError: a line has no tag or another number of columns than the first, with file and line; there are none.
    """
    name, sentences, places = os.fspath(path), [], []
    words: list[str] = []
    tags: list[str] = []
    columns = begun = 0
    for number, line in enumerate([*lines_of(text), ""], start=1):
        fields = [field.strip(" ") for field in line.split("\t")] if "\t" in line else line.split()
        if not line.strip() or fields[0] == _NEW_DOCUMENT:
            if words:
                sentences.append((words, tags))
                places.append(f"{name}:{begun}")
                words, tags = [], []
            continue
        if _is_remark(line, fields, columns or 2):
            continue
        columns = columns or len(fields)
        if len(fields) != columns or not fields[0]:
            raise ValueError(
                f"{name}:{number}: {len(fields)} columns ({line.strip()!r}); expected {columns} as before: a word, its "
                "tag in the last column, and an empty line between sentences"
            )
        begun = begun if words else number
        words.append(fields[0])
        tags.append(fields[-1])
    if not sentences:
        raise ValueError(f"{name} has no words; expected a word and its tag a line")
    found = {TOKENS: [of for of, _ in sentences]}
    if columns > 1:
        found[TAGS] = [of for _, of in sentences]
    return Table(name, found, places)


def _is_remark(line: str, fields: list[str], columns: int) -> bool:
    """Return whether a line is no word: it begins with "# ", and has other columns than words or an equals sign."""
    return line.startswith(_REMARK) and "\t" not in line and (len(fields) != columns or fields[2:3] == ["="])
