"""Tokenise rows of words into a data set with a label for each token."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..text.blocks import BLOCK_ROWS as ENCODE_BLOCK
from ..text.blocks import WordRow
from ..text.tokenizer import PreTrainedTokenizerFast
from .dataset import Dataset, OnProgress, Reading
from .label_values import NO_LABEL, are_numbered
from .labels import UNTAGGED
from .ragged import Ragged, starts_of
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
    overlap = overlap_of_words(tokenizer, limit, doc_stride)
    cut = cut_words(rows, tags, tokenizer, max_length=limit, overlap=overlap, progress=progress)
    cut.warn_of_left_out(rows)
    labels = labels_of_all_tokens(cut.labels, cut.further, id2label or {}) if all_tokens else cut.labels
    numbered = are_numbered(tag for of in rows.tags or () if isinstance(of, list | tuple) for tag in of)
    return Dataset(
        *(cut.ids, cut.types, cut.starts, labels),
        Reading(rows.columns, limit, 0, numbered),
        rows.column_use,
        per_token=True,
        windows=Windows(cut.examples, cut.words, rows.words if keep_texts else None),
    )


def overlap_of_words(tokenizer: PreTrainedTokenizerFast, max_length: int | None, doc_stride: int | None) -> int:
    """Return how many tokens two windows of a row of words share; 0 where rows may have any length.

    Args:
        tokenizer: the model's.
        max_length: tokens of the longest window; None: any.
        doc_stride: those that are asked for.

    Raises:
        ValueError: windows have no room for text, or cannot overlap so.
    """
    if max_length is None:
        return 0
    return overlap_of("doc_stride", doc_stride, _room(tokenizer, max_length))


def _room(tokenizer: PreTrainedTokenizerFast, max_length: int) -> int:
    """Return how many tokens of text a window has room for. Raises ValueError for none."""
    special = sum(map(len, tokenizer.special_token_ids()))
    if max_length <= special:
        raise ValueError(f"max_length is {max_length}; expected room for {special} special tokens and text")
    return max_length - special


class WordWindows(NamedTuple):
    """Rows of words as windows.

    Attributes:
        ids, types, starts: as in `Dataset`, a row for each window.
        labels: int64 (tokens,), the tag of a word at its first token, in the window that answers for it; UNTAGGED where
            it is not known, and NO_LABEL at all other tokens.
        examples, words: as in `windows.Windows`.
        further: bool (tokens,), the further tokens of the words that a window answers for.
        longer: how many rows became several windows.
        left_out: the row and the word of words that the tokenizer makes nothing of, and that have a tag.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    examples: NDArray[np.int64]
    words: NDArray[np.int64]
    further: NDArray[np.bool_]
    longer: int
    left_out: Sequence[tuple[int, str]]

    def warn_of_left_out(self, rows: WordRows) -> None:
        """Warn of tags that nothing is learned from."""
        if self.left_out:
            row, word = self.left_out[0]
            warnings.warn(
                f"{rows.table.source}: the tokenizer makes nothing of words that have a tag, which take no part: "
                f"{len(self.left_out):,}, the first is {word!r} in {rows.table.where(row)}",
                stacklevel=5,
            )


def cut_words(
    rows: WordRows,
    tags: Ragged | None,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int | None,
    overlap: int,
    progress: OnProgress | None = None,
) -> WordWindows:
    """Tokenise rows of words on all cores and cut them into windows.

    Args:
        rows: the words.
        tags: int64, the tag of each word, an empty list for a row without tags; None: no row has any.
        tokenizer: the model's.
        max_length: tokens of the longest window; None: any.
        overlap: tokens that two windows of a row share, see `overlap_of_words`.
        progress: called after each block.
    """
    left_out: list[tuple[int, str]] = []
    cutter = _Cutter(tokenizer, None if max_length is None else _room(tokenizer, max_length), overlap)
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
    return cutter.windows(left_out)


def labels_of_all_tokens(
    labels: NDArray[np.int64], further: NDArray[np.bool_], id2label: Mapping[int, str]
) -> NDArray[np.int64]:
    """Return labels in which the further tokens of a word have its label, too: `I-` in place of `B-`, if that exists.

    Args:
        labels: as in `WordWindows`.
        further: likewise.
        id2label: the model's label map.
    """
    ids = {name: index for index, name in id2label.items()}
    inside = np.array(
        [ids.get(f"I-{name[2:]}", index) if name.startswith("B-") else index for index, name in id2label.items()]
    )
    first = np.maximum.accumulate(np.where(further, 0, np.arange(len(labels))))  # that of the word it belongs to
    found = labels[first]
    known = further & (found >= 0)
    found[known] = inside[found[known]]
    return found


class _Cutter:
    """Collects the windows of rows, and the labels of their text without those of special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int | None, overlap: int) -> None:
        self._before, self._behind = map(list, tokenizer.special_token_ids())
        self._has_types, self._size, self._overlap = tokenizer.has_token_types, size, overlap
        self._ids: list[int] = []
        self._types: list[int] = []
        self._labels: list[NDArray[np.int64]] = []
        self._words: list[NDArray[np.int64]] = []
        self._further: list[NDArray[np.bool_]] = []
        self._lengths: list[int] = []
        self._examples: list[int] = []
        self._longer = 0

    def add(self, example: int, row: WordRow, count: int, tags: NDArray[Any]) -> None:
        """Add the windows of a row of `count` words, some of which may have no token."""
        word_of = np.array(row.words, dtype=np.int64)
        lengths = np.bincount(word_of, minlength=count).astype(np.int64)
        size = self._size if self._size is not None else max(len(word_of), 1)
        self._longer += len(word_of) > size
        is_first = np.concatenate(([True], np.diff(word_of) != 0))[: len(word_of)]
        before, behind = len(self._before), len(self._behind)
        for part, own in windows_of_words(lengths, size, self._overlap):
            answers = own & is_first[part]
            words = np.where(answers, word_of[part], -1)
            labels = np.where(answers, tags[word_of[part]], NO_LABEL) if len(word_of) else np.zeros(0, np.int64)
            self._ids += [*self._before, *row.ids[part], *self._behind]
            self._types += [*[0] * before, *row.type_ids[part], *[0] * behind]
            self._labels.append(labels)
            self._words.append(words)
            self._further.append(own & ~is_first[part])
            self._lengths.append(before + len(labels) + behind)
            self._examples.append(example)

    def windows(self, left_out: Sequence[tuple[int, str]]) -> WordWindows:
        """Return the windows."""
        ids, starts = np.array(self._ids, np.int32), starts_of(np.array(self._lengths))
        is_text = np.ones(len(ids), np.bool_)
        for place in range(len(self._before)):
            is_text[starts[:-1] + place] = False
        for place in range(len(self._behind)):
            is_text[starts[1:] - 1 - place] = False
        labels, words = np.full(len(ids), NO_LABEL, np.int64), np.full(len(ids), -1, np.int64)
        further = np.zeros(len(ids), np.bool_)
        for whole, parts in ((labels, self._labels), (words, self._words), (further, self._further)):
            whole[is_text] = np.concatenate(parts)
        return WordWindows(
            ids,
            np.array(self._types, np.int32) if self._has_types else np.zeros_like(ids),
            starts,
            labels,
            np.array(self._examples, np.int64),
            words,
            further,
            self._longer,
            left_out,
        )
