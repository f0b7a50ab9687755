"""Each question has an answer that is a part of its context, or perhaps none: a first and a last token.

A model that has learned that some questions have no answer (SQuAD 2.0) has a threshold: no answer is given where its
probability, of the two that no answer and the best one have together, is above it. 0.5 is a
`null_score_diff_threshold` of 0 in transformers' example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.columns import NO_COLUMNS, Columns
from ..data.dataset import Dataset, OnProgress
from ..data.label_names import Where
from ..data.question_windows import encode_questions
from ..data.questions import QUESTION_COLUMN, read_questions, with_a_row_for_each_question
from ..data.ragged import Ragged
from ..data.sources import read_table
from ..data.spans import Spans, SpanTargets
from ..losses.kinds import LossParts
from ..losses.mixing import SPANS
from ..losses.spans import span_loss
from ..losses.weights import LabelWeights
from ..metrics import answers as scoring
from ..metrics.prediction import EvalPrediction, Logits
from ..models.head_names import SPAN
from ..models.model import Model
from ..models.trained_with import TrainedWith
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from . import regression
from .answer_spans import MAX_ANSWER_LENGTH, N_BEST, QuestionAnswers, SpanRules, extract_answers
from .base import Answers, Metric, Task

THRESHOLD = 0.5
_OF_ALL = ("exact_match", "f1")
_OF_NO_ANSWERS = ("HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")
_SUREST = 1e-12  # a probability has so much left to 0 and to 1


@dataclass(frozen=True, eq=False)
class Answered:
    """A model's answers to questions, and how they compare with those that are accepted.

    Attributes:
        answers: those of the model.
        scores: how they compare.
    """

    answers: Sequence[QuestionAnswers]
    scores: scoring.AnswerScores


def rules_of(trained: TrainedWith) -> SpanRules:
    """Return how a model chooses answers; without a threshold each question has an answer."""
    threshold = trained.threshold or (THRESHOLD if trained.no_answers else None)
    return SpanRules(
        n_best=trained.n_best or N_BEST,
        max_answer_length=trained.max_answer_length or MAX_ANSWER_LENGTH,
        no_answers=threshold is not None,
        null_score_diff_threshold=0.0 if threshold is None else float(np.log(threshold / (1 - threshold))),
    )


def answers_of(outputs: Ragged, targets: SpanTargets, rules: SpanRules) -> list[QuestionAnswers]:
    """Return the answers to all questions, given the outputs of all windows."""
    return list(extract_answers(outputs.values, targets.starts, targets.spans, rules))


def _accepted(targets: SpanTargets) -> list[list[str]]:
    return [[answer.text for answer in answers or ()] for answers in targets.spans.questions.answers]


def _answered(outputs: Ragged, targets: SpanTargets, rules: SpanRules) -> tuple[Answered, SpanTargets]:
    if not rules.no_answers:
        _refuse_answerless(targets)
    answers = answers_of(outputs, targets, rules)
    texts = [each.best.text for each in answers]
    scores = scoring.answer_scores(texts, _accepted(targets), no_answers=rules.no_answers)
    return Answered(answers, scores), targets


def _refuse_answerless(targets: SpanTargets) -> None:
    questions = targets.spans.questions
    if questions.answerless:
        first = next(row for row, answers in enumerate(questions.answers) if answers == ())
        raise ValueError(
            f"{questions.answerless:,} of {len(questions):,} questions have no answer, the first is "
            f"{questions.table.where(first)}, and the model answers each question (SQuAD 1.1): give --threshold 0.5 "
            "(threshold=0.5) to let it give none, or leave them out"
        )


def _for_users(outputs: Ragged, targets: SpanTargets, rules: SpanRules) -> EvalPrediction:
    """Return answers and references in the forms of `EvalPrediction`."""
    questions = targets.spans.questions
    predictions: list[dict[str, Any]] = []
    for name, answers in zip(questions.ids, answers_of(outputs, targets, rules), strict=True):
        predictions.append({"id": name, "prediction_text": answers.best.text})
        if answers.doubt is not None:
            predictions[-1]["no_answer_probability"] = _probability(answers.doubt)
    references = [
        {"id": name, "answers": {"text": [each.text for each in of], "answer_start": [each.start for each in of]}}
        for name, of in zip(questions.ids, (answers or () for answers in questions.answers), strict=True)
    ]
    return EvalPrediction(predictions, references)


def _probability(doubt: float) -> float:
    """Return the probability of no answer, of the two that it and the best answer have together."""
    return float(np.exp(-np.logaddexp(0.0, -doubt)))


def _labels(labels: Any) -> NDArray[np.int64]:
    return np.asarray(labels.labels if isinstance(labels, SpanTargets) else labels)


def encode(
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    max_length: int,
    doc_stride: int,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
    progress: OnProgress | None = None,
) -> Dataset:
    """Read questions and cut them into windows, as a trainer is given them.

    Args:
        source: a Dataset of windows (returned as it is), or questions, see `data.questions.read_questions`.
        tokenizer: the model's.
        max_length: tokens of a window.
        doc_stride: tokens of the context that a window has in common with the one before it.
        text_column: the column of the questions.
        text_pair_column: that of their contexts.
        label_column: that of the answers.
        trained_on: the columns of the training, which are taken where none are given and these are there.
        progress: called with (questions done, all).

    Raises:
        ValueError: no tokenizer, rows that hold no questions, or what `read_questions` and `encode_questions` raise.
        TypeError: likewise.
    """
    if isinstance(source, Dataset):
        if not isinstance(source.windows, Spans):
            raise ValueError(f"the data set holds no windows of questions; a model for {SPAN} reads nothing else")
        return source
    check_tokenizer("processing_class", tokenizer)
    table = with_a_row_for_each_question(read_table(source))
    given = (text_column, text_pair_column, label_column)
    known = (name if name in table.columns else None for name in trained_on)
    columns = (one or other for one, other in zip(given, known, strict=True))
    names: dict[str, Any] = dict(zip(("question_column", "context_column", "answers_column"), columns, strict=True))
    if "input_ids" in table.columns and (names["question_column"] or QUESTION_COLUMN) not in table.columns:
        raise ValueError(
            f"{table.source} has questions that are already tokens (column 'input_ids'), whose answers are in no text; "
            "expected the texts, question, context and answers, and a tokenizer (processing_class=), which cuts them "
            "into windows"
        )
    if tokenizer is None:
        raise ValueError("questions are text; pass a tokenizer (processing_class=)")
    questions = read_questions(table, **names)
    return encode_questions(questions, tokenizer, max_length=max_length, doc_stride=doc_stride, progress=progress)


def _label_loss(
    logits: Ragged, labels: Any, *, label_smoothing: float = 0.0, label_weights: LabelWeights | None = None
) -> tuple[float, Logits]:
    """Return the mean loss of the windows' first and last tokens, and its gradient for all tokens."""
    parts = span_loss(logits.values, logits.starts, _labels(labels), alpha=1.0, label_smoothing=label_smoothing)
    return parts.loss, parts.dlogits


