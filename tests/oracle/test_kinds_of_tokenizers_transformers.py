"""Tokenizers of every kind are the same tokenizer in transformers before and after they are saved here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.kinds_of_tokenizers import KINDS, TEXTS, write_kind
from support.paths import INPUTS

from kdistill.text.classes import AutoTokenizer

transformers = pytest.importorskip("transformers")


def rows_of(backend: Any) -> list[tuple[Any, ...]]:
    """Return ids, types, tokens and offsets of texts and pairs, from the package tokenizers itself."""
    rows = [*TEXTS, *zip(TEXTS, reversed(TEXTS), strict=True)]
    return [(row.ids, row.type_ids, row.tokens, row.offsets) for row in backend.encode_batch(rows)]


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_the_same_tokenizer(kind: str, with_config: bool, tmp_path: Path) -> None:
    backend = write_kind(kind, tmp_path / "before")
    ours = AutoTokenizer.from_pretrained(tmp_path / "before")
    ours.save_pretrained(tmp_path / "after")
    if with_config:
        shutil.copy(tmp_path / "before" / "config.json", tmp_path / "after")
    again = AutoTokenizer.from_pretrained(tmp_path / "after")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "after")
    expected = rows_of(backend)
    assert rows_of(ours._backend) == expected
    assert rows_of(again._backend) == expected
    assert rows_of(theirs.backend_tokenizer) == expected
    assert ours.content_hash == again.content_hash
    for arguments in ({}, {"truncation": True, "max_length": 8, "padding": True}):
        expected_call = theirs(TEXTS, TEXTS[::-1], **arguments)
        for found in (ours, again):
            assert dict(found(TEXTS, TEXTS[::-1], **arguments)) == dict(expected_call)
    assert {n: str(t) for n, t in theirs.special_tokens_map.items()} == again.special_tokens_map


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_reads_is_what_is_read_here(kind: str, tmp_path: Path) -> None:
    write_kind(kind, tmp_path)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert rows_of(ours._backend) == rows_of(theirs.backend_tokenizer)
    theirs.save_pretrained(tmp_path / "theirs")
    assert rows_of(AutoTokenizer.from_pretrained(tmp_path / "theirs")._backend) == rows_of(theirs.backend_tokenizer)


INPUT_CASES = json.loads((INPUTS / "tokenizers" / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name, expected in INPUT_CASES.items() if "calls" in expected])
def test_the_right_values_of_the_small_inputs_are_those_of_transformers(name: str) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(INPUTS / "tokenizers" / name)
    for call in INPUT_CASES[name]["calls"]:
        assert theirs(call["text"], **call["options"])["input_ids"] == call["input_ids"]
    for attribute, value in INPUT_CASES[name].get("attributes", {}).items():
        assert getattr(theirs, attribute) == value


@pytest.mark.parametrize("kind", ["bert", "XLM-R", "RoBERTa"])
def test_tokens_are_added_as_in_transformers(kind: str, tmp_path: Path) -> None:
    write_kind(kind, tmp_path)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in (theirs, ours):
        assert tokenizer.add_tokens(["[WORLD]", "covid", "great"]) in (2, 3)
        assert tokenizer.add_special_tokens({"additional_special_tokens": ["<e1>", "<e2>"]}) == 2
        assert tokenizer.add_special_tokens({"pad_token": "<filler>"}) == 1
    texts = [*TEXTS, "<e1> Covid </e1> <e2>great", "[world]"]
    assert len(ours) == len(theirs)
    assert dict(ours(texts, padding=True)) == dict(theirs(texts, padding=True))
    rows = ours(texts)["input_ids"]
    assert ours.batch_decode(rows, skip_special_tokens=True) == theirs.batch_decode(rows, skip_special_tokens=True)
    ours.save_pretrained(tmp_path / "after")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "after")
    assert dict(again(texts, padding=True)) == dict(theirs(texts, padding=True))
    assert sorted(map(str, again.all_special_tokens)) == sorted(ours.all_special_tokens)
