"""Exact match and F1 of answers to questions, as the official evaluations of SQuAD 1.1 and 2.0 measure them.

Rajpurkar et al., arXiv:1606.05250 and arXiv:1806.03822. An answer is compared with each that is accepted, and the best
of these counts. Both are in percent, as everybody states them.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Return an answer in lower case, without ASCII's punctuation and English articles, and one space between words."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def is_exact(answer: str, accepted: str) -> bool:
    """Return whether an answer is the accepted one, both normalised."""
    return normalized(answer) == normalized(accepted)


def overlap_f1(answer: str, accepted: str) -> float:
    """Return the F1 of the words that two answers share, each as often as both have it; 0 where they share none."""
    words, others = normalized(answer).split(), normalized(accepted).split()
    same = (Counter(words) & Counter(others)).total()
    if same == 0:
        return 0.0
    precision, recall = same / len(words), same / len(others)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """How answers to questions compare with those that are accepted.

    Attributes:
        exact: float64 (questions,), 1 where the answer is an accepted one, else 0.
        f1: float64 (questions,), 0 to 1.
        answerable: bool (questions,), whether a question has an answer at all.
    """

    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    answerable: NDArray[np.bool_]

    def figures(self) -> dict[str, float]:
        """Return `exact_match` and `f1` in percent.

        Where some questions have no answer, also `HasAns_exact`, `HasAns_f1`, `NoAns_exact` and `NoAns_f1`: over the
        questions with an answer, and over those without.
        """
        found = {"exact_match": 100 * float(self.exact.mean()), "f1": 100 * float(self.f1.mean())}
        if self.answerable.all():
            return found
        for name, which in (("HasAns", self.answerable), ("NoAns", ~self.answerable)):
            if which.any():
                found[f"{name}_exact"] = 100 * float(self.exact[which].mean())
                found[f"{name}_f1"] = 100 * float(self.f1[which].mean())
        return found


def answer_scores(answers: Sequence[str], accepted: Sequence[Sequence[str]], *, no_answers: bool) -> AnswerScores:
    """Compare answers with those that are accepted.

    Args:
        answers: one for each question, "" for none.
        accepted: the texts that each question accepts.
        no_answers: whether questions may have no answer. False is the rule of SQuAD 1.1, where each has one. True is
            that of 2.0: no answer is right where none is accepted, or none with a word in it.

    Raises:
        ValueError: a question has no answer, and `no_answers` is False.
    """
    exact, f1 = np.zeros(len(answers)), np.zeros(len(answers))
    for row, (answer, texts) in enumerate(zip(answers, accepted, strict=True)):
        if no_answers:
            texts = [text for text in texts if normalized(text)] or [""]
            if not normalized(answer) or texts == [""]:
                exact[row] = f1[row] = any(normalized(text) == normalized(answer) for text in texts)
                continue
        elif not texts:
            raise ValueError(f"question {row} has no answer; expected one for each, or no_answers=True (SQuAD 2.0)")
        exact[row] = any(is_exact(answer, text) for text in texts)
        f1[row] = max(overlap_f1(answer, text) for text in texts)
    return AnswerScores(exact, f1, np.array([bool(texts) for texts in accepted], dtype=bool))


def best_no_answer_threshold(
    scores: NDArray[np.float64], answerable: NDArray[np.bool_], answered: NDArray[np.bool_], doubts: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the best score that any threshold gives, in percent, and the lowest such threshold.

    A question whose doubt exceeds the threshold is given no answer. It is the search of the official evaluation of
    SQuAD 2.0 (`find_best_thresh`): over the questions in order of their doubt, those up to one keep their answers.

    Args:
        scores: float64 (questions,), of the answers that are given without a threshold, 0 to 1.
        answerable: bool (questions,).
        answered: bool (questions,), whether there is such an answer.
        doubts: float64 (questions,), how sure it is that there is none.
    """
    order = np.argsort(doubts, kind="stable")
    gains = np.where(answerable, scores, np.where(answered, -1.0, 0.0))[order]
    reached = (~answerable).sum() + np.concatenate(([0.0], np.cumsum(gains)))
    best = int(reached.argmax())
    share = 100 * float(reached[best]) / len(scores)
    if best > 0:
        return share, float(doubts[order[best - 1]])
    lowest = float(doubts.min())
    return share, 0.0 if lowest > 0 else lowest - 1  # nothing is answered; the official one returns 0
