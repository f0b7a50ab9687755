"""Each token has exactly one of several tags: entities, slots, parts of speech."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.labels import NO_LABEL, UNTAGGED
from ..data.ragged import Ragged, units
from ..data.tags import tag_ids
from ..losses.kinds import LossParts
from ..losses.labels import plain_label_loss
from ..losses.mixing import CLASSES
from ..losses.problem_types import SINGLE_LABEL
from ..losses.teacher import distillation_loss_parts
from ..losses.weights import LabelWeights
from ..metrics import entities
from ..metrics.classification import Classes
from ..metrics.entities import Tagged
from ..metrics.prediction import Labels, Logits
from ..models.head_names import TOKEN
from ..models.model import Model
from . import single_label
from .base import Task, in_words, of_decisions, usage_of_pipeline

_SCORES = ("f1", "precision", "recall")


def _predicted_and_true(logits: Ragged, labels: Ragged, label_names: tuple[str, ...] = ()) -> tuple[Tagged, Tagged]:
    count = logits.values.shape[1]
    names = label_names or tuple(map(str, range(count)))
    predicted, true = Classes(logits.values.argmax(axis=1), count), Classes(labels.values, count)
    return Tagged(predicted, labels.starts, names), Tagged(true, labels.starts, names)


def _taught(labels: Labels) -> NDArray[np.bool_]:
    return np.asarray(labels != NO_LABEL)


def _label_loss(
    logits: Any, labels: Any, label_smoothing: float = 0.0, label_weights: LabelWeights | None = None
) -> tuple[float, Logits]:
    """Return the mean loss of the tokens that have a label, and its gradient for all tokens; 0 without any."""
    outputs, given = units(logits), units(labels)
    labelled = given >= 0
    gradient = np.zeros_like(outputs)
    if not labelled.any():
        return 0.0, gradient
    loss, of_labelled = plain_label_loss(
        outputs[labelled], given[labelled], label_smoothing, label_weights, problem_type=SINGLE_LABEL
    )
    gradient[labelled] = of_labelled
    return loss, gradient


def _teacher_loss(
    logits: Any,
    teacher_logits: Any,
    labels: Labels | None,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
    label_weights: LabelWeights | None = None,
) -> LossParts:
    """Return the mean loss of the tokens that take part, and its gradient for all tokens; 0 without any."""
    outputs, taught = units(logits), units(teacher_logits)
    given = np.full(len(outputs), UNTAGGED) if labels is None else units(labels)
    part = _taught(given)
    gradient = np.zeros_like(outputs)
    if not part.any():
        return LossParts(0.0, gradient, 0.0, 0.0)
    known = np.where(given[part] == UNTAGGED, NO_LABEL, given[part])
    found = distillation_loss_parts(
        outputs[part], taught[part], known, alpha, temperature, label_smoothing, SINGLE_LABEL, label_weights
    )
    gradient[part] = found.dlogits
    return found._replace(dlogits=gradient)


def _constant(labels: Ragged, num_labels: int) -> Logits:
    assert single_label.TASK.constant is not None
    return single_label.TASK.constant(labels.values, num_labels)


@cache
def _with_names(label_names: tuple[str, ...]) -> Task:
    """Return the task for these tags: its metrics are those of entities where the tags mark some and seqeval is there.

    Without seqeval, an evaluation measures the accuracy alone.
    """

    def predicted_and_true(logits: Ragged, labels: Ragged) -> tuple[Tagged, Tagged]:
        return _predicted_and_true(logits, labels, label_names)

    measured = entities.have_entities(label_names) and entities.seqeval_is_there()
    return replace(
        TASK,
        label_names=label_names,
        predicted_and_true=predicted_and_true,
        default_metrics=("accuracy", *_SCORES) if measured else ("accuracy",),
        best_metric="f1" if measured else "accuracy",
        card_metric="f1" if measured else "accuracy",
    )


def _usage(tag: str, name: str, model: Model) -> list[str]:
    joined = entities.have_entities([*model.config.id2label.values()])
    shown = usage_of_pipeline("tag", 'tag("Anna lives in Paris.")', ', aggregation_strategy="simple"' if joined else "")
    return shown(tag, name, model)


TASK = Task(
    name=TOKEN,
    pipeline_tag="token-classification",
    description=lambda names: f"It gives each word of a text one of the tags {in_words(names)}.",
    read_labels=tag_ids,
    names_labels=True,
    one_label=True,
    label_loss=_label_loss,
    teacher_loss=_teacher_loss,
    predicted_and_true=_predicted_and_true,
    metrics=of_decisions(
        accuracy=entities.tag_accuracy,
        f1=entities.entity_f1,
        precision=entities.entity_precision,
        recall=entities.entity_recall,
        f1_macro=entities.entity_f1_macro,
        precision_macro=entities.entity_precision_macro,
        recall_macro=entities.entity_recall_macro,
    ),
    default_metrics=("accuracy",),
    best_metric="f1",
    card_metric="f1",
    right_rows=entities.right_examples,
    right_when="all of its words have the right tag",
    usage=_usage,
    constant=_constant,
    score_function="softmax",
    answers=single_label.TASK.answers,
    divergence=single_label.TASK.divergence,
    mixing=CLASSES,
    per_token=True,
    taught=_taught,
    with_names=_with_names,
)