def _teacher_loss(
    logits: Ragged,
    teacher_logits: Ragged,
    labels: Any,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
    label_weights: LabelWeights | None = None,
) -> LossParts:
    return span_loss(
        logits.values,
        logits.starts,
        None if labels is None else _labels(labels),
        teacher_logits.values,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )


def _no_column(
    labels: Sequence[Any], id2label: Any, where: Where, class_names: Sequence[str] = ()
) -> NDArray[np.int64]:
    raise TypeError(
        "rows that are tokenized already cannot be questions, as an answer is a part of a text; expected the columns "
        "question, context and answers"
    )


def _figure(name: str) -> Metric:
    def measured(answers: Answers) -> float | None:
        figures: dict[str, float] = answers.predicted.scores.figures()
        return figures.get(name)

    return measured


def _best(place: int) -> Metric:
    """Return the best F1 at any threshold, or that threshold, as the official evaluation of SQuAD 2.0 has them."""

    def measured(answers: Answers) -> float | None:
        if any(each.doubt is None for each in answers.predicted.answers):
            return None
        return _best_f1(answers.predicted.answers, answers.true)[place]

    return measured


def _best_f1(answers: Sequence[QuestionAnswers], targets: SpanTargets) -> tuple[float, float]:
    """Return the best F1, in percent, and the doubt up to which answers are given for it."""
    texts = [each.found.text for each in answers]
    scores = scoring.answer_scores(texts, _accepted(targets), no_answers=True)
    doubts = np.array([each.doubt for each in answers], np.float64)
    return scoring.best_no_answer_threshold(scores.f1, scores.answerable, np.ones(len(texts), bool), doubts)


