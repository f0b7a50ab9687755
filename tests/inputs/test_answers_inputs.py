"""Answers to questions are those of transformers 4.57.3, the last version whose pipeline answered questions.

Its model was given these logits in place of its own, so that the values depend on the search alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.kinds_of_tokenizers import write_kind
from support.paths import INPUTS

from kdistill.data.batch import Batch
from kdistill.tasks.question_pipeline import QuestionAnsweringPipeline
from kdistill.text.classes import AutoTokenizer

CASES = json.loads((INPUTS / "answers" / "questions.json").read_text(encoding="utf-8"))
EXPECTED = json.loads((INPUTS / "answers" / "expected.json").read_text(encoding="utf-8"))["questions.json"]


class FormulaModel:
    """A model whose logits follow from a token's id and its place in the row."""

    config = SimpleNamespace(
        head="question-answering",
        vocab_size=1 << 20,
        max_tokens=512,
        trained_with=SimpleNamespace(max_length=None),
    )

    def forward(self, batch: Batch) -> np.ndarray:
        places = np.concatenate([np.arange(length) for length in np.diff(batch.starts)])
        ids = batch.ids.astype(np.float64)
        start, end = np.sin(0.7 * ids + 1.3 * places), np.sin(0.9 * ids + 1.3 * places + 2)
        return (4 * np.stack([start, end], axis=1)).astype(np.float32)


def answers(result: Any) -> list[tuple[int, int, str]]:
    listed = [result] if isinstance(result, dict) else result
    return [(answer["start"], answer["end"], answer["answer"]) for answer in listed]


def scores(result: Any) -> list[float]:
    return [answer["score"] for answer in ([result] if isinstance(result, dict) else result)]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_answers_are_those_of_transformers(case: int, tmp_path: Path) -> None:
    asked, expected = CASES[case], EXPECTED[case]
    write_kind(asked["tokenizer"], tmp_path)
    pipeline = QuestionAnsweringPipeline(FormulaModel(), AutoTokenizer.from_pretrained(tmp_path))
    found = pipeline(asked["question"], asked["context"], **asked["settings"])
    assert isinstance(found, type(expected))
    assert answers(found) == answers(expected)
    np.testing.assert_allclose(scores(found), scores(expected), rtol=1e-5)
