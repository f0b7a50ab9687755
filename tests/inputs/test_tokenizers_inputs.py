"""Directories of tokenizer files as other programs and people write them, each with its right value.

`expected.json` has for each directory `calls` (a text, options and the ids), `attributes`, and parts of an `error` or
`warning` of loading, or of the `call_error` for a text.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.paths import INPUTS

from kdistill.text.classes import AutoTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast

FOLDER = INPUTS / "tokenizers"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def check(tokenizer: PreTrainedTokenizerFast, expected: dict[str, Any]) -> None:
    for call in expected.get("calls", ()):
        assert tokenizer(call["text"], **call["options"])["input_ids"] == call["input_ids"]
    for name, value in expected.get("attributes", {}).items():
        assert getattr(tokenizer, name) == value


def test_each_directory_has_a_value_and_each_value_a_directory() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_files_are_read_as_their_author_meant_them(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    if "error" in expected:
        with pytest.raises(ValueError, match=re.escape(expected["error"])) as caught:
            AutoTokenizer.from_pretrained(FOLDER / name)
        assert str(FOLDER / name) in str(caught.value)
        return
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        tokenizer = AutoTokenizer.from_pretrained(FOLDER / name)
    messages = [str(warning.message) for warning in caught_warnings]
    assert len(messages) == ("warning" in expected)
    assert all(expected["warning"] in message for message in messages)
    if "call_error" in expected:
        with pytest.raises(ValueError, match=re.escape(expected["call_error"])):
            tokenizer(expected["text"])
        assert tokenizer("b")["input_ids"] == [2, 1, 3]
    check(tokenizer, expected)
    tokenizer.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again = AutoTokenizer.from_pretrained(tmp_path)
    check(again, expected)
    assert again.content_hash == tokenizer.content_hash
