"""What a teacher answers against the labels of the rows: better than no teacher, and for the same labels?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.label_values import as_integer
from ..data.ragged import Ragged, units
from ..data.spans import SpanTargets
from ..losses.spans import blind_span_loss
from ..metrics.assignment import best_assignment
from ..metrics.classification import accuracy, majority_share
from ..metrics.prediction import Labels, Logits, labelled_answers
from ..models.configuration import Config
from ..system.findings import Finding
from ..system.names import listing
from ..tasks.base import Task
from ..tasks.registry import task_for

CHECK = "teacher"
# Rows won by other names must be so many times the deviation that chance would give them, and this share of all.
_DEVIATIONS, _SHARE = 4, 0.01
_LISTED = 10
# A tagger that reads must find more entities than these, for there is luck in what one finds that does not.
_LEAST_ENTITY_F1, _TIMES_CHANCE = 0.05, 2
_NOTHING_TO_LEARN = "the student has nothing to learn from it"
_CHECK_IT = "check with `kdistill evaluate` that it was fine-tuned for this task"


def answers_against_labels(logits: Any, labels: Any, config: Config, *, numbered: bool = False) -> list[Finding]:
    """Return what speaks against learning from a teacher: labels in another order, or answers that are worth nothing.

    Nothing are they worth where they are no better than answers that do not look at the text: by accuracy, by the F1 of
    entities where tags mark such and seqeval is there, by the loss and for questions also by F1.

    Args:
        logits: the teacher's, float32 (rows, num_labels), or a `Ragged` of float32 (tokens, num_labels).
        labels: of the same rows, see `Dataset.targets`; rows and tokens without one do not count.
        config: states the task and the names of the labels, and how the teacher answers questions.
        numbered: whether the data gives its labels by number.
    """
    outputs, targets = labelled_answers(logits, labels)
    if not len(targets):
        return []
    logits, labels = units(outputs), units(targets)
    task = task_for(config, labels)
    if isinstance(targets, SpanTargets):
        return _against_unread_contexts(outputs, targets, task)
    if task.constant is None:
        return []
    if not task.one_label:
        return _against_a_constant(logits, labels, task)
    measured, majority = accuracy(logits, labels), majority_share(labels)
    order = label_order(logits, labels)
    if order is not None:
        reached = float((order[logits.argmax(axis=1)] == labels).mean())
        text = f"the teacher's accuracy is {measured:.4f}, and {reached:.4f} with its labels in another order"
        remedy = _names_in_order(order, config.id2label, numbered)
        unsure = np.flatnonzero(_confusion(logits.argmax(axis=1), labels, len(order))[order, np.arange(len(order))] < 2)
        if len(unsure):
            remedy += f"; check the names of outputs {listing(map(str, unsure), _LISTED)}, which few rows show"
        return [Finding(CHECK, "error", text, remedy)]
    if task.per_token and task.best_metric == "f1":
        anywhere = Ragged(np.random.default_rng(0).permutation(outputs.values), outputs.starts)
        f1, chance = (task.compute(["f1"], of, targets)["f1"] for of in (outputs, anywhere))
        useless = f1 <= max(_LEAST_ENTITY_F1, _TIMES_CHANCE * chance)
        text = (
            f"the teacher's F1 of entities is {f1:.4f}, and {chance:.4f} with its tags in random places (its accuracy "
            f"is {measured:.4f}, and always answering the most frequent label gives {majority:.4f})"
        )
    else:
        useless = measured <= majority
        text = (
            f"the teacher's accuracy is {measured:.4f}, no better than always answering the most frequent label "
            f"({majority:.4f})"
        )
    return [Finding(CHECK, "error", f"{text}: {_NOTHING_TO_LEARN}", _CHECK_IT)] if useless else []


def _against_unread_contexts(outputs: Ragged, targets: SpanTargets, task: Task) -> list[Finding]:
    """Compare the loss with that of answers that lie anywhere, and F1 with that of never giving one."""
    measured, _ = task.label_loss(outputs, targets)
    without = blind_span_loss(targets.starts, targets.labels)
    f1, never = task.compute(["f1"], outputs, targets)["f1"], 100 * targets.spans.questions.answerless / len(targets)
    if measured >= without:
        text = (
            f"the teacher's loss against the answers is {measured:.4g}, no better than that of a guess that does not "
            f"read the context ({without:.4g})"
        )
    elif never and f1 <= never:
        text = f"the teacher's F1 is {f1:.2f}, no better than never giving an answer ({never:.2f})"
    else:
        return []
    return [Finding(CHECK, "error", f"{text}: {_NOTHING_TO_LEARN}", _CHECK_IT)]


def _against_a_constant(logits: Logits, labels: Labels, task: Task) -> list[Finding]:
    """Compare the teacher's loss with that of the best answer that is the same for every row."""
    means = labels.astype(np.float64).mean(axis=0)
    if task.names_labels:
        shares = np.clip(means, 1e-6, 1 - 1e-6)
        constant, always = np.log(shares / (1 - shares)), "how frequent each label is"
    else:
        constant, always = means, "the mean of the labels"
    measured, _ = task.label_loss(logits, labels)
    without, _ = task.label_loss(np.broadcast_to(constant, logits.shape).astype(np.float32), labels)
    if measured < without:
        return []
    text = (
        f"the teacher's loss against the labels is {measured:.4g}, no better than always answering {always} "
        f"({without:.4g}): {_NOTHING_TO_LEARN}"
    )
    remedy = _CHECK_IT if task.names_labels else f"{_CHECK_IT}, on the same scale"
    return [Finding(CHECK, "error", text, remedy)]


