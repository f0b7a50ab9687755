"""Exact match, F1 and the no-answer threshold against the official evaluations of SQuAD, written down again here."""

from __future__ import annotations

import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kdistill.data.questions import read_questions
from kdistill.metrics.answers import answer_scores, best_no_answer_threshold, normalized

TEXTS = [
    "The Beatles", "beatles", "the", "a an", "", "  ", "1,000 kg", "1000kg", "New York City", "the new   york",
    "York York New", "naïve — the “end”", "end", "U.S.", "us", "an-other", "A", "theatre", "x_y", "in the end (of) a",
]  # fmt: skip


def official_words(text: str) -> list[str]:
    """normalize_answer of both scripts: lower case, no punctuation, no articles, white space fixed; then split."""
    letters = [letter for letter in text.lower() if letter not in set(string.punctuation)]
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", "".join(letters)).split()).split()


def official_f1(answer: str, truth: str, version_2: bool) -> float:
    """f1_score of version 1.1, compute_f1 of version 2.0."""
    found, true = official_words(answer), official_words(truth)
    if version_2 and not (found and true):
        return float(found == true)
    same = sum((Counter(found) & Counter(true)).values())
    if not same:
        return 0.0
    precision, recall = same / len(found), same / len(true)
    return 2 * precision * recall / (precision + recall)


def official(answer: str, truths: list[str], version_2: bool) -> tuple[float, float]:
    if version_2:
        truths = [truth for truth in truths if official_words(truth)] or [""]
    exact = max(float(official_words(answer) == official_words(truth)) for truth in truths)
    return exact, max(official_f1(answer, truth, version_2) for truth in truths)


@pytest.mark.parametrize("version_2", [False, True])
def test_scores_of_every_answer_against_every_set_of_truths(version_2: bool) -> None:
    truths = [[text] for text in TEXTS] + [[TEXTS[i], TEXTS[-i]] for i in range(1, len(TEXTS))]
    truths += [[]] if version_2 else []
    for answer in TEXTS:
        scores = answer_scores([answer] * len(truths), truths, no_answers=version_2)
        expected = np.array([official(answer, accepted, version_2) for accepted in truths])
        np.testing.assert_array_equal(scores.exact, expected[:, 0])
        np.testing.assert_allclose(scores.f1, expected[:, 1], rtol=1e-15)


def test_the_versions_differ_where_an_answer_has_no_word() -> None:
    assert [answer_scores(["the"], [["a"]], no_answers=rule).f1[0] for rule in (False, True)] == [0, 1]


def test_figures_are_percentages_and_tell_apart_what_has_an_answer() -> None:
    accepted = [["Berlin"], ["New York"], [], []]
    figures = answer_scores(["berlin!", "York", "", "Rome"], accepted, no_answers=True).figures()
    assert figures == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (1 + 2 / 3 + 1) / 4),
        "HasAns_exact": 50.0,
        "HasAns_f1": pytest.approx(100 * (1 + 2 / 3) / 2),
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
    }
    assert answer_scores(["York"], [["York"]], no_answers=True).figures() == {"exact_match": 100.0, "f1": 100.0}


def test_a_question_without_an_answer_is_none_of_squad_1() -> None:
    with pytest.raises(ValueError, match="question 1 has no answer"):
        answer_scores(["x", ""], [["x"], []], no_answers=False)


def test_words_keep_their_letters() -> None:
    assert normalized("  The Á-théâtre,\n an_End ") == "áthéâtre anend"


def official_threshold(
    scores: list[float], has: list[bool], answers: list[str], doubts: list[float]
) -> tuple[float, float]:
    """find_best_thresh: from nothing answered on, answer the questions one by one, the least doubted first."""
    reached = best = float(has.count(False))
    threshold = 0.0
    for row in sorted(range(len(scores)), key=doubts.__getitem__):
        reached += scores[row] if has[row] else -1 if answers[row] else 0
        if reached > best:
            best, threshold = reached, doubts[row]
    return 100 * best / len(scores), threshold


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_official_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    has = random.random(40) < random.choice([0.2, 0.8])
    doubts = random.random(40).round(2) + (-2 if has.mean() > 0.5 else 0) + (~has) * 0.2
    answers = ["" if empty else "x" for empty in random.random(40) < 0.2]
    scores = np.where(has, random.random(40).round(1), [answer == "" for answer in answers]).astype(np.float64)
    found = best_no_answer_threshold(scores, has, np.array([answer != "" for answer in answers]), doubts)
    assert found == pytest.approx(official_threshold(scores.tolist(), has.tolist(), answers, doubts.tolist()))


def test_where_nothing_should_be_answered_no_doubt_is_below_the_threshold() -> None:
    share, threshold = best_no_answer_threshold(
        np.zeros(3), np.zeros(3, bool), np.ones(3, bool), np.array([-5.0, -4.0, 3.0])
    )
    assert (share, threshold) == (100.0, -6.0)


def test_real_answers_match_themselves_and_each_other_as_officially(shared_dir: Path) -> None:
    questions = read_questions(shared_dir / "data" / "squadshifts" / "amazon_reviews_v1.0.json")
    accepted = [[answer.text for answer in answers or ()] for answers in questions.answers]
    last = [texts[-1] for texts in accepted]
    first = [texts[:1] for texts in accepted]
    figures = answer_scores(last, first, no_answers=False).figures()
    expected = np.array([official(answer, truths, False) for answer, truths in zip(last, first, strict=True)])
    assert figures == {
        "exact_match": pytest.approx(100 * expected[:, 0].mean()),
        "f1": pytest.approx(100 * expected[:, 1].mean()),
    }
    assert answer_scores(last, accepted, no_answers=False).exact.all()
