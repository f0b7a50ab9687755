"""`QuestionAnsweringPipeline` beside that of transformers 4; version 5 has none: `make transformers4`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "transformers.pipelines.question_answering", reason="transformers 5 has no such pipeline: make transformers4"
)

import torch
import transformers
from support.eight_tokenizers import write_model_with_vocabulary

import kdistill as kd

torch.set_num_threads(1)  # models are small
SHORT = "Anna and O'Neill lived in Zürich, then in New York; the  river — “la Seine” — isn't long. 東京 has 9,733,276."
LONG = " ".join(
    [SHORT, "É\u0301tudes of e\u0301tudes 😀, naïve cafés & Straße 12b.", *["The film was made in 1999 by Maria."] * 6]
)
PAIRS = [("Where did Anna live?", SHORT), ("Who?", SHORT), ("When was it made,  and where?", LONG), ("Où?", LONG)]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_k": 3, "handle_impossible_answer": True},
    {"max_answer_len": 3, "top_k": 4},
    {"max_seq_len": 56, "doc_stride": 10, "top_k": 4},
    {"max_seq_len": 72},
    {"align_to_words": False, "top_k": 2},
]


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model with random weights and a vocabulary of its kind, in both programs."""
    directory: Path = tmp_path_factory.mktemp("model")
    fields = {"initializer_range": 0.4, "type_vocab_size": 2 if request.param == "bert" else 1}
    write_model_with_vocabulary(request.param, "ForQuestionAnswering", directory, tokens=200, seed=2, **fields)
    theirs = transformers.pipeline("question-answering", str(directory), device="cpu")
    return kd.pipeline("question-answering", str(directory)), theirs


def check_equal(ours: Any, theirs: Any) -> None:
    """The same answers at the same places, with probabilities to the roundings of two programs."""
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            check_equal(one, other)
        return
    assert {**ours, "score": 0} == {**theirs, "score": 0}
    assert ours["score"] == pytest.approx(float(theirs["score"]), rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # transformers 4 warns of what goes in its next version
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "default")
def test_answers_are_those_of_transformers_4(both: tuple[Any, Any], settings: dict[str, Any]) -> None:
    ours, theirs = both
    rows = [{"question": question, "context": context} for question, context in PAIRS]
    check_equal(ours(rows, **settings), theirs(rows, **settings))
