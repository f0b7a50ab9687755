"""Questions that a tiny model learns in seconds: where in the context the word of the question is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdistill.models.classes import BertForQuestionAnswering
from kdistill.text.tokenizer import AutoTokenizer, BertTokenizer
from support.small_run import VOCABULARY, WORDS, run_fields, small_config


def questions(n: int, seed: int = 0, *, without_answer: float = 0.0) -> list[dict[str, Any]]:
    """Rows whose answer is the word of the question; a share of them, `without_answer`, have contexts without it."""
    random = np.random.default_rng(seed)
    rows = []
    for row in range(n):
        words = [str(word) for word in random.permutation(WORDS)[: random.integers(3, 8)]]
        word = str(random.choice(words))
        if random.random() < without_answer:
            words.remove(word)
        context = " ".join(words)
        found = [context.index(word)] if word in words else []
        answers = {"text": [word] * len(found), "answer_start": found}
        rows.append({"id": f"q{row}", "question": word, "context": context, "answers": answers})
    return rows


def question_tokenizer(directory: Path) -> BertTokenizer:
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return AutoTokenizer.from_pretrained(directory)


def question_model(seed: int = 1, **changes: Any) -> BertForQuestionAnswering:
    config = small_config(initializer_range=0.2, id2label={0: "LABEL_0", 1: "LABEL_1"}, **changes)
    return BertForQuestionAnswering(config, seed=seed)


def question_fields(directory: Path, **changes: Any) -> dict[str, Any]:
    """Training arguments of a short run; windows are so short that some contexts need two."""
    return run_fields(directory, {"num_train_epochs": 3, "max_length": 10, "doc_stride": 2, "seed": 1, **changes})
