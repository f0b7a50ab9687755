"""`Task`: all that differs between what models learn, as functions and facts in one place.

A model gives outputs for the rows of a data set, and a task is asked what they mean. Outputs are float32 (rows, K), or
of a head that answers for each token (`Task.per_token`) a `data.ragged.Ragged` of float32 (tokens, K). Labels come in
two forms: those of a batch, as `Dataset.batch` returns them, go into a loss, and those of all examples, as
`Dataset.targets` returns them, into metrics.

- Token classification has a label for each token, too (`Task.labels_per_token`), which `Dataset.per_token` states.
- Question answering has outputs for each token (K = 2, a start and an end), and a label for each row: `Dataset.labels`
  is int64 (rows, 2). Its losses are given the batch's outputs as a `Ragged`, whose `starts` bound the spans. Its rows
  are windows of examples: `Dataset.windows` are `data.spans.Spans`, and `Dataset.targets` `SpanTargets`, whose metrics
  join them.
- Masked language modelling makes its labels: words that are hidden (`data.masking`). Its logits over the vocabulary
  are never stored: the outputs of an evaluation are scores of the hidden words (`Task.outputs`), and a training step
  has loss and gradient in one (`models.heads.MaskedLanguageModel.masked_loss`).
- An encoder with a pooling has an embedding of each row as outputs (K = its width), and no labels: rows are
  `data.sentences.Sentences`, and `Dataset.targets` `SentenceTargets`, which hold the teacher's embeddings and scores of
  pairs. It learns from a teacher alone (`Task.with_loss`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.labels import LabelReader
from ..data.ragged import units
from ..losses.kinds import LossParts
from ..losses.mixing import Mixing
from ..losses.weights import LabelWeights
from ..metrics.prediction import EvalPrediction, Labels, Logits, labelled_answers
from ..metrics.regression import pearson
from ..models.model import Model
from ..models.trained_with import TrainedWith
from ..system.files import json_text
from ..system.names import listing


class Answers(NamedTuple):
    """A model's answers to labelled rows, of which a metric takes what it needs.

    Attributes:
        logits: float32 (n, num_labels), or a `Ragged` of float32 (tokens, num_labels).
        predicted: what the model decides, and ...
        true: ... the labels, both as `Task.predicted_and_true` makes them.
    """

    logits: Any
    predicted: Any
    true: Any


Metric = Callable[[Answers], float | None]
"""A figure of answers; None where it is not defined for them, which leaves it out."""


def of_decisions(**metrics: Callable[[Any, Any], float]) -> dict[str, Metric]:
    """Return the metrics of functions (predicted, true) -> a number, by name."""
    return {name: partial(_of_decisions, metric) for name, metric in metrics.items()}


def of_scores(**metrics: Callable[[Logits, Any], float]) -> dict[str, Metric]:
    """Return the metrics of functions (logits, true) -> a number, by name."""
    return {name: partial(_of_scores, metric) for name, metric in metrics.items()}


def _of_decisions(metric: Callable[[Any, Any], float], answers: Answers) -> float:
    return metric(answers.predicted, answers.true)


def _of_scores(metric: Callable[[Logits, Any], float], answers: Answers) -> float:
    return metric(answers.logits, answers.true)


def usage_of_pipeline(variable: str, call: str, arguments: str = "") -> Callable[[str, str, Model], list[str]]:
    """Return `Task.usage` of a task whose pipeline is called: `call`, after it was made as `variable`."""

    def usage(tag: str, name: str, model: Model) -> list[str]:
        return [_loaded_by_transformers(tag), "", f'{variable} = kd.pipeline("{tag}", model={name}{arguments})', call]

    return usage


def usage_of_classifier(tag: str, name: str, model: Model) -> list[str]:
    """Return lines that get logits of texts, or of pairs where the model was trained on pairs."""
    pairs = model.config.trained_with.text_pair_column is not None
    texts = '["a text"], ["the second of a pair"]' if pairs else '["a text", "another text"]'
    return [
        _loaded_by_transformers(tag),
        "",
        f"tokenizer = kd.AutoTokenizer.from_pretrained({name})",
        f"model = kd.{type(model).__name__}.from_pretrained({name})",
        f"logits = model(**tokenizer({texts})).logits  # ({1 if pairs else 2}, {model.config.num_labels})",
    ]


def _loaded_by_transformers(tag: str) -> str:
    return f'import kdistill as kd  # transformers loads it too: pipeline("{tag}", model=...)'


_MOST_IN_WORDS = 50


class LabelLoss(Protocol):
    """The mean loss of a batch against its labels and the gradient by the logits, see `losses.labels.label_loss`."""

    def __call__(
        self, logits: Any, labels: Any, *, label_smoothing: float = ..., label_weights: LabelWeights | None = ...
    ) -> tuple[float, Logits]: ...


class TeacherLoss(Protocol):
    """The loss of a batch against labels and teacher, see `losses.teacher.distillation_loss_parts`."""

    def __call__(
        self,
        logits: Any,
        teacher_logits: Any,
        labels: Labels | None,
        *,
        alpha: float,
        temperature: float,
        label_smoothing: float = ...,
        label_weights: LabelWeights | None = ...,
    ) -> LossParts: ...


@dataclass(frozen=True)
class Task:
    """A kind of answer that a model learns to give. One is chosen for a model and its data, see `registry.task_for`.

    Attributes:
        name: the `problem_type` of the models that learn it, which config.json states or `registry.task_for` deduces;
            of a head with one task the name of the head.
        pipeline_tag: what the hub calls such a model, and `pipeline` its task.
        description: (names of the labels) -> the sentence of the model card that begins with "It".
        read_labels: makes an array of a column of labels.
        names_labels: whether labels are named, so that rows can say how many there are; else the outputs are numbers.
        one_label: whether each row, or each token, has exactly one label. Reports then measure calibration and
            agreement with the teacher.
        label_loss: the loss against labels.
        teacher_loss: the loss against labels and a teacher.
        predicted_and_true: (logits, labels of labelled rows) -> what decisions are compared by, two of a kind.
        metrics: all metrics, by name, see `of_decisions` and `of_scores`.
        default_metrics: names of the metrics that every evaluation measures, beside the loss and n.
        best_metric: the metric that chooses the best weights where the user names none, see
            `train.arguments.greater_is_better`.
        card_metric: the metric that the model card's metadata names and its course of the training shows.
        right_rows: (predicted, true) -> which rows are right, bool (n,); None where nothing is right or wrong.
        right_when: when a row is right, a clause for the model card; empty where it has one label.
        constant: (labels of labelled rows, number of labels) -> the logits, float32 (labels,), of the best answer that
            does not look at the text: the label or set of labels that most rows have, or the mean. A model must beat
            it. None where there is no such answer.
        score_function: how a pipeline makes scores of the logits: "softmax", "sigmoid" or "none".
        answers: (logits) -> scores float64 (n, labels) and which labels are predicted, bool (n, labels), or None where
            the scores are the answer.
        divergence: (logits, those of a reference for the same rows) -> how far the answers are from the reference's,
            see `metrics.divergence`.
        nearness: (outputs, those of a reference) -> the `agreement` of outputs that are read as a vector; None where
            they are labels or numbers.
        mixing: how the answers of several teachers become one; None where there can be only one.
        threshold: the probability above which a label is predicted; None where there is nothing to exceed.
        threshold_is: what a chosen threshold is, for sentences.
        at_threshold: (probability) -> the task with this threshold; None likewise.
        best_threshold: (logits, labels of labelled rows) -> the threshold that suits them best; None likewise.
        per_token: whether a model has an output for each token, instead of one for each row. "Rows" of the functions
            above are then `Ragged`: the outputs of the tokens of an example.
        taught: (labels of a batch) -> which of its tokens take part in the loss, bool; None where labels are of rows.
        label_names: of the model, in the order of its outputs, where the metrics need them; see `with_names`.
        with_names: (label_names) -> the task with metrics of these names; None where they make no difference.
        trained: (what the model was trained with) -> the task with it; None where only the threshold counts.
        with_loss: (name of a loss) -> the task whose student learns by it, for one that learns from a teacher alone,
            without labels; None for all others.
        encode: makes a data set of what a trainer is given, see `train.encoding.encode_for`; None: texts with labels.
        for_users: (outputs, labels of labelled rows) -> what a `compute_metrics` of a user's gets of them.
        outputs: (model, batch, its labels) -> what an evaluation keeps of a model's answers, float32 (tokens, K), where
            that is not the logits; None where it is.
        option: what `--task` calls it; None: as the hub does.
        learns_from: how a model comes to it, for the model card.
        rows_are: what the model is measured on, for the model card and summaries.
        loss_is: what the loss of an evaluation is, a sentence for the model card.
        metrics_are: what is to be known of the metrics, likewise; empty where their names say all.
        usage: (pipeline_tag, the model's name as Python writes it, model) -> lines of Python for the model card that
            use the model.
    """

    name: str
    pipeline_tag: str
    description: Callable[[Sequence[str]], str]
    read_labels: LabelReader
    names_labels: bool
    one_label: bool
    label_loss: LabelLoss
    teacher_loss: TeacherLoss
    predicted_and_true: Callable[[Any, Any], tuple[Any, Any]]
    metrics: Mapping[str, Metric]
    default_metrics: tuple[str, ...]
    best_metric: str
    card_metric: str
    right_rows: Callable[[Any, Any], NDArray[Any]] | None
    constant: Callable[[Any, int], Logits] | None
    score_function: str
    answers: Callable[[Logits], tuple[NDArray[np.float64], NDArray[np.bool_] | None]]
    divergence: Callable[[Logits, Logits], float]
    nearness: Callable[[Logits, Logits], float] | None = None
    mixing: Mixing | None = None
    threshold: float | None = None
    threshold_is: str = "above which a label is predicted, has the best micro F1"
    at_threshold: Callable[[float], Task] | None = None
    best_threshold: Callable[[Logits, Labels], float] | None = None
    per_token: bool = False
    taught: Callable[[Labels], NDArray[np.bool_]] | None = None
    label_names: tuple[str, ...] = ()
    with_names: Callable[[tuple[str, ...]], Task] | None = None
    trained: Callable[[TrainedWith], Task] | None = None
    with_loss: Callable[[str], Task] | None = None
    encode: Callable[..., Dataset] | None = None
    for_users: Callable[[Any, Any], EvalPrediction] = EvalPrediction.padded
    outputs: Callable[[Model, Batch, Labels], NDArray[np.float32]] | None = None
    option: str | None = None
    learns_from: str = "fine-tuned on labelled rows"
    rows_are: str = "labelled rows"
    loss_is: str = "The loss is against the labels."
    right_when: str = ""
    metrics_are: str = ""
    usage: Callable[[str, str, Model], list[str]] = usage_of_classifier

    @property
    def makes_labels(self) -> bool:
        """Whether labels are words of the text that are hidden, instead of read."""
        return self.outputs is not None

    @property
    def in_windows(self) -> bool:
        """Whether rows are windows of questions, which `encode` makes."""
        return self.encode is not None and self.per_token

    @property
    def labels_per_token(self) -> bool:
        """Whether each token has a label, instead of each row."""
        return self.taught is not None

    def weighted(self, label_weights: LabelWeights) -> Task:
        """Return the task with these weights of the labels in its losses, float64 (num_labels,)."""
        return replace(
            self,
            label_loss=partial(self.label_loss, label_weights=label_weights),
            teacher_loss=partial(self.teacher_loss, label_weights=label_weights),
        )

    def parts(self, labels: Labels, rows: int) -> int:
        """Return over how many parts the loss of a batch of `rows` is a mean, given its labels: rows, or tokens."""
        return rows if self.taught is None else int(self.taught(labels).sum())

    def suited_to(self, logits: Any, labels: Any) -> Task:
        """Return the task at the threshold that suits the labelled rows best; itself where there is none to choose."""
        if self.best_threshold is None or self.at_threshold is None:
            return self
        logits, labels = labelled_answers(logits, labels)
        return self.at_threshold(self.best_threshold(logits, labels)) if len(labels) else self

    def agreement(self, logits: Logits, reference: Logits) -> float:
        """Return the share of rows that get the label, or the set of labels, that a reference's logits give them.

        Both are float32 (n, num_labels), of rows or of tokens. Where the answers are numbers: Pearson's correlation
        with the reference's, the lowest of all outputs. Of embeddings: the lowest cosine of all rows.
        """
        if self.nearness is not None:
            return self.nearness(logits, reference)
        (scores, chosen), (others, others_chosen) = self.answers(logits), self.answers(reference)
        if chosen is None:
            return min(map(pearson, scores.T, others.T))
        return float((chosen == others_chosen).all(axis=1).mean())

    def evaluate(self, logits: Any, labels: Any) -> dict[str, float]:
        """Return the default metrics, the loss against the labels and n over the labelled rows; {} without any.

        `labels` are those of all rows, see `Dataset.targets`. There is no loss where they give none (NaN).
        """
        logits, labels = labelled_answers(logits, labels)
        if not len(labels):
            return {}
        metrics = self.compute(self.default_metrics, logits, labels)
        loss, _ = self.label_loss(logits, units(labels))
        return {**metrics, **({} if math.isnan(loss) else {"loss": loss}), "n": len(labels)}

    def compute(self, names: Iterable[str], logits: Any, labels: Any) -> dict[str, float]:
        """Return the metrics of these names, without those that are not defined here; every row has a label.

        Raises ValueError for a name that is none.
        """
        self.check_metrics(names)
        answers = Answers(logits, *self.predicted_and_true(logits, labels))
        found = {name: self.metrics[name](answers) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def check_metrics(self, names: Iterable[str]) -> None:
        """Raise ValueError for the first name that is not one of the task's metrics."""
        for name in names:
            if name not in self.metrics:
                known = ", ".join(self.metrics)
                raise ValueError(f"the metric {name!r} is not one of a model for {self.name}; expected one of {known}")

    def right(self, logits: Any, labels: Any) -> NDArray[Any] | None:
        """Return which labelled rows the model has right, bool (labelled rows,); None where nothing is right."""
        if self.right_rows is None:
            return None
        return self.right_rows(*self.predicted_and_true(*labelled_answers(logits, labels)))


def write_tsv(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a header and a line for each row, which begins with the row's index; all separated by tabs.

    A field with a tab or a line end, or with a quote at its beginning, is quoted as in a CSV (RFC 4180).
    """
    file.write("\t".join(map(tsv_field, ["index", *columns])) + "\n")
    for index, values in enumerate(rows):
        file.write("\t".join(map(tsv_field, [str(index), *map(str, values)])) + "\n")


def write_json_lines(file: TextIO, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON object a line, with all digits."""
    for record in records:
        file.write(json_text(record, ensure_ascii=False) + "\n")


def tsv_field(text: str, separators: str = "\t\r\n") -> str:
    """Return text as a field of a line, in quotes when it holds a separator or begins with a quote."""
    if text.startswith('"') or any(separator in text for separator in separators):
        return '"' + text.replace('"', '""') + '"'
    return text


def in_words(names: Sequence[str]) -> str:
    """Return names of labels as a sentence lists them, in one line: all of them, or the first of many."""
    return listing((" ".join(name.split()) for name in names), _MOST_IN_WORDS)
