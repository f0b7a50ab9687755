"""The tokenizers of all eight architectures give what transformers' give, before and after they are saved.

Each has a small vocabulary trained on texts in many scripts. The texts compared hold strings that are special tokens,
control characters, long words, emoji and everything else that `support.many_scripts` makes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.eight_tokenizers import KINDS, WITH_SENTENCEPIECE, write_vocabulary
from support.many_scripts import texts

from kdistill.text.classes import AutoTokenizer

transformers = pytest.importorskip("transformers")

TEXTS = texts(10_000, seed=2)
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))
COLUMNS: dict[str, Any] = {
    "return_token_type_ids": True,
    "return_offsets_mapping": True,
    "return_special_tokens_mask": True,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The directory of a kind's vocabulary, written once."""

    @functools.cache
    def write(model_type: str) -> Path:
        if model_type in WITH_SENTENCEPIECE:
            pytest.importorskip("sentencepiece")
        return write_vocabulary(model_type, tmp_path_factory.mktemp("files") / model_type)

    return write


def their_class(model_type: str) -> Any:
    return getattr(transformers, KINDS[model_type])


def stages_of(backend: Any) -> dict[str, Any]:
    """Return a tokenizer.json; reading one changes the last places of Unigram's scores."""
    content: dict[str, Any] = json.loads(backend.to_str())
    vocab = content["model"]["vocab"]
    if isinstance(vocab, list):
        content["model"]["vocab"] = [(token, pytest.approx(score, rel=1e-12)) for token, score in vocab]
    return content


def assert_same_calls(ours: Any, theirs: Any, rows: list[str]) -> None:
    """Compare ids, types, masks and offsets of texts and pairs, whole and cut on both sides."""
    assert ours.model_input_names == theirs.model_input_names
    pairs = list(zip(rows[-400:-200], rows[-200:], strict=True))
    assert dict(ours(rows, **COLUMNS)) == dict(theirs(rows, **COLUMNS))
    for side in ("right", "left"):
        theirs.truncation_side = ours.truncation_side = side
        for arguments in ({}, {"padding": True, "padding_side": side, "max_length": 24, "truncation": True}):
            assert dict(ours(rows[-1000:], **arguments)) == dict(theirs(rows[-1000:], **arguments))
            assert dict(ours(pairs, **COLUMNS, **arguments)) == dict(theirs(pairs, **COLUMNS, **arguments))
        windows = {"truncation": True, "max_length": 16, "stride": 3, "return_overflowing_tokens": True}
        assert dict(ours(rows[:200], **COLUMNS, **windows)) == dict(theirs(rows[:200], **COLUMNS, **windows))
    theirs.truncation_side = ours.truncation_side = "right"
    words = [text.split() for text in rows[:200]]
    ours_of_words, theirs_of_words = (t(words, is_split_into_words=True, **COLUMNS) for t in (ours, theirs))
    assert dict(ours_of_words) == dict(theirs_of_words)
    assert all(ours_of_words.word_ids(row) == theirs_of_words.word_ids(row) for row in range(len(words)))


def calls(tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Return ids, types and offsets of all texts and all pairs, and of pairs cut on the right and on the left."""
    columns = {"return_token_type_ids": True, "return_offsets_mapping": True, "return_attention_mask": False}
    yield dict(tokenizer(TEXTS, **columns))
    yield dict(tokenizer(PAIRS, **columns))
    for side, some in (("right", PAIRS[::2]), ("left", PAIRS[1::2])):
        tokenizer.truncation_side = side
        yield dict(tokenizer(some, **columns, truncation=True, max_length=48))
    tokenizer.truncation_side = "right"


def difference(found: dict[str, Any], expected: dict[str, Any]) -> Any:
    """Return the first difference, for which pytest would search megabytes: column, row and both values; else None."""
    assert found.keys() == expected.keys()
    columns = ((name, enumerate(zip(found[name], expected[name], strict=True))) for name in expected)
    return next(((name, row, *both) for name, rows in columns for row, both in rows if both[0] != both[1]), None)


def assert_same(ours: Any, theirs: Any, rows: list[str]) -> None:
    assert stages_of(ours._backend) == stages_of(theirs.backend_tokenizer)
    assert_same_calls(ours, theirs, rows)
    assert ours.special_tokens_map == {name: str(token) for name, token in theirs.special_tokens_map.items()}
    assert ours.all_special_ids == theirs.all_special_ids
    ids = ours(rows[:200])["input_ids"]
    for skip in (True, False):
        assert ours.batch_decode(ids, skip_special_tokens=skip) == theirs.batch_decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("model_type", KINDS)
def test_all_texts_and_pairs_are_read_as_by_transformers_before_and_after_saving(
    model_type: str, files: Any, tmp_path: Path
) -> None:
    theirs = their_class(model_type).from_pretrained(files(model_type))
    ours = AutoTokenizer.from_pretrained(files(model_type))
    assert_same(ours, theirs, TEXTS[:1000])
    ours.save_pretrained(tmp_path)
    for expected, *found in zip(*map(calls, (theirs, ours, AutoTokenizer.from_pretrained(tmp_path))), strict=True):
        assert [difference(each, expected) for each in found] == [None, None]


@pytest.mark.parametrize("model_type", KINDS)
def test_what_is_saved_here_opens_in_transformers_as_the_same_class(
    model_type: str, files: Any, tmp_path: Path
) -> None:
    ours = AutoTokenizer.from_pretrained(files(model_type))
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == KINDS[model_type]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs) is their_class(model_type)
    assert_same(ours, theirs, TEXTS[:1000])
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.content_hash == ours.content_hash


@pytest.mark.parametrize("model_type", KINDS)
def test_what_transformers_saves_is_read_here(model_type: str, files: Any, tmp_path: Path) -> None:
    theirs = their_class(model_type).from_pretrained(files(model_type))
    theirs.save_pretrained(tmp_path)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    assert_same(ours, theirs, TEXTS[-1000:])
    assert ours.content_hash == AutoTokenizer.from_pretrained(files(model_type)).content_hash
    assert not ours.differences_from(AutoTokenizer.from_pretrained(files(model_type)))