def label_order(logits: Logits, labels: Labels) -> NDArray[np.int64] | None:
    """Return the label of the data that each output of a teacher stands for, where this is not its own number.

    It is the best assignment on the confusion matrix, which can make any teacher look better on the rows that it was
    found on. So it must also hold when each half of the rows is judged by the order that the other half gives, and
    beat the teacher's own order there by more than chance (McNemar 1947, doi:10.1007/BF02295996), and the most frequent
    label. Outputs that none of the rows got keep what is left over: take some ten rows for each label.

    Args:
        logits: float32 (rows, num_labels).
        labels: int64 (rows,), all there.

    Returns:
        int64 (num_labels,), or None where the order is right.
    """
    count, answers = logits.shape[1], logits.argmax(axis=1)
    confusion = _confusion(answers, labels, count)
    if (confusion.diagonal() == confusion.max(axis=0)).all():  # no order can be better
        return None
    own = answers == labels
    other = np.zeros(len(labels), np.bool_)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        judge = slice(1 - (half.start or 0), None, 2)
        order = best_assignment(_confusion(answers[judge], labels[judge], count))
        other[half] = order[answers[half]] == labels[half]
    won, lost = int((other & ~own).sum()), int((own & ~other).sum())
    by_chance = won - lost <= max(_DEVIATIONS * math.sqrt(won + lost), _SHARE * len(labels))
    if by_chance or other.mean() <= majority_share(labels):
        return None
    order = best_assignment(confusion)
    return order if (order != np.arange(count)).any() else None


def _confusion(answers: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many rows of each label (row) got each answer (column)."""
    return np.bincount(labels * count + answers, minlength=count * count).reshape(count, count)


def _names_in_order(order: NDArray[np.int64], id2label: Mapping[int, str], numbered: bool) -> str:
    """Return the remedy for labels in another order: the names of the teacher's outputs, for the data to match."""
    by_number = numbered and not all(as_integer(name) is not None for name in id2label.values())
    names = [str(label) if by_number else id2label[int(label)] for label in order]
    if any("," in name for name in names):  # they separate the names of the option
        return f"correct id2label in its config.json: {', '.join(_moved(order, id2label))}"
    option = f"--label-names={shlex.quote(','.join(names))}"
    return f"name its outputs 0, 1, ... as the rows show them: {option} (in Python id2label= of from_pretrained)"


def _moved(order: NDArray[np.int64], id2label: Mapping[int, str]) -> Iterator[str]:
    """Yield which name each output that has another's should have."""
    for output, label in enumerate(order):
        if output != label:
            yield f"{output} is {id2label[int(label)]!r}"
