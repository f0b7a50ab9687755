"""From the logits of windows to the answers of questions: the best span over all windows, and the next best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.spans import Spans

N_BEST = 20
MAX_ANSWER_LENGTH = 30
NOTHING_FOUND = "empty"
"""The answer where no span can be one, in the words of transformers' example, whose figures are to be the same."""


class SpanAnswer(NamedTuple):
    """An answer of a model.

    Attributes:
        text: the part of the context; "" for no answer.
        start: the character where it begins.
        end: the character behind its last.
        start_logit: of its first token.
        end_logit: of its last token.
        score: its probability among the answers that were considered, 0 to 1.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float
    score: float


@dataclass(frozen=True)
class QuestionAnswers:
    """What a model answers to one question.

    Attributes:
        best: the answer; no answer where that is allowed and the model's doubt exceeds the threshold.
        n_best: the best answers, in their order, perhaps with none (text "") among them.
        found: the best answer that is not none.
        doubt: how much higher no answer scores than `found`; None where each question has an answer.
    """

    best: SpanAnswer
    n_best: tuple[SpanAnswer, ...]
    found: SpanAnswer
    doubt: float | None


@dataclass(frozen=True)
class SpanRules:
    """How answers are chosen, with the names of transformers' example.

    Attributes:
        n_best: how many of the best first and last tokens of a window are combined, and how many answers are kept.
        max_answer_length: tokens of the longest answer.
        no_answers: whether a question may have no answer (SQuAD 2.0, `version_2_with_negative`).
        null_score_diff_threshold: the doubt above which none is given.
    """

    n_best: int = N_BEST
    max_answer_length: int = MAX_ANSWER_LENGTH
    no_answers: bool = False
    null_score_diff_threshold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_best", "max_answer_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


def extract_answers(
    logits: NDArray[np.float32], starts: NDArray[np.int64], spans: Spans, rules: SpanRules
) -> Iterator[QuestionAnswers]:
    """Yield the answers to each question.

    They are those of `postprocess_qa_predictions` in transformers' example for question answering (run_qa.py): in each
    window the `n_best` first tokens with each of the `n_best` last tokens, as far as both lie in the context and make a
    span of 1 to `max_answer_length` tokens; over all windows the `n_best` of the highest sum of logits. No answer has
    the logits of [CLS], of the window where their sum is lowest.

    Args:
        logits: float32 (tokens, 2), as first and as last token of the answer.
        starts: int64 (windows + 1,), window w holds tokens starts[w]:starts[w + 1].
        spans: where the windows lie in their contexts.
        rules: how answers are chosen.
    """
    windows = spans.of_questions()
    for question, context in enumerate(spans.questions.contexts):
        parts = []
        for window in range(windows[question], windows[question + 1]):
            tokens = slice(starts[window], starts[window + 1])
            parts.append(_candidates(logits[tokens], spans.offsets[tokens], spans.context[window], rules))
        first = logits[starts[windows[question] : windows[question + 1]]]
        yield _chosen(np.concatenate(parts), first, context, rules)


_CANDIDATE = np.dtype([("start", "i4"), ("end", "i4"), ("start_logit", "f4"), ("end_logit", "f4"), ("score", "f4")])


def _candidates(
    logits: NDArray[np.float32], offsets: NDArray[np.int32], context: NDArray[np.int64], rules: SpanRules
) -> NDArray[np.void]:
    """Return the spans of a window that may be answers, in the order of the example, which decides between equals."""
    # The sort of the example: another one may order equal logits differently.
    first, last = (np.argsort(column)[-1 : -rules.n_best - 1 : -1] for column in logits.T)
    firsts, lasts = (grid.ravel() for grid in np.meshgrid(first, last, indexing="ij"))
    (begin, end), length = context, lasts - firsts + 1
    allowed = (firsts >= begin) & (lasts < end) & (length >= 1) & (length <= rules.max_answer_length)
    firsts, lasts = firsts[allowed], lasts[allowed]
    found = np.empty(len(firsts), _CANDIDATE)
    found["start"], found["end"] = offsets[firsts, 0], offsets[lasts, 1]
    found["start_logit"], found["end_logit"] = logits[firsts, 0], logits[lasts, 1]
    found["score"] = found["start_logit"] + found["end_logit"]
    return found


def _chosen(candidates: NDArray[np.void], cls: NDArray[np.float32], context: str, rules: SpanRules) -> QuestionAnswers:
    """Return the answers to a question, given the candidates and [CLS]'s logits (windows, 2) of its windows."""
    none = np.zeros(1, _CANDIDATE)
    none["start_logit"], none["end_logit"] = cls[cls.sum(axis=1).argmin()]
    none["score"] = cls.sum(axis=1).min()
    if rules.no_answers:
        candidates = np.concatenate((candidates, none))
    best = candidates[np.argsort(-candidates["score"], kind="stable")[: rules.n_best]]
    if rules.no_answers and not ((best["start"] == 0) & (best["end"] == 0)).any():
        best = np.concatenate((best, none))
    texts = [context[start:end] for start, end in zip(best["start"], best["end"], strict=True)]
    if not any(texts):
        best, texts = np.concatenate((np.zeros(1, _CANDIDATE), best)), [NOTHING_FOUND, *texts]
    scores = best["score"].astype(np.float64)
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    columns = (best[name].tolist() for name in ("start", "end", "start_logit", "end_logit"))
    answers = tuple(map(SpanAnswer, texts, *columns, probabilities.tolist()))
    found = next(answer for answer in answers if answer.text)
    if not rules.no_answers:
        return QuestionAnswers(answers[0], answers, found, None)
    row = answers.index(found)
    doubt = float(none["score"][0] - best["start_logit"][row] - best["end_logit"][row])
    nothing = next(answer for answer in answers if not answer.text)
    return QuestionAnswers(nothing if doubt > rules.null_score_diff_threshold else found, answers, found, doubt)
