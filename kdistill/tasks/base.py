"""`Task`: all that differs between what models learn, as functions and facts in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from numpy.typing import NDArray

from ..data.labels import LabelReader, labelled_rows
from ..losses.kinds import LossParts
from ..metrics.prediction import Labels, Logits
from ..system.names import listing

Metric = Callable[[Any, Any], float]
"""(predicted, true) -> a number; both as `Task.predicted_and_true` makes them."""

_MOST_IN_WORDS = 50


class LabelLoss(Protocol):
    """The mean loss of a batch against its labels and the gradient by the logits, see `losses.labels.label_loss`."""

    def __call__(self, logits: Logits, labels: Labels, *, label_smoothing: float = ...) -> tuple[float, Logits]: ...


class TeacherLoss(Protocol):
    """The loss of a batch against labels and teacher, see `losses.teacher.distillation_loss_parts`."""

    def __call__(
        self,
        logits: Logits,
        teacher_logits: Logits,
        labels: Labels | None,
        *,
        alpha: float,
        temperature: float,
        label_smoothing: float = ...,
    ) -> LossParts: ...


@dataclass(frozen=True)
class Task:
    """A kind of answer that a model learns to give. One is chosen for a model and its data, see `registry.task_for`.

    Attributes:
        name: the `problem_type` of the models that learn it, which config.json states or `registry.task_for` deduces.
        pipeline_tag: what the hub calls such a model, and `pipeline` its task.
        description: (names of the labels) -> the sentence of the model card that begins with "It".
        read_labels: makes an array of a column of labels.
        names_labels: whether labels are named, so that rows can say how many there are; else the outputs are numbers.
        one_label: whether each row has exactly one label. Reports then measure calibration and agreement with the
            teacher.
        label_loss: the loss against labels.
        teacher_loss: the loss against labels and a teacher.
        predicted_and_true: (logits, labels of labelled rows) -> what metrics and `right_rows` compare, two of a kind.
        metrics: all metrics, by name.
        default_metrics: names of the metrics that every evaluation measures, beside the loss and n.
        best_metric: the metric that chooses the best weights where the user names none, see
            `train.arguments.greater_is_better`.
        card_metric: the metric that the model card's metadata names.
        right_rows: (predicted, true) -> which rows are right, bool (n,); None where nothing is right or wrong.
        constant: (labels of labelled rows, number of labels) -> the logits, float32 (labels,), of the best answer that
            does not look at the text: the label or set of labels that most rows have, or the mean. A model must beat
            it.
        score_function: how a pipeline makes scores of the logits: "softmax", "sigmoid" or "none".
        write_predictions: (file, logits, names of the labels) writes what `kdistill predict` answers.
        at_threshold: (probability) -> the task that predicts a label above it; None where there is nothing to exceed.
    """

    name: str
    pipeline_tag: str
    description: Callable[[Sequence[str]], str]
    read_labels: LabelReader
    names_labels: bool
    one_label: bool
    label_loss: LabelLoss
    teacher_loss: TeacherLoss
    predicted_and_true: Callable[[Logits, Labels], tuple[Any, Any]]
    metrics: Mapping[str, Metric]
    default_metrics: tuple[str, ...]
    best_metric: str
    card_metric: str
    right_rows: Callable[[Any, Any], NDArray[Any]] | None
    constant: Callable[[Labels, int], Logits]
    score_function: str
    write_predictions: Callable[[TextIO, Logits, Sequence[str]], None]
    at_threshold: Callable[[float], Task] | None = None

    def evaluate(self, logits: Logits, labels: Labels) -> dict[str, float]:
        """Return the default metrics, the loss against the labels and n over the labelled rows; {} without any."""
        labelled = labelled_rows(labels)
        if not labelled.any():
            return {}
        logits, labels = logits[labelled], labels[labelled]
        metrics = self.compute(self.default_metrics, logits, labels)
        loss, _ = self.label_loss(logits, labels)
        return {**metrics, "loss": loss, "n": len(logits)}

    def compute(self, names: Iterable[str], logits: Logits, labels: Labels) -> dict[str, float]:
        """Return the metrics of these names; every row has a label. Raises ValueError for a name that is none."""
        self.check_metrics(names)
        predicted, true = self.predicted_and_true(logits, labels)
        return {name: self.metrics[name](predicted, true) for name in names}

    def check_metrics(self, names: Iterable[str]) -> None:
        """Raise ValueError for the first name that is not one of the task's metrics."""
        for name in names:
            if name not in self.metrics:
                known = ", ".join(self.metrics)
                raise ValueError(f"the metric {name!r} is not one of a model for {self.name}; expected one of {known}")

    def right(self, logits: Logits, labels: Labels) -> NDArray[Any] | None:
        """Return which labelled rows the model has right, bool (labelled rows,); None where nothing is right."""
        if self.right_rows is None:
            return None
        labelled = labelled_rows(labels)
        return self.right_rows(*self.predicted_and_true(logits[labelled], labels[labelled]))


def write_tsv(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a header and a line for each row, which begins with the row's index; all separated by tabs.

    A field with a tab or a line end, or with a quote at its beginning, is quoted as in a CSV (RFC 4180).
    """
    file.write("\t".join(map(tsv_field, ["index", *columns])) + "\n")
    for index, values in enumerate(rows):
        file.write("\t".join(map(tsv_field, [str(index), *map(str, values)])) + "\n")


def tsv_field(text: str, separators: str = "\t\r\n") -> str:
    """Return text as a field of a line, in quotes when it holds a separator or begins with a quote."""
    if text.startswith('"') or any(separator in text for separator in separators):
        return '"' + text.replace('"', '""') + '"'
    return text


def in_words(names: Sequence[str]) -> str:
    """Return names of labels as a sentence lists them, in one line: all of them, or the first of many."""
    return listing((" ".join(name.split()) for name in names), _MOST_IN_WORDS)
