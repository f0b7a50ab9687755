"""Tokenise rows of words into a data set with a label for each token."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text.blocks import BLOCK_ROWS as ENCODE_BLOCK
from ..text.blocks import WordRow
from ..text.tokenizer import PreTrainedTokenizerFast
from .dataset import Dataset, OnProgress, Reading
from .label_values import NO_LABEL, are_numbered
from .labels import UNTAGGED
from .ragged import starts_of
from .windows import Windows, overlap_of, windows_of_words
from .words import WordRows


def encode_words(
    rows: WordRows,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    id2label: Mapping[int, str] | None = None,
    all_tokens: bool = False,
    keep_texts: bool = False,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise rows of words on all cores.

    The first token of a word has the word's label, and the other tokens NO_LABEL. Rows that are too long become several
    windows, and a word that is in two of them has its label in the one in which it has most context.

    Args:
        rows: words and tags.
        tokenizer: the model's.
        max_length: tokens of the longest window, special tokens counted (default: the tokenizer's model_max_length).
        doc_stride: tokens that two windows of a row share (default: a quarter of a window).
        id2label: the model's label map.
        all_tokens: whether the other tokens of a word have its label, too, with `I-` in place of `B-` where the model
            has such a label, as `label_all_tokens` in the examples of transformers.
        keep_texts: whether the data set holds the words too, which stay in memory with it.
        progress: called after each block.

    Raises:
        ValueError: a tag is not the model's, or a row has more or fewer tags than words, before anything is tokenised;
            or windows cannot overlap as asked.
        TypeError: see `tags.tag_ids`.
    """
    tags = rows.read_tags(id2label)
    limit = tokenizer.truncation_length(max_length)
    before, behind = tokenizer.special_token_ids()
    size = None if limit is None else limit - len(before) - len(behind)
    if size is not None and size < 1:
        raise ValueError(
            f"max_length is {limit}; expected room for {len(before) + len(behind)} special tokens and text"
        )
    overlap = 0 if size is None else overlap_of("doc_stride", doc_stride, size)
    further = _further(id2label or {}) if all_tokens else None
    left_out: list[tuple[int, str]] = []
    cutter = _Cutter(before, behind, size, overlap, further)
    for first in range(0, len(rows), ENCODE_BLOCK):
        if progress is not None:
            progress(first, len(rows))
        encoded = tokenizer.encode_words(rows.words[first : first + ENCODE_BLOCK])
        for row, found in enumerate(encoded, first):
            count = len(rows.words[row])
            given = None if tags is None or not len(tags[row]) else tags[row]
            if given is not None and len(set(found.words)) < count:
                there = {*found.words}
                words = enumerate(rows.words[row])
                left_out += ((row, word) for place, word in words if place not in there and given[place] >= 0)
            cutter.add(row, found, count, np.full(count, UNTAGGED) if given is None else given)
    if progress is not None:
        progress(len(rows), len(rows))
    if left_out:
        row, word = left_out[0]
        warnings.warn(
            f"{rows.table.source}: the tokenizer makes nothing of words that have a tag, which take no part: "
            f"{len(left_out):,}, the first is {word!r} in {rows.table.where(row)}",
            stacklevel=4,
        )
    numbered = are_numbered(tag for of in rows.tags or () if isinstance(of, list | tuple) for tag in of)
    reading, texts = Reading(rows.columns, limit, 0, numbered), rows.words if keep_texts else None
    return cutter.dataset(tokenizer.has_token_types, reading, rows, texts)


def _further(id2label: Mapping[int, str]) -> NDArray[np.int64]:
    """Return the label of the further tokens of a word by that of its first one, int64 (labels,)."""
    ids = {name: index for index, name in id2label.items()}
    return np.array(
        [ids.get(f"I-{name[2:]}", index) if name.startswith("B-") else index for index, name in id2label.items()]
    )


class _Cutter:
    """Collects the windows of rows."""

    def __init__(
        self,
        before: Sequence[int],
        behind: Sequence[int],
        size: int | None,
        overlap: int,
        further: NDArray[np.int64] | None,
    ) -> None:
        self._before, self._behind, self._size, self._overlap = list(before), list(behind), size, overlap
        self._further = further
        self._ids: list[int] = []
        self._types: list[int] = []
        self._labels: list[NDArray[np.int64]] = []
        self._words: list[NDArray[np.int64]] = []
        self._lengths: list[int] = []
        self._examples: list[int] = []

    def add(self, example: int, row: WordRow, count: int, tags: NDArray[Any]) -> None:
        """Add the windows of a row of `count` words, some of which may have no token."""
        word_of = np.array(row.words, dtype=np.int64)
        lengths = np.bincount(word_of, minlength=count).astype(np.int64)
        size = self._size if self._size is not None else max(len(word_of), 1)
        is_first = np.concatenate(([True], np.diff(word_of) != 0))[: len(word_of)]
        for part, own in windows_of_words(lengths, size, self._overlap):
            answers = own & is_first[part]
            words = np.where(answers, word_of[part], -1)
            labels = np.where(answers, tags[word_of[part]], NO_LABEL) if len(word_of) else np.zeros(0, np.int64)
            if self._further is not None:
                others = own & ~is_first[part]
                labels[others] = [tag if tag < 0 else self._further[tag] for tag in tags[word_of[part]][others]]
            self._append(example, row.ids[part], row.type_ids[part], labels, words)

    def _append(
        self, example: int, ids: list[int], types: list[int], labels: NDArray[np.int64], words: NDArray[np.int64]
    ) -> None:
        before, behind = len(self._before), len(self._behind)
        self._ids += [*self._before, *ids, *self._behind]
        self._types += [*[0] * before, *types, *[0] * behind]
        self._labels.append(np.pad(labels, (before, behind), constant_values=NO_LABEL))
        self._words.append(np.pad(words, (before, behind), constant_values=-1))
        self._lengths.append(before + len(ids) + behind)
        self._examples.append(example)

    def dataset(
        self, has_types: bool, reading: Reading, rows: WordRows, texts: Sequence[Sequence[str]] | None
    ) -> Dataset:
        """Return the windows as a data set; `texts` are the words that it is to hold."""
        types = np.array(self._types, np.int32) if has_types else np.zeros(len(self._ids), np.int32)
        windows = Windows(np.array(self._examples, np.int64), np.concatenate(self._words), texts)
        return Dataset(
            np.array(self._ids, np.int32),
            types,
            starts_of(np.array(self._lengths)),
            np.concatenate(self._labels).astype(np.int64),
            reading,
            rows.column_use,
            per_token=True,
            windows=windows,
        )
