"""Answers to questions, as `kdistill predict` writes them: JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .answer_spans import QuestionAnswers, SpanAnswer


@dataclass(frozen=True)
class AnswerPredictions:
    """The answers of a model to questions.

    Attributes:
        ids: of the questions.
        answers: to each of them.
        top_k: how many answers to write beside the one that is given, the best first; None: none.
    """

    ids: Sequence[str]
    answers: Sequence[QuestionAnswers]
    top_k: int | None = None

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield id, answer, its score (the probability among the best answers) and the characters of the context.

        `start` is the first character and `end` the place behind the last; no answer is "", from 0 to 0. With `top_k`
        also `n_best`, a list of such answers.
        """
        for name, answers in zip(self.ids, self.answers, strict=True):
            record = {"id": name, **_record(answers.best)}
            if self.top_k is not None:
                record["n_best"] = [_record(answer) for answer in answers.n_best[: self.top_k]]
            yield record

    def as_pipeline(self) -> list[Any]:
        """Return the records."""
        return list(self.records())


def _record(answer: SpanAnswer) -> dict[str, Any]:
    return {"answer": answer.text, "score": answer.score, "start": answer.start, "end": answer.end}
