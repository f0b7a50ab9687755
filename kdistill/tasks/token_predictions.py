"""Predictions of words, as `kdistill predict` writes them: JSON lines with the tags and the spans that they mark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.ragged import Ragged
from ..data.windows import Windows
from ..data.words import WordRows
from ..metrics.classification import softmax
from ..metrics.entities import ENTITY_TAG

_OPENS, _CLOSES = "BSU", "ESLU"


class Span(NamedTuple):
    """An entity: its type, its first word and the one behind its last."""

    label: str
    first: int
    end: int


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Return the entities that the tags of a row mark, as the script of CoNLL-2000 and seqeval read them.

    An entity begins at `B-`, at a tag of another type than the one before it, and behind `E-` and `S-`.
    """
    spans: list[Span] = []
    label, first = "", 0
    for place, tag in enumerate([*tags, "O"]):
        match = ENTITY_TAG.fullmatch(tag)
        prefix, kind = (match[1], match[2]) if match else ("", "")
        if label and (kind != label or prefix in _OPENS):
            spans.append(Span(label, first, place))
            label = ""
        if kind and not label:
            label, first = kind, place
        if label and prefix in _CLOSES:
            spans.append(Span(label, first, place + 1))
            label = ""
    return spans


@dataclass(frozen=True)
class TokenPredictions:
    """The predictions of rows of words.

    Attributes:
        names: of the tags.
        logits: of the tokens of each row of the data set, `Ragged` of float32 (tokens, tags).
        rows: the words.
        windows: which word each token answers for.
    """

    names: Sequence[str]
    logits: Ragged
    rows: WordRows
    windows: Windows

    def as_pipeline(self) -> list[Any]:
        """Return the spans of each row."""
        return [record["entities"] for record in self.records()]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield what is written for each row.

        A span has its label, its text, the mean probability of its tags as score, and where it starts and ends: in
        characters of a text, or in tokens. A word that the tokenizer makes nothing of has the tag `O`, or the first.
        """
        starts = self.windows.starts(self.logits.starts)
        outside = self.names.index("O") if "O" in self.names else 0
        for row, words in enumerate(self.rows.words):
            part = slice(int(starts[row]), int(starts[row + 1]))
            ids, scores = self._words(part, len(words), outside)
            tags = [self.names[index] for index in ids]
            text, offsets = self._text(row, words)
            spans = [self._span(span, scores, text, offsets) for span in spans_of(tags)]
            shown = {"tokens": list(words)} if self.rows.texts is None else {"text": self.rows.texts[row]}
            yield {"index": row, **shown, "tags": tags, "entities": spans}

    def _words(self, part: slice, count: int, outside: int) -> tuple[list[int], NDArray[np.float64]]:
        """Return the tag of each word of a row, and its probability."""
        words, ids, scores = self.windows.words[part], np.full(count, outside), np.ones(count)
        answers = words >= 0
        if answers.any():
            found = softmax(self.logits.values[part][answers])
            ids[words[answers]], scores[words[answers]] = found.argmax(axis=1), found.max(axis=1)
        return ids.tolist(), scores

    def _text(self, row: int, words: Sequence[str]) -> tuple[str, Sequence[tuple[int, int]]]:
        """Return the text of a row and where its words are in it; of words alone, with spaces between them."""
        if self.rows.texts is not None and self.rows.offsets is not None:
            return self.rows.texts[row], self.rows.offsets[row]
        offsets, end = [], 0
        for word in words:
            offsets.append((end, end + len(word)))
            end += len(word) + 1
        return " ".join(words), offsets

    def _span(
        self, span: Span, scores: NDArray[np.float64], text: str, offsets: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        start, end = offsets[span.first][0], offsets[span.end - 1][1]
        place = (span.first, span.end) if self.rows.texts is None else (start, end)
        score = float(scores[span.first : span.end].mean())
        return {"start": place[0], "end": place[1], "label": span.label, "score": score, "text": text[start:end]}
