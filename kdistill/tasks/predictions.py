"""Predictions of rows, as `kdistill predict` writes them: TSV, JSON lines, or like a pipeline of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..metrics.prediction import Logits
from .base import Task, tsv_field, write_tsv

DIGITS = 6
"""Significant digits of the scores in a TSV."""
ALL_DIGITS = 17
"""As many give a float64 whole."""


@dataclass(frozen=True)
class LabelPredictions:
    """The predictions of rows.

    Attributes:
        names: of the labels, or of the outputs of a regression.
        scores: float64 (rows, labels), probabilities, or the numbers of a regression.
        chosen: bool (rows, labels), which labels are predicted; None for a regression.
        several: whether a row may have several labels.
        texts: columns of text to write beside the predictions, by name.
        top_k: how many labels to write with their scores, the best first; None: the scores of all, in their order.
    """

    names: Sequence[str]
    scores: NDArray[np.float64]
    chosen: NDArray[np.bool_] | None
    several: bool
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    top_k: int | None = None

    def write_tsv(self, file: TextIO, digits: int = DIGITS) -> None:
        """Write a header and a line for each row: index, prediction, scores, texts.

        A row's labels, where it may have several, stand in one field with commas between them; a name with a comma is
        quoted there. With `top_k` there are columns label_1, score_1, label_2, ... in place of a score for each label.

        Args:
            file: receives the lines.
            digits: significant digits of numbers. A probability below 1 is not rounded to 1.
        """

        def shown(value: Any) -> str:
            if not isinstance(value, float):
                return str(value)
            text = repr(value) if digits >= ALL_DIGITS else f"{value:.{digits}g}"
            return f"0.{'9' * digits}" if self.chosen is not None and text == "1" and value < 1 else text

        write_tsv(file, [*self._columns(), *self.texts], (map(shown, row) for row in self._rows()))

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield what JSON lines hold: index, prediction (a name, a list of them, a number or null), scores, texts."""
        return map(self._record, range(len(self.scores)))

    def as_pipeline(self) -> list[Any]:
        """Return what `transformers.pipeline` returns: label and score of each row, or a list of them.

        A list has the `top_k` best; without it, where a row may have several labels, those that are predicted, the best
        first. The label is None where none is predicted.
        """
        best = np.argsort(-self.scores, axis=1, kind="stable").tolist()
        scores = self.scores.tolist()
        return [self._labels_with_scores(row, best[row], scores[row]) for row in range(len(scores))]

    def _columns(self) -> list[str]:
        if self.chosen is None:
            return ["prediction"] if len(self.names) == 1 else [f"prediction_{name}" for name in self.names]
        if self.top_k is None:
            return ["prediction", *(f"score_{name}" for name in self.names)]
        places = range(1, min(self.top_k, len(self.names)) + 1)
        return ["prediction", *(f"{what}_{place}" for place in places for what in ("label", "score"))]

    def _rows(self) -> Iterator[list[Any]]:
        listed = [tsv_field(name, ",") for name in self.names] if self.several else self.names
        for row, scores in enumerate(self.scores):
            texts = [column[row] for column in self.texts.values()]
            if self.chosen is None:
                yield [*scores.tolist(), *texts]
                continue
            prediction = ",".join(listed[index] for index in np.flatnonzero(self.chosen[row]).tolist())
            best = [] if self.top_k is None else self._best(row, self.top_k)
            ranked = [value for index in best for value in (self.names[index], float(scores[index]))]
            yield [prediction, *(scores.tolist() if self.top_k is None else ranked), *texts]

    def _best(self, row: int, count: int) -> list[int]:
        return [int(index) for index in np.argsort(-self.scores[row], kind="stable")[:count]]

    def _labels_with_scores(self, row: int, best: list[int], scores: list[float]) -> Any:
        """Return what a pipeline returns for a row, given its scores and which of them are the best, in their order."""
        if self.top_k is not None and self.chosen is not None:
            return [{"label": self.names[index], "score": scores[index]} for index in best[: self.top_k]]
        if self.chosen is None and len(self.names) == 1:
            return {"label": self.names[0], "score": scores[0]}
        if self.several or self.chosen is None:
            order = range(len(self.names)) if self.chosen is None else [i for i in best if self.chosen[row, i]]
            return [{"label": self.names[index], "score": scores[index]} for index in order]
        return {"label": self.names[best[0]] if self.chosen[row].any() else None, "score": scores[best[0]]}

    def _record(self, row: int) -> dict[str, Any]:
        texts = {name: column[row] for name, column in self.texts.items()}
        scores = dict(zip(self.names, self.scores[row].tolist(), strict=True))
        if self.chosen is None:
            only = len(scores) == 1
            return {"index": row, "prediction": self.scores[row, 0].item() if only else scores, **texts}
        labels = [self.names[index] for index in np.flatnonzero(self.chosen[row]).tolist()]
        prediction = labels if self.several else next(iter(labels), None)
        shown = (
            {"scores": scores}
            if self.top_k is None
            else {"top": self._labels_with_scores(row, self._best(row, self.top_k), self.scores[row].tolist())}
        )
        return {"index": row, "prediction": prediction, **shown, **texts}


def predictions_of(
    task: Task,
    logits: Logits,
    names: Sequence[str],
    *,
    threshold: float | None = None,
    top_k: int | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
) -> LabelPredictions:
    """Return what a model of this task predicts.

    Args:
        task: the model's.
        logits: float32 (rows, labels).
        names: of the labels.
        threshold: the probability that a label must exceed. Of one label, a row has no prediction where the best does
            not. None: as the task decides.
        top_k: as in `LabelPredictions`.
        texts: likewise.

    Raises:
        ValueError: the task has no probabilities, and `threshold` or `top_k` is given.
    """
    for option, value in (("--threshold", threshold), ("--top-k", top_k)):
        if value is not None and not task.names_labels:
            raise ValueError(f"{option} is {value}, and the model gives numbers, which have no labels; leave it out")
    if threshold is not None and task.at_threshold is not None:
        task = task.at_threshold(threshold)
    scores, chosen = task.answers(logits)
    if threshold is not None and chosen is not None:
        chosen = chosen & (scores > threshold)
    several = chosen is not None and not task.one_label
    return LabelPredictions(names, scores, chosen, several, texts or {}, top_k)
