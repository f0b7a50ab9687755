"""Rows as a teacher with another tokenizer reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.other_teacher import other_config, write_other_teacher
from support.small_run import sentences, small_dataset

import kdistill as kd
from kdistill.data.texts import Texts
from kdistill.distill.own_reading import read_texts
from kdistill.train.arguments import DistillationTrainingArguments


def test_tokens_that_were_added_need_embeddings(tmp_path: Path) -> None:
    tokenizer = kd.AutoTokenizer.from_pretrained(write_other_teacher(tmp_path / "own"))
    rows = replace(small_dataset(4), texts=Texts([text for text, _ in sentences(4)]))
    args = DistillationTrainingArguments("unused", disable_tqdm=True)
    assert len(read_texts(other_config(), tokenizer, rows, args, "the teacher")) == 4
    tokenizer.add_tokens(["film"])
    with pytest.raises(
        ValueError, match=r"tokens, 1 of them added, and the model embeddings for \d+; expected one for"
    ):
        read_texts(other_config(), tokenizer, rows, args, "the teacher")
