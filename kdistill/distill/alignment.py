"""A teacher's answers for its own tokens as answers for a student's tokens of the same text."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..data.labels import NO_LABEL
from ..data.ragged import Ragged
from ..data.spans import Spans
from ..data.windows import Windows


def for_tokens_of(rows: Dataset, read: Dataset, outputs: Ragged) -> Ragged:
    """Return a teacher's outputs for its own tokens as those for the student's tokens.

    Args:
        rows: as the student reads them: windows of words, or of questions.
        read: as the teacher reads them, from `read_texts`.
        outputs: the teacher's, for the tokens of `read`.
    """
    if isinstance(rows.windows, Windows):
        return _by_words(rows, read, outputs)
    return _by_characters(rows, read, outputs)


def _by_words(rows: Dataset, read: Dataset, outputs: Ragged) -> Ragged:
    """Return outputs for windows of words.

    Each token that takes part in the loss has the output that the teacher gives the first token of its word, in the
    window where that word has most context. It is NaN where the teacher's tokenizer makes nothing of a word, and 0 for
    tokens that take no part.
    """
    assert isinstance(rows.windows, Windows)
    assert isinstance(read.windows, Windows)
    assert rows.windows.texts is not None
    first_word = np.concatenate(([0], np.cumsum([len(words) for words in rows.windows.texts])))
    theirs = _words_of_tokens(read, first_word, read.windows.words)
    place = np.full(first_word[-1], -1)
    place[theirs[theirs >= 0]] = np.flatnonzero(theirs >= 0)
    part = rows.labels != NO_LABEL
    # A further token of a word that has its label, see `label_all_tokens`, follows the first one in its window.
    latest = np.maximum.accumulate(np.where(rows.windows.words >= 0, np.arange(len(rows.ids)), 0))
    ours = _words_of_tokens(rows, first_word, np.where(part, rows.windows.words[latest], -1))
    found = np.zeros((len(rows.ids), outputs.values.shape[1]), np.float32)
    answer = place[ours[part]]
    found[part] = np.where((answer >= 0)[:, None], outputs.values[answer], np.float32(np.nan))
    return Ragged(found, rows.starts)


def _words_of_tokens(rows: Dataset, first_word: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of each token's word among the words of all examples, -1 for none."""
    assert isinstance(rows.windows, Windows)
    of = np.repeat(first_word[rows.windows.examples], rows.lengths)
    return np.where(words >= 0, of + words, -1)


def _by_characters(rows: Dataset, read: Dataset, outputs: Ragged) -> Ragged:
    """Return outputs for windows of questions.

    A window is answered from the teacher's window that has most of its context. The probability that an answer begins
    (or ends) with one of the teacher's tokens goes to the student's token that has its first (or last) character: the
    logits of several add up as exponentials. Those of [CLS], no answer, and of tokens outside of the student's window
    go to [CLS]. Tokens with which nothing begins for the teacher get its lowest logit of the window.
    """
    ours, theirs = rows.windows, read.windows
    assert isinstance(ours, Spans)
    assert isinstance(theirs, Spans)
    of_question, found = theirs.of_questions(), np.empty((len(rows.ids), 2), np.float32)
    window = 0
    for question, context in enumerate(ours.questions.contexts):
        there = [_Part.of(theirs, read, at, context) for at in range(*of_question[question : question + 2].tolist())]
        while window < len(rows) and ours.examples[window] == question:
            part = _Part.of(ours, rows, window, context)
            best = max(there, key=part.shared_with)
            found[rows.starts[window] : rows.starts[window + 1]] = part.answered_by(best, outputs.values[best.tokens])
            window += 1
    return Ragged(found, rows.starts)


class _Part(NamedTuple):
    """The part of a context that a window holds.

    Attributes:
        tokens: those of the window, in its data set.
        begin: the first token of the context, counted in the window.
        first: int64 (tokens of the context,), their first characters that are no space, and ...
        last: ... their last ones.
    """

    tokens: slice
    begin: int
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, spans: Spans, rows: Dataset, window: int, context: str) -> _Part:
        start, end = rows.starts[window : window + 2].tolist()
        begin, behind = spans.context[window].tolist()
        first, after = spans.offsets[start + begin : start + behind].astype(np.int64).T
        letters = np.array([not letter.isspace() for letter in context], np.bool_)
        if len(first):
            following = np.flatnonzero(letters)
            first = following[np.minimum(np.searchsorted(following, first), len(following) - 1)]
            last = following[np.maximum(np.searchsorted(following, after) - 1, 0)]
            return cls(slice(start, end), begin, first, last)
        return cls(slice(start, end), begin, first, after)

    def shared_with(self, other: _Part) -> int:
        """Return how many characters lie in both, 0 or less where none does."""
        if not len(self.first) or not len(other.first):
            return 0
        return int(min(self.last[-1], other.last[-1]) - max(self.first[0], other.first[0])) + 1

    def answered_by(self, other: _Part, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits for the tokens of this window, float32 (tokens, 2), from those of another, likewise."""
        found = np.full((self.tokens.stop - self.tokens.start, 2), -np.inf)
        found[0] = logits[0]
        count = len(self.first)
        if count:
            inside = (other.first >= self.first[0]) & (other.last <= self.last[-1])
            starts = self.begin + np.maximum(np.searchsorted(self.first, other.first, side="right") - 1, 0)
            ends = self.begin + np.minimum(np.searchsorted(self.last, other.last), count - 1)
            theirs = logits[other.begin : other.begin + len(other.first)].astype(np.float64)
            for column, places in enumerate((starts, ends)):
                np.logaddexp.at(found[:, column], np.where(inside, places, 0), theirs[:, column])
        lowest = logits.min(axis=0)
        return np.where(np.isneginf(found), lowest, found).astype(np.float32)
