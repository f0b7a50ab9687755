"""The list of tasks, and the choice of one for a model and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from numpy.typing import NDArray

from ..data.label_names import Where
from ..data.label_values import is_list, is_missing
from ..data.labels import LabelReader
from ..data.ragged import Ragged
from ..losses.problem_types import deduced_problem_type
from ..metrics.prediction import EvalPrediction, Labels
from ..models.configuration import Config
from ..models.head_names import SEQUENCE
from ..models.trained_with import TrainedWith
from ..system.names import did_you_mean
from . import embedding, multi_label, question_answering, regression, single_label, token
from .base import Task

_OF_PROBLEM_TYPES = (single_label.TASK, multi_label.TASK, regression.TASK)
_OF_HEADS = (token.TASK, question_answering.TASK, embedding.TASK)
TASKS: Mapping[str, Task] = {task.name: task for task in (*_OF_PROBLEM_TYPES, *_OF_HEADS)}
"""Every task, by its name: that of its problem type, or of a head that has one task."""
ALL_METRICS = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.metrics))
"""Names of the metrics of all tasks."""


def task_for(config: Config, labels: Labels | None = None) -> Task:
    """Return the task of a model with these labels, an array as in `Dataset`.

    The model's head decides first (`Config.head`), where it has one task. A sequence classifier has the task that
    its config states. Where it states none, one output is a regression, labels that are whole numbers or that nobody
    has given are single-label, and others are multi-label, as in `transformers`.

    A threshold that the config holds (`Config.trained_with`) is the task's, and so are the names of its labels.
    """
    name = _of_head(config) or config.problem_type or deduced_problem_type(config.num_labels, labels)
    return _task(name, config.trained_with, tuple(config.id2label.values()))


def _of_head(config: Config) -> str | None:
    """Return the task of a head that has one; None for a sequence classifier."""
    return config.head if config.head in (task.name for task in _OF_HEADS) else None


def _task(name: str, trained: TrainedWith, label_names: tuple[str, ...] = ()) -> Task:
    task, threshold = TASKS[name], trained.threshold
    if task.with_names is not None and label_names:
        task = task.with_names(label_names)
    if task.trained is not None:
        return task.trained(trained)
    return task if threshold is None or task.at_threshold is None else task.at_threshold(threshold)


TASK_OPTIONS: Mapping[str, str] = {
    **{task.pipeline_tag: SEQUENCE for task in _OF_PROBLEM_TYPES},
    **{task.pipeline_tag: task.name for task in _OF_HEADS},
}
"""What `--task` may be, as the hub calls tasks -> the head of a model that learns it."""


def task_option(head: str) -> str:
    """Return what `--task` calls the task of a model with this head."""
    return next(name for name, of in TASK_OPTIONS.items() if of == head)


def label_reader(config: Config) -> LabelReader:
    """Return the function that reads a column of labels for a model of this config.

    Where the config states no problem type, a model of one output reads numbers, and one of several outputs reads lists
    where any row has a list, else ids and names.
    """
    name = _of_head(config) or config.problem_type
    return TASKS[name].read_labels if name else _read_any_labels


def has_one_class(config: Config) -> bool:
    """Return whether a model is to choose among one class: it always gives it the probability 1, with a loss of 0."""
    return config.num_labels == 1 and (_of_head(config) or config.problem_type) == single_label.TASK.name


def refuse_one_class() -> NoReturn:
    """Raise ValueError for labels of a model for which `has_one_class` is true."""
    raise ValueError(
        f"num_labels is 1 with problem_type {single_label.TASK.name!r}, a choice without an alternative: expected "
        'num_labels=1 with problem_type="regression" to learn a number, or num_labels=2 to learn yes or no'
    )


def no_labels(
    labels: Sequence[Any], id2label: Mapping[int, str] | None, where: Where, class_names: Sequence[str]
) -> NDArray[Any]:
    """Read labels, of which none may be there, for a model for which `has_one_class` is true. A `LabelReader`."""
    if not all(map(is_missing, labels)):
        refuse_one_class()
    return single_label.TASK.read_labels(labels, id2label, where, class_names)


def _read_any_labels(
    labels: Sequence[Any], id2label: Mapping[int, str] | None, where: Where, class_names: Sequence[str]
) -> NDArray[Any]:
    several = multi_label.TASK if any(map(is_list, labels)) else single_label.TASK
    task = regression.TASK if id2label is not None and len(id2label) == 1 else several
    return task.read_labels(labels, id2label, where, class_names)


@dataclass(frozen=True)
class ChosenMetrics:
    """A `compute_metrics` of metrics by name, see `choose_metrics`."""

    names: tuple[str, ...]
    problem_type: str | None = None
    threshold: float | None = None
    label_names: tuple[str, ...] = ()
    task: Task | None = None

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the metrics; raise ValueError where the problem type, once known, does not have one."""
        logits, labels = prediction
        name = self.problem_type
        if self.task is not None and self.threshold is None and name in (None, self.task.name):
            return self.task.compute(self.names, logits, labels)
        if name is None:
            per_token = isinstance(logits, Ragged)
            name = token.TASK.name if per_token else deduced_problem_type(logits.shape[1], labels)
        task = _task(name, TrainedWith(threshold=self.threshold), self.label_names)
        return task.compute(self.names, logits, labels)

    def of_task(self, task: Task) -> ChosenMetrics:
        """Return these metrics with the labels of a task, and all else that it has where no threshold was given."""
        return replace(self, label_names=task.label_names, task=task)


def choose_metrics(*names: str, problem_type: str | None = None, threshold: float | None = None) -> ChosenMetrics:
    """Return a `compute_metrics` that measures the metrics of these names.

    Classification: accuracy; f1, precision and recall (of label 1, where there are two; else micro), each also as
    _macro (the mean over labels; a class that is neither given nor predicted is left out) and _micro; roc_auc (the mean
    over labels, each against the rest; a label that no row has, or every row, is left out, and the value is NaN when
    none remains); and matthews_correlation (single label). Several labels at once also have average_precision (of all
    rows and labels together), average_precision_macro (the mean over the labels that some row has) and top_1 (the share
    of rows whose most probable label is theirs). Regression: mse, pearson, spearmanr. Token classification: accuracy
    (of the tags), and f1, precision and recall of the entities, also as _macro (the mean over their types), as seqeval
    has them (extra `[seqeval]`). Question answering: exact_match and f1, in percent, each also as HasAns_ and NoAns_
    (HasAns_exact, ...) of questions with and without an answer, and best_f1 at any threshold, best_f1_thresh.
    Embeddings: mse and cosine beside the teacher's; spearman_cosine and pearson_cosine of pairs with a score.

    Args:
        names: one metric or more.
        problem_type: that of the model, or the name of its task; None deduces it from each prediction: one output is a
            regression, labels that are floating-point numbers are several at once, outputs of tokens are tags.
        threshold: the probability above which one of several labels is predicted (default: that of the evaluation,
            and 0.5 where none calls the function).

    Raises:
        ValueError: a name is none of these, or the problem type does not have it; without `problem_type`, the returned
            function raises the latter.
    """
    if unknown := [name for name in names if name not in ALL_METRICS]:
        raise ValueError(
            f"there is no metric {unknown[0]!r}; expected names among {', '.join(ALL_METRICS)}"
            f"{did_you_mean(unknown[0], ALL_METRICS)}"
        )
    if problem_type is not None:
        if problem_type not in TASKS:
            raise ValueError(f"problem_type is {problem_type!r}; expected one of {', '.join(TASKS)}")
        TASKS[problem_type].check_metrics(names)
    return ChosenMetrics(names, problem_type, threshold)
