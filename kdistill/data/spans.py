"""Rows that are windows over the contexts of questions: where they lie, and what their answers are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_values import NO_LABEL
from .questions import Questions
from .ragged import Ragged, runs_of, units_of


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the windows of questions lie in their contexts. The windows of a question follow each other.

    Attributes:
        questions: the questions.
        examples: int64 (rows,), the question of each window, not falling.
        offsets: int32 (tokens, 2), the characters of the context that each token stands for: first, and behind the
            last. Those of the question and of special tokens mean nothing.
        context: int64 (rows, 2), the first token of the context in each window, and the place behind its last.
    """

    questions: Questions
    examples: NDArray[np.int64]
    offsets: NDArray[np.int32]
    context: NDArray[np.int64]

    def of_questions(self) -> NDArray[np.int64]:
        """Return int64 (questions + 1,): question q has the windows from entry q up to entry q + 1."""
        return np.searchsorted(self.examples, np.arange(len(self.questions) + 1))

    def take(self, indices: NDArray[np.integer[Any]] | Sequence[int], starts: NDArray[np.int64]) -> Spans:
        """Return those of the windows at `indices`, each run of windows of one question as one question."""
        rows = np.asarray(indices, dtype=np.int64)
        examples = runs_of(self.examples[rows])
        _, first = np.unique(examples, return_index=True)
        questions = self.questions.take(self.examples[rows[first]].tolist())
        return Spans(questions, examples, self.offsets[units_of(starts, rows)], self.context[rows])

    def targets(self, labels: NDArray[Any], starts: NDArray[np.int64]) -> SpanTargets:
        """Return the labels of the windows as metrics take them."""
        return SpanTargets(labels, starts, self)


@dataclass(frozen=True, eq=False)
class SpanTargets:
    """What answers are compared with: an entry for each question.

    Attributes:
        labels: int64 (rows, 2), the first and the last token of the answer in each window; see `Dataset`.
        starts: int64 (rows + 1,), window w holds tokens starts[w]:starts[w + 1].
        spans: where the windows lie.
    """

    labels: NDArray[np.int64]
    starts: NDArray[np.int64]
    spans: Spans

    def __len__(self) -> int:
        return len(self.spans.questions)

    def labelled(self) -> NDArray[np.bool_]:
        """Return for which questions somebody stated the answers, or that there is none, bool (questions,)."""
        return np.asarray(self.labels[self.spans.of_questions()[:-1], 0] != NO_LABEL)

    def of_labelled(self, outputs: Ragged) -> tuple[Ragged, SpanTargets]:
        """Return the outputs of the windows of these questions, and their targets."""
        labelled = self.labelled()
        if labelled.all():
            return outputs, self
        rows = np.flatnonzero(labelled[self.spans.examples])
        taken = outputs.take(rows)
        return taken, SpanTargets(self.labels[rows], taken.starts, self.spans.take(rows, self.starts))
