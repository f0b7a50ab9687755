"""Tokenizers with a part of their vocabulary, as transformers reads their files, on texts in many scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from support.eight_tokenizers import KINDS, write_vocabulary
from support.many_scripts import texts

import kdistill as kd


@pytest.mark.parametrize("model_type", KINDS)
def test_what_is_left_of_a_vocabulary_is_read_alike(model_type: str, tmp_path: Path) -> None:
    whole = kd.AutoTokenizer.from_pretrained(write_vocabulary(model_type, tmp_path / "whole", entries=2500))
    rows, others = texts(40, seed=5), texts(40, seed=6)
    ids = {index for row in whole.encode_rows(rows, None) for index in row.ids} | whole.ids_of_unknown_words(rows)
    part, kept = whole.with_vocabulary(ids)
    assert len(part) == len(kept) < len(whole)
    part.save_pretrained(tmp_path / "part")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "part")
    staying = {*kept.tolist()}
    for text, row in zip([*rows, *others], whole.encode_rows([*rows, *others], None), strict=True):
        read = part(text)["input_ids"]
        assert theirs(text)["input_ids"] == read, text
        if staying.issuperset(row.ids):
            assert kept[read].tolist() == row.ids, text
    assert sum(staying.issuperset(row.ids) for row in whole.encode_rows(rows, None)) == len(rows)
