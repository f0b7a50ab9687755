"""Questions as a data set of windows over their contexts, with the places of the answers as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import PreTrainedTokenizerFast
from ..text.windows import UnfitError, Window, windows_of
from .columns import Columns, ColumnUse
from .dataset import Dataset, OnProgress, Reading
from .label_values import NO_LABEL
from .questions import ID_COLUMN, IMPOSSIBLE_COLUMN, TITLE_COLUMN, Answer, Questions
from .ragged import starts_of
from .spans import Spans

BLOCK_QUESTIONS = 256
"""Questions between two calls of `progress`."""


def encode_questions(
    questions: Questions,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    doc_stride: int,
    progress: OnProgress | None = None,
) -> Dataset:
    """Cut questions into windows, see `text.windows.windows_of`.

    Spaces before a question are left out, as in the example of transformers: some have many, and no model reads them.

    Args:
        questions: the questions.
        tokenizer: the model's.
        max_length: tokens of a window.
        doc_stride: tokens of the context that a window has in common with the one before it.
        progress: called with (questions done, all) after each block.

    Returns:
        A row for each window. Its label is the first and the last token of the first answer, int64 (2,), counted in the
        window; [CLS] for both where the window does not hold all of it; NO_LABEL where nobody has given answers.

    Raises:
        ValueError: a question does not fit, with its row; or two windows cannot overlap so.
    """
    pairs = [(q.lstrip(), c) for q, c in zip(questions.questions, questions.contexts, strict=True)]
    windows: list[Window] = []
    question: list[int] = []
    labels: list[tuple[int, int]] = []
    blocks = []
    try:
        for row, parts in enumerate(windows_of(tokenizer, pairs, max_length, doc_stride)):
            if row % BLOCK_QUESTIONS == 0 and progress is not None:
                progress(row, len(pairs))
            labels += (_label(part, questions.answers[row], tokenizer.cls_token_id) for part in parts)
            question += [row] * len(parts)
            windows += parts
            if len(windows) >= BLOCK_QUESTIONS:
                blocks.append(_arrays(windows, tokenizer.has_token_types))
                windows = []
    except UnfitError as error:
        raise ValueError(f"{questions.table.where(error.row)}: {error}") from None
    if windows:
        blocks.append(_arrays(windows, tokenizer.has_token_types))
    if progress is not None:
        progress(len(pairs), len(pairs))
    ids, types, lengths, offsets, context = map(np.concatenate, zip(*blocks, strict=True))
    reading = Reading(Columns(*questions.columns), max_length, 0)
    return Dataset(
        *(ids, types, starts_of(lengths)),
        np.array(labels, np.int64).reshape(-1, 2),
        reading=reading,
        column_use=_column_use(questions),
        windows=Spans(questions, np.array(question, np.int64), offsets, context),
    )


def _column_use(questions: Questions) -> ColumnUse:
    """Return which columns are read; the title of an article is one that nobody expects to be read."""
    use = ColumnUse.of(questions.table, questions.columns[:2], questions.columns[2])
    return replace(
        use, unused=tuple(name for name in use.unused if name not in (ID_COLUMN, TITLE_COLUMN, IMPOSSIBLE_COLUMN))
    )


def _arrays(windows: Sequence[Window], has_types: bool) -> tuple[NDArray[Any], ...]:
    """Return ids, types, lengths, offsets and contexts of windows."""
    lengths = np.array([len(window.ids) for window in windows], np.int64)
    ids = _joined((window.ids for window in windows), lengths)
    types = _joined((window.type_ids for window in windows), lengths) if has_types else np.zeros_like(ids)
    offsets = np.array(list(chain.from_iterable(window.offsets for window in windows)), np.int32).reshape(-1, 2)
    return ids, types, lengths, offsets, np.array([(window.begin, window.end) for window in windows], np.int64)


def _joined(rows: Any, lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))


def _label(window: Window, answers: tuple[Answer, ...] | None, cls_token_id: int) -> tuple[int, int]:
    """Return the first and the last token of the first answer; that of [CLS] where it is not in the window."""
    if answers is None:
        return NO_LABEL, NO_LABEL
    cls = window.ids.index(cls_token_id) if cls_token_id in window.ids else 0
    offsets = window.offsets[window.begin : window.end]
    if not answers or not offsets:
        return cls, cls
    first, behind = answers[0].start, answers[0].start + len(answers[0].text)
    if offsets[0][0] > first or offsets[-1][1] < behind:
        return cls, cls
    begins, ends = np.array(offsets).T
    start = int(np.searchsorted(begins, first, side="right")) - 1
    end = int(np.searchsorted(ends, behind, side="left"))
    return window.begin + start, window.begin + end
