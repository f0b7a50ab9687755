"""Answers from logits: the search of transformers' example, written down again as loops over Python's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdistill.data.questions import Questions, read_questions
from kdistill.data.spans import Spans
from kdistill.tasks.answer_spans import QuestionAnswers, SpanRules, extract_answers

CONTEXT = "alpha beta gamma delta epsilon zeta sigma theta iota kappa lambda mu nu xi omicron rho"
WORDS = CONTEXT.split()
QUESTION_TOKENS = 4  # [CLS], two of the question, [SEP]


def questions(count: int) -> Questions:
    return read_questions([{"question": "what", "context": CONTEXT} for _ in range(count)])


def windows(per_question: list[list[tuple[int, int]]]) -> tuple[Spans, np.ndarray]:
    """Windows over words first:behind of the context, each with a question before and [SEP] behind; their starts."""
    bounds = [(match := CONTEXT.index(word), match + len(word)) for word in WORDS]
    offsets, context, question, lengths = [], [], [], []
    for number, parts in enumerate(per_question):
        for first, behind in parts:
            row = [(0, 0), (0, 4), (5, 9), (0, 0), *bounds[first:behind], (0, 0)]
            offsets += row
            lengths.append(len(row))
            context.append((QUESTION_TOKENS, QUESTION_TOKENS + behind - first))
            question.append(number)
    spans = Spans(
        questions(len(per_question)),
        np.array(question, np.int64),
        np.array(offsets, np.int32),
        np.array(context, np.int64),
    )
    return spans, np.concatenate(([0], np.cumsum(lengths)))


def example(
    logits: np.ndarray, starts: np.ndarray, spans: Spans, rules: SpanRules
) -> list[tuple[str, list[tuple[str, float]], float | None]]:
    """The answer, its n-best with probabilities and the doubt of each question, as the example's description has it."""
    results = []
    for number in range(len(spans.questions)):
        found: list[dict[str, Any]] = []
        null: dict[str, Any] | None = None
        for window in np.flatnonzero(spans.examples == number):
            low, high = starts[window], starts[window + 1]
            begin, end = logits[low:high, 0], logits[low:high, 1]
            if null is None or null["score"] > begin[0] + end[0]:
                null = {"at": (0, 0), "score": begin[0] + end[0]}
            for first in np.argsort(begin)[::-1][: rules.n_best]:
                for last in np.argsort(end)[::-1][: rules.n_best]:
                    inside = all(
                        spans.context[window][0] <= place < spans.context[window][1] for place in (first, last)
                    )
                    if inside and first <= last < first + rules.max_answer_length:
                        at = (int(spans.offsets[low + first][0]), int(spans.offsets[low + last][1]))
                        found.append({"at": at, "score": begin[first] + end[last], "b": begin[first], "e": end[last]})
        assert null is not None
        if rules.no_answers:
            found.append(null)
        found = sorted(found, key=lambda each: each["score"], reverse=True)[: rules.n_best]
        if rules.no_answers and null not in found:
            found.append(null)
        texts = [CONTEXT[slice(*each["at"])] for each in found]
        if texts in ([], [""]):
            texts, found = ["empty", *texts], [{"score": np.float32(0), "b": np.float32(0), "e": np.float32(0)}, *found]
        scores = np.array([each["score"] for each in found], np.float64)
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        best, doubt = texts[0], None
        if rules.no_answers:
            place = next(index for index, text in enumerate(texts) if text)
            doubt = float(null["score"] - found[place]["b"] - found[place]["e"])
            best = "" if doubt > rules.null_score_diff_threshold else texts[place]
        results.append((best, list(zip(texts, shares, strict=True)), doubt))
    return results


def as_example(answers: QuestionAnswers) -> tuple[str, list[tuple[str, float]], float | None]:
    return answers.best.text, [(each.text, each.score) for each in answers.n_best], answers.doubt


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "rules",
    [
        SpanRules(),
        SpanRules(n_best=3, max_answer_length=2),
        SpanRules(n_best=1, max_answer_length=1),
        SpanRules(no_answers=True),
        SpanRules(n_best=2, no_answers=True, null_score_diff_threshold=-2.0),
        SpanRules(n_best=1, no_answers=True, null_score_diff_threshold=1.5),
    ],
)
def test_answers_are_those_of_the_example(rules: SpanRules, seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [[(0, 16)], [(0, 7), (5, 12), (10, 16)], [(0, 1)], [(3, 9), (2, 3)], [(0, 0)], [(6, 16), (0, 8)]]
    spans, starts = windows(parts * 5)
    logits = random.standard_normal((starts[-1], 2)).astype(np.float32) * 3
    found = [as_example(answers) for answers in extract_answers(logits, starts, spans, rules)]
    for ours, theirs in zip(found, example(logits, starts, spans, rules), strict=True):
        assert ours[0] == theirs[0]
        assert ours[2] == theirs[2]
        assert [text for text, _ in ours[1]] == [text for text, _ in theirs[1]]
        np.testing.assert_allclose([share for _, share in ours[1]], [share for _, share in theirs[1]], rtol=1e-12)


def test_equal_logits_are_ordered_as_in_the_example() -> None:
    spans, starts = windows([[(0, 16)], [(0, 9), (6, 16)]])
    logits = np.random.default_rng(1).integers(0, 3, (starts[-1], 2)).astype(np.float32)
    for rules in (SpanRules(), SpanRules(n_best=5), SpanRules(n_best=4, no_answers=True)):
        found = [as_example(answers)[:1] for answers in extract_answers(logits, starts, spans, rules)]
        assert found == [theirs[:1] for theirs in example(logits, starts, spans, rules)]


def test_an_answer_has_the_place_of_its_text_and_the_best_window_counts() -> None:
    spans, starts = windows([[(0, 8), (6, 16)]])
    logits = np.zeros((starts[-1], 2), np.float32)
    logits[starts[1] + QUESTION_TOKENS + 2] = 5, 0  # "iota" in the second window
    logits[starts[1] + QUESTION_TOKENS + 3] = 0, 5  # "kappa"
    logits[QUESTION_TOKENS + 1] = 3, 3  # "beta" in the first
    (answers,) = extract_answers(logits, starts, spans, SpanRules())
    best = answers.best
    assert (best.text, CONTEXT[best.start : best.end]) == ("iota kappa", "iota kappa")
    assert (best.start_logit, best.end_logit) == (5, 5)
    assert answers.n_best[1].text in ("beta", "iota", "kappa")
    assert sum(answer.score for answer in answers.n_best) == pytest.approx(1)


def test_no_answer_is_given_only_where_it_is_allowed_and_above_the_threshold() -> None:
    spans, starts = windows([[(0, 8)]])
    logits = np.zeros((starts[-1], 2), np.float32)
    logits[0] = 4, 4
    logits[QUESTION_TOKENS + 1] = 3, 3
    texts = {}
    for name, rules in {
        "1.1": SpanRules(),
        "2.0": SpanRules(no_answers=True),
        "at": SpanRules(no_answers=True, null_score_diff_threshold=2.0),
    }.items():
        (answers,) = extract_answers(logits, starts, spans, rules)
        texts[name] = (answers.best.text, answers.doubt)
    assert texts == {"1.1": ("beta", None), "2.0": ("", 2.0), "at": ("beta", 2.0)}


@pytest.mark.parametrize("name", ["n_best", "max_answer_length"])
def test_rules_without_any_answer_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        SpanRules(**{name: 0})
