"""What token files hold and what tokens.json says of it: arrays, forms of labels, shards with their checksums.

    tokens.json   what they are: task, tokenizer, maximum length, labels, and the shards with a checksum of each array
    tokenizer/    the tokenizer's own files
    ids.bin       int32 (tokens,), token ids
    types.bin     int32 (tokens,), token types; a hole in the file where all are 0
    starts.bin    int64 (rows + 1,), row r holds tokens starts[r]:starts[r + 1]
    lengths.bin   int64 (rows,), tokens of each row
    labels.bin    what `FORMS` says; `labels.ordered.bin` once the labels have their final numbers
    texts.bin     with `--keep-texts`: the texts in UTF-8; texts.starts.bin, int64 (rows + 1,): where each begins
    pairs.bin     with `--keep-texts` the second texts of pairs, and pairs.starts.bin

Rows of words with tags become windows, see `data.windows`, and have these arrays, too:

    examples.bin  int64 (rows,), the row of words that each window is of; texts.bin has the list of its words, as JSON
    words.bin     int64 (tokens,), the word of its row that a token answers for; -1 for none
    further.bin   uint8 (tokens,), 1 for the further tokens of the words that a window answers for

So do questions, see `data.spans`, with:

    examples.bin  int64 (rows,), the question that each window is of; texts.bin has its id, the question, the context
                  and the answers, as JSON, always: what a model answers is compared with texts
    offsets.bin   int32 (tokens, 2), the characters of the context that a token stands for
    context.bin   int64 (rows, 2), the first token of the context, and the place behind its last

All numbers are little-endian, one array a file, since the core reads rows out of one array. A shard is a run of rows:
the same part of each file. `data.token_writer` writes them one after another, and `tokens.json` anew after each.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..system.files import read_json_object
from .columns import NO_COLUMNS, Columns

FORMAT = "kdistill token files"
VERSION = 2
TOKENIZER_DIRECTORY = "tokenizer"
LABELS, ORDERED = "labels", "labels.ordered"
_CHECKED = 1 << 22  # bytes read at once to check them
_MAX_HEADER_BYTES = 1 << 30  # some two million shards

ARRAYS: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"),
    "types": np.dtype("<i4"),
    "starts": np.dtype("<i8"),
    "lengths": np.dtype("<i8"),
    "texts": np.dtype("u1"),
    "texts.starts": np.dtype("<i8"),
    "pairs": np.dtype("u1"),
    "pairs.starts": np.dtype("<i8"),
    "examples": np.dtype("<i8"),
    "words": np.dtype("<i8"),
    "further": np.dtype("u1"),
    "offsets": np.dtype("<i4"),
    "context": np.dtype("<i8"),
}
"""The arrays beside the labels, with their types."""
TEXTS = frozenset(("texts", "pairs"))
"""Those of them that hold texts; `<name>.starts` tells where each begins."""
OF_TWO = frozenset(("offsets", "context"))
"""Those of them that have two numbers for each token or row."""


class LabelForm(NamedTuple):
    """How labels.bin holds the labels.

    Attributes:
        dtype: of an entry.
        arrays: those that belong to this form.
        width: numbers of a label.
    """

    dtype: np.dtype[Any]
    arrays: tuple[str, ...] = ()
    width: int = 1

    @property
    def in_windows(self) -> bool:
        """Whether rows are windows; texts.bin then has JSON for each example."""
        return "examples" in self.arrays


FORMS = {
    "values": LabelForm(np.dtype("<i8")),
    "numbers": LabelForm(np.dtype("<f4")),
    "words": LabelForm(np.dtype("<i8")),
    "tags": LabelForm(np.dtype("<i8"), ("examples", "words", "further")),
    "answers": LabelForm(np.dtype("<i8"), ("examples", "offsets", "context"), width=2),
}
"""`values`: the place of a label in the list of different labels in tokens.json, NO_LABEL for none. `numbers`: those of
a regression, NaN for none. `words`: for each token of running text itself where it may be hidden, else NO_LABEL.
`tags`: for each token the place of its tag in that list, UNTAGGED where it is not known, NO_LABEL where it has none.
`answers`: the first and the last token of the answer in each window, see `data.question_windows`."""


@dataclass(frozen=True)
class Shard:
    """A run of rows that is written and checked as a whole.

    Attributes:
        file, part: the number of the file that they are from, and of the part of it.
        read: rows of that part.
        examples: rows of words or questions that were in them; of others as many as `rows`.
        rows: how many were made of them.
        tokens: of all its rows.
        cut: how many were longer than the maximum length, and were cut to it or into several windows.
        longest: tokens of the longest one.
        bytes: of its part of each array, by name.
        crc32: of these.
    """

    file: int
    part: int
    read: int
    examples: int
    rows: int
    tokens: int
    cut: int
    longest: int
    bytes: Mapping[str, int]
    crc32: Mapping[str, int]


@dataclass(frozen=True)
class Header:
    """What tokens.json holds.

    Attributes:
        settings: what decides the content beside the rows, see `token_encoders.Settings`.
        tokenizer: the tokenizer's content hash.
        inputs: the files that are read, each with its size and time of change.
        columns: of the texts, second texts and labels.
        labels: the name of the array of labels.
        values: the different labels as the source holds them, in the order of their numbers.
        places: where each of them occurs first, for messages.
        class_names: names that the source itself has for the labels 0, 1, ..., or none.
        numbered: see `dataset.Reading`.
        unused: the columns that were not read.
        shards: the finished ones, in their order.
        finished: whether all rows are there.
    """

    settings: Mapping[str, Any]
    tokenizer: str
    inputs: Sequence[Mapping[str, Any]]
    columns: Columns = NO_COLUMNS
    labels: str = LABELS
    values: Sequence[Any] = ()
    places: Sequence[str] = ()
    class_names: Sequence[str] = ()
    numbered: bool = False
    unused: Sequence[str] = ()
    shards: Sequence[Shard] = ()
    finished: bool = False

    @property
    def rows(self) -> int:
        """The rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def examples(self) -> int:
        """The rows of words or questions of which the rows are windows; of others the rows."""
        return sum(shard.examples for shard in self.shards)

    @property
    def tokens(self) -> int:
        """The tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def cut(self) -> int:
        """The rows that were longer than the maximum length."""
        return sum(shard.cut for shard in self.shards)

    @property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return max((shard.longest for shard in self.shards), default=0)

    @property
    def form(self) -> LabelForm:
        """How the labels are held."""
        return FORMS[self.settings["labels"]]

    @property
    def max_length(self) -> int | None:
        """The tokens that rows were cut to, None for any length."""
        length: int | None = self.settings["max_length"]
        return length

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content |= {"columns": self.columns._asdict(), "shards": [vars(shard) for shard in self.shards]}
        return {"format": FORMAT, "version": VERSION, **content}

    @classmethod
    def from_json(cls, path: Path) -> Header:
        """Read it. Raises ValueError for a file that is no such header, or of another version."""
        content = read_json_object(path, _MAX_HEADER_BYTES)
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not what `kdistill encode` writes; expected a directory of token files")
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(
                f"{path} has version {version}; this kdistill reads {VERSION}: encode the rows anew, into another "
                "directory"
            )
        try:
            content["shards"] = [Shard(**shard) for shard in content["shards"]]
            content["columns"] = Columns(**content["columns"])
            header = cls(**content)
            header._check()
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); encode the rows anew, into another directory") from error
        return header

    def _check(self) -> None:
        """Raise TypeError or KeyError where a value has another type than those that are written."""
        texts = [self.tokenizer, *self.places, *self.class_names, *self.unused, *filter(None, self.columns)]
        numbers = [] if self.max_length is None else [self.max_length]
        for shard in self.shards:
            numbers += [shard.file, shard.part, shard.read, shard.examples, shard.rows, shard.tokens]
            numbers += [shard.cut, shard.longest]
            numbers += [of[name] for of in (shard.bytes, shard.crc32) for name in self.listed_arrays()]
        if (
            not all(isinstance(of, list) for of in (self.places, self.class_names, self.unused, self.values))
            or not all(isinstance(text, str) for text in texts)
            or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            or len(self.places) != len(self.values)
            or self.labels not in (LABELS, ORDERED)
            or self.settings["labels"] not in FORMS
            or (self.form.in_windows and type(self.settings["overlap"]) is not int)
        ):
            raise TypeError("a value is none of those that are written")

    def listed_arrays(self) -> list[str]:
        """Return the names of the arrays that there are, as shards list them."""
        names = ["ids", "types", "starts", "lengths", LABELS, *self.form.arrays]
        if self.settings["keep_texts"]:
            names += ["texts", "texts.starts"]
            if self.columns.text_pair is not None and not self.form.in_windows:
                names += ["pairs", "pairs.starts"]
        return names

    def file_name(self, array: str) -> str:
        """Return the name of the file that holds an array."""
        return f"{self.labels if array == LABELS else array}.bin"


def first_damaged(path: Path, header: Header) -> tuple[int, str] | None:
    """Return the first shard that is not as it was written and a sentence about it; None where all are whole.

    Raises:
        OSError: a file cannot be read.
    """
    found: list[tuple[int, str]] = []
    for name in header.listed_arrays():
        file = path / header.file_name(name)
        if not file.is_file():
            return 0, f"{file} is missing"
        problem = next(_damage(file, name, header), None)
        found += [] if problem is None else [problem]
    return min(found, default=None)


def _damage(path: Path, name: str, header: Header) -> Iterator[tuple[int, str]]:
    expected, size = sum(shard.bytes[name] for shard in header.shards), path.stat().st_size
    with path.open("rb") as file:
        for number, shard in enumerate(header.shards):
            left, crc = shard.bytes[name], 0
            while left and (content := file.read(min(left, _CHECKED))):
                crc, left = zlib.crc32(content, crc), left - len(content)
            if left:
                yield number, f"{path} has {size:,} bytes of {expected:,}"
            if crc != shard.crc32[name]:
                yield number, f"{path} does not hold what was written (its checksum differs)"
    if header.finished and size > expected:
        yield len(header.shards) - 1, f"{path} has {size:,} bytes; expected {expected:,}"
