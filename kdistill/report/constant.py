"""The best answer that does not look at the text, as a model must beat it: the most frequent label, or the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.ragged import Ragged, units
from ..metrics.prediction import labelled_answers
from .report import Subject

_MOST_LABELS = 3


def constant_answer(subject: Subject, names: Iterable[str]) -> dict[str, Any]:
    """Return the best constant `answer` on the evaluation rows, and those of these metrics that are defined for it.

    Empty where there is no such answer, or nothing to measure it on.
    """
    task = subject.task
    if subject.eval is None or not subject.eval.labelled or task.constant is None:
        return {}
    targets = subject.eval.targets
    _, labels = labelled_answers(targets, targets)
    constant = task.constant(labels, subject.model.config.num_labels)
    known = [name for name in names if name in task.metrics]
    always = np.tile(constant, (len(units(labels)), 1))
    scores = task.compute(known, Ragged(always, labels.starts) if isinstance(labels, Ragged) else always, labels)
    finite = {name: value for name, value in scores.items() if math.isfinite(value)}
    return {"answer": _answer(subject, constant), **finite}


def _answer(subject: Subject, constant: Any) -> str:
    task, names = subject.task, subject.model.config.id2label
    if not task.names_labels:
        return ", ".join(f"{value:.3g}" for value in constant[:_MOST_LABELS]) + " ..." * (len(constant) > _MOST_LABELS)
    if task.one_label:
        return names[int(constant.argmax())]
    chosen = [names[int(index)] for index in np.flatnonzero(constant > 0)]
    return ", ".join(chosen[:_MOST_LABELS]) + " ..." * (len(chosen) > _MOST_LABELS) or "none"