def _best_threshold(outputs: Ragged, targets: SpanTargets, rules: SpanRules) -> float:
    """Return the probability above which no answer is to be given for the best F1.

    It lies half way between the doubts that it divides.
    """
    answers = answers_of(outputs, targets, rules)
    _, doubt = _best_f1(answers, targets)
    higher = [each.doubt for each in answers if each.doubt is not None and each.doubt > doubt]
    middle = (doubt + min(higher)) / 2 if higher else doubt + 1
    return float(np.clip(_probability(middle), _SUREST, 1 - _SUREST))


@cache
def _trained(trained: TrainedWith) -> Task:
    rules = rules_of(trained)
    task = replace(
        TASK,
        predicted_and_true=partial(_answered, rules=rules),
        for_users=partial(_for_users, rules=rules),
        at_threshold=lambda threshold: _trained(trained.at_threshold(threshold)),
    )
    if not rules.no_answers:
        return task
    return replace(
        task,
        threshold=trained.threshold or THRESHOLD,
        best_threshold=partial(_best_threshold, rules=rules),
        default_metrics=(*TASK.default_metrics, *_OF_NO_ANSWERS),
    )


def _right_rows(predicted: Answered, true: SpanTargets) -> NDArray[np.bool_]:
    return predicted.scores.exact > 0


def _usage(tag: str, name: str, model: Model) -> list[str]:
    return [
        "import kdistill as kd  # transformers loads the model too, and up to version 4 has such a pipeline",
        "",
        f'answer = kd.pipeline("{tag}", model={name})',
        'answer(question="Where does she live?", context="Anna lives in Paris.")',
    ]


TASK = Task(
    name=SPAN,
    pipeline_tag="question-answering",
    description=lambda names: "It answers a question about a text with a part of the text.",
    read_labels=_no_column,
    names_labels=False,
    one_label=False,
    label_loss=_label_loss,
    teacher_loss=_teacher_loss,
    predicted_and_true=partial(_answered, rules=SpanRules()),
    for_users=partial(_for_users, rules=SpanRules()),
    metrics={
        **{name: _figure(name) for name in (*_OF_ALL, *_OF_NO_ANSWERS)},
        "best_f1": _best(0),
        "best_f1_thresh": _best(1),
    },
    default_metrics=_OF_ALL,
    best_metric="f1",
    card_metric="f1",
    right_rows=_right_rows,
    right_when="the answer is an exact match",
    metrics_are="exact_match and f1 are those of SQuAD's official evaluation, in percent.",
    usage=_usage,
    constant=None,
    threshold_is="above which no answer is given, has the best F1",
    score_function="none",
    answers=regression.TASK.answers,
    divergence=regression.TASK.divergence,
    mixing=SPANS,
    at_threshold=lambda threshold: _trained(TrainedWith(threshold=threshold)),
    per_token=True,
    trained=_trained,
    encode=encode,
)
