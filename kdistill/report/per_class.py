"""Each class by itself: how well a model finds it, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..metrics.classification import Classes, LabelScores, confusions
from ..metrics.entities import Tagged
from ..metrics.prediction import labelled_answers
from ..system.unicode import encodable
from ..tasks.base import Task, tsv_field


class PerClass(NamedTuple):
    """The classes as one model has them on some rows.

    Attributes:
        scores: of each class.
        confused: int64 (pairs, 3): a class, another that some of its rows were taken for, and how many, the most
            first; None where a row may have several labels.
    """

    scores: LabelScores
    confused: NDArray[np.int64] | None

    @classmethod
    def of(cls, task: Task, logits: Any, labels: Any) -> PerClass | None:
        """Score the classes on the labelled rows, or the tags on their tokens; None for a task without classes."""
        if not task.names_labels:
            return None
        predicted, true = task.predicted_and_true(*labelled_answers(logits, labels))
        if isinstance(true, Tagged):
            predicted, true = predicted.classes, true.classes
        pairs = confusions(predicted, true) if isinstance(true, Classes) else None
        return cls(LabelScores.of(predicted, true), pairs)


def class_rows(names: Mapping[int, str], ours: PerClass, teacher: PerClass | None = None) -> list[dict[str, Any]]:
    """Return a row for each class that some row has or is predicted to have, with JSON-ready values by column.

    Args:
        names: of the classes, by id.
        ours: the classes as the model has them.
        teacher: as its teacher has them, in further columns.
    """
    rows = []
    for label in np.flatnonzero(ours.scores.seen).tolist():
        row = {"label": names[label], "support": int(ours.scores.counts.true[label])}
        row |= {"predicted": int(ours.scores.counts.predicted[label]), **_scores(ours.scores, label)}
        row |= {} if teacher is None else _scores(teacher.scores, label, "teacher_")
        rows.append(row)
    return rows


def _scores(scores: LabelScores, label: int, prefix: str = "") -> dict[str, float]:
    columns = {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    return {f"{prefix}{name}": float(values[label]) for name, values in columns.items()}


def confused_rows(names: Mapping[int, str], ours: PerClass) -> list[dict[str, Any]]:
    """Return a row for each pair of classes that are confused, the most frequent pair first."""
    support = ours.scores.counts.true
    return [
        {"label": names[true], "predicted": names[predicted], "rows": rows, "share": rows / int(support[true])}
        for true, predicted, rows in ([] if ours.confused is None else ours.confused.tolist())
    ]


def worst(rows: Iterable[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return the classes of the lowest F1 among those that some row has; of equal ones the larger first."""
    given = [row for row in rows if row["support"]]
    return sorted(given, key=lambda row: (row["f1"], -row["support"]))[:most]


def tsv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows of equal columns as TSV, numbers with all digits; fields are quoted as `tsv_field` does."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "".join("\t".join(map(tsv_field, map(encodable, line))) + "\n" for line in lines)


def text_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows of equal columns for a terminal: columns aligned, shares with four digits."""
    lines = [list(rows[0]), *(list(map(_shown, row.values())) for row in rows)]
    right = [not isinstance(value, str) for value in rows[0].values()]
    widths = [max(len(line[place]) for line in lines) for place in range(len(right))]
    return "".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).split())
