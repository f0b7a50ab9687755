"""Questions as a data set of windows: packed token ids, where each window lies in its context, and its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import BertTokenizer
from ..text.windows import UnfitError, Window, windows_of
from .label_values import NO_LABEL
from .questions import Answer, Questions

BLOCK_QUESTIONS = 256
"""Questions between two calls of `progress`."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the windows of questions lie in their contexts.

    Attributes:
        questions: the questions.
        question: int64 (windows,), the question of each window, ascending.
        offsets: int32 (tokens, 2), the characters of the context that each token stands for: first, and behind the
            last. Those of the question and of special tokens mean nothing.
        context: int64 (windows, 2), the first token of the context in each window, and the place behind its last.
    """

    questions: Questions
    question: NDArray[np.int64]
    offsets: NDArray[np.int32]
    context: NDArray[np.int64]

    def windows_of_questions(self) -> NDArray[np.int64]:
        """Return int64 (questions + 1,): question q has the windows from entry q up to entry q + 1."""
        return np.searchsorted(self.question, np.arange(len(self.questions) + 1))


@dataclass(frozen=True, eq=False)
class PackedWindows:
    """Windows of questions as arrays, see `Spans` and `data.dataset.Dataset`.

    Attributes:
        ids: int32 (tokens,).
        types: int32 (tokens,), zeros for a tokenizer without types.
        starts: int64 (windows + 1,).
        labels: int64 (windows, 2), the first and the last token of the answer, counted in its window; [CLS] for both
            where the window does not hold all of it; NO_LABEL where nobody has given answers.
        spans: where they lie.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    spans: Spans


def pack_questions(
    questions: Questions,
    tokenizer: BertTokenizer,
    *,
    max_length: int,
    doc_stride: int,
    progress: Callable[[int, int], None] | None = None,
) -> PackedWindows:
    """Cut questions into windows, see `text.windows.windows_of`.

    Spaces before a question are left out, as in the example of transformers: some have many, and no model reads them.

    Args:
        questions: the questions.
        tokenizer: the model's.
        max_length: tokens of a window.
        doc_stride: tokens of the context that a window has in common with the one before it.
        progress: called with (questions done, all) after each block.

    Raises:
        ValueError: a question does not fit, with its row; or two windows cannot overlap so.
    """
    pairs = [(q.lstrip(), c) for q, c in zip(questions.questions, questions.contexts, strict=True)]
    has_types = "token_type_ids" in tokenizer.model_input_names
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
                blocks.append(_arrays(windows, has_types))
                windows = []
    except UnfitError as error:
        raise ValueError(f"{questions.table.where(error.row)}: {error}") from None
    if windows:
        blocks.append(_arrays(windows, has_types))
    if progress is not None:
        progress(len(pairs), len(pairs))
    ids, types, lengths, offsets, context = map(np.concatenate, zip(*blocks, strict=True))
    spans = Spans(questions, np.array(question, np.int64), offsets, context)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    return PackedWindows(ids, types, starts, np.array(labels, np.int64).reshape(-1, 2), spans)


def _arrays(windows: Sequence[Window], has_types: bool) -> tuple[NDArray[Any], ...]:
    """Return ids, types, lengths, offsets and contexts of windows."""
    lengths = np.array([len(window.ids) for window in windows], np.int64)
    ids = _joined((window.ids for window in windows), lengths)
    types = _joined((window.types for window in windows), lengths) if has_types else np.zeros_like(ids)
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
