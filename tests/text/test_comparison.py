"""Two tokenizers are the same to a model, or it is said where they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.kinds_of_tokenizers import BERT_NAMES, KINDS, template, with_parts, wordpiece, write_kind
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from kdistill.text.classes import AutoTokenizer, BertTokenizer
from kdistill.text.tokenizer import PreTrainedTokenizerFast


def ours(backend: Tokenizer, **settings: str) -> PreTrainedTokenizerFast:
    return BertTokenizer(backend, {**BERT_NAMES, **settings})


def with_tokens(*tokens: AddedToken | str) -> Tokenizer:
    backend = wordpiece()
    backend.add_tokens(list(tokens))
    return backend


DIFFERENT: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "case": (lambda: wordpiece(lowercase=False, strip_accents=True), "the normalizer (lowercase True and False)"),
    "accents": (lambda: wordpiece(strip_accents=False), "the normalizer (strip_accents True and False)"),
    "another normalizer": (lambda: with_parts(normalizer=normalizers.NFC()), "the normalizer (BertNormalizer and NFC)"),
    "words": (
        lambda: with_parts(pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
        "the pre-tokenizer (BertPreTokenizer and WhitespaceSplit)",
    ),
    "length of words": (
        lambda: with_parts(model=shorter_words()), "the model (max_input_chars_per_word 100 and 9)",
    ),
    "a new token": (lambda: with_tokens("[WORLD]"), "1 entries of the vocabulary, for example '[WORLD]'"),
    "flags of a token": (lambda: with_tokens(AddedToken("great", single_word=True)), "the added tokens ('great')"),
    "types of pairs": (
        lambda: with_parts(post_processor=template(pair="[CLS] $A [SEP] $B [SEP]")), "the post-processor",
    ),
    "one token less": (lambda: with_parts(post_processor=template(single="[CLS] $A")), "the post-processor"),
}  # fmt: skip


def shorter_words() -> object:
    backend = wordpiece()
    backend.model.max_input_chars_per_word = 9
    return backend.model


@pytest.mark.parametrize("name", DIFFERENT)
def test_each_stage_that_differs_is_named(name: str) -> None:
    make, message = DIFFERENT[name]
    found = ours(make()).differences_from(ours(wordpiece()))
    assert message in found[0]
    assert len(found) == (2 if name == "a new token" else 1)


def test_special_tokens_with_other_roles_differ() -> None:
    found = ours(wordpiece(), mask_token="[UNK]").differences_from(ours(wordpiece()))
    assert found == ["mask_token"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_and_its_saved_copy_do_not_differ(kind: str, tmp_path: Path) -> None:
    write_kind(kind, tmp_path / "before")
    before = AutoTokenizer.from_pretrained(tmp_path / "before")
    before.save_pretrained(tmp_path / "after")
    assert AutoTokenizer.from_pretrained(tmp_path / "after").differences_from(before) == []


def test_two_ways_to_write_the_same_stage_do_not_differ(tmp_path: Path) -> None:
    plain = ours(wordpiece())
    assert ours(wordpiece(strip_accents=True)).differences_from(plain) == []
    bert = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    assert ours(with_parts(post_processor=bert)).differences_from(plain) == []
    plain.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert AutoTokenizer.from_pretrained(tmp_path).differences_from(plain) == []
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    cased = AutoTokenizer.from_pretrained(tmp_path)
    assert cased.differences_from(plain) == ["the normalizer (strip_accents True and False, lowercase True and False)"]
