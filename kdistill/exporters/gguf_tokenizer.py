"""A tokenizer as llama.cpp has them: WordPiece as "bert", Unigram as "t5" and byte-level BPE as "gpt2".

Keys and values are those that llama.cpp's converter writes (conversion/bert.py; `SpecialVocab` in the package gguf). It
knows the stages of these tokenizers by rote, so that others are refused.
"""

from __future__ import annotations

import json
import tempfile
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..text.pipelines import SPACE, stages_of
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings

_PART = "##"  # before pieces of WordPiece that go on with a word
_NO_SCORE = -10000.0
# What a word that was added to the vocabulary can ask for, and llama.cpp, which looks for its text, does not do.
_OF_ADDED_WORDS = ("normalized", "single_word", "lstrip", "rstrip")
_SPECIAL_TOKENS = {"bos": "cls", "eos": "sep", "unk": "unk", "sep": "sep", "pad": "pad", "mask": "mask"}


class _Entries(NamedTuple):
    """The vocabulary by id: texts, and the `gguf.TokenType` of each."""

    texts: list[str]
    types: list[int]


class _Style(NamedTuple):
    """A kind of tokenizer that llama.cpp has.

    Attributes:
        write: adds what the kind alone has.
        stages: (part of tokenizer.json, setting, the values that llama.cpp reads alike).
    """

    write: Callable[[Any, Mapping[str, Any], _Entries], None]
    stages: tuple[tuple[str, str, tuple[Any, ...]], ...]


def write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
    """Add a tokenizer to a GGUF file.

    Args:
        writer: a `gguf.GGUFWriter`.
        tokenizer: what is written.
        vocab_size: rows of the model's word table.

    Raises:
        ValueError: llama.cpp would read other tokens than this tokenizer, or the model has no embeddings for all.
    """
    check_embeddings(tokenizer, vocab_size)
    most = max(tokenizer.vocab.values())
    if most >= vocab_size:
        raise ValueError(
            f"the tokenizer has ids up to {most}, and the model embeddings for {vocab_size}; expected the model's own"
        )
    content = _content_of(tokenizer)
    _check_stages(tokenizer, content)
    _STYLES[content["model"]["type"]].write(writer, content, _entries_of(tokenizer, content, vocab_size))
    for name, own in _SPECIAL_TOKENS.items():
        token_id = getattr(tokenizer, f"{own}_token_id", None)
        if token_id is not None:
            getattr(writer, f"add_{name}_token_id")(token_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    # Whether a pair has one more token in its middle: <s> a </s></s> b </s>, but [CLS] a [SEP] b [SEP].
    writer.add_add_sep_token(tokenizer.num_special_tokens_to_add(pair=True) == 4)


def _content_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return its tokenizer.json, parsed."""
    with tempfile.TemporaryDirectory(prefix="kdistill-") as directory:
        tokenizer.save_pretrained(directory)
        found: dict[str, Any] = json.loads((Path(directory) / "tokenizer.json").read_text(encoding="utf-8"))
        return found


def _check_stages(tokenizer: PreTrainedTokenizerFast, content: Mapping[str, Any]) -> None:
    """Raise ValueError for a stage that llama.cpp has otherwise."""
    model = content["model"]["type"]
    if model not in _STYLES:
        raise _refused("model", "type", model, tuple(_STYLES))
    for part, setting, known in _STYLES[model].stages:
        value = _setting(content, part, setting)
        if value not in known:
            raise _refused(part, setting, value, known)
    for added in content["added_tokens"]:
        changed = [setting for setting in _OF_ADDED_WORDS if added[setting]]
        if not content["normalizer"]:
            changed = [setting for setting in changed if setting != "normalized"]
        if changed and not added["special"]:
            raise _refused(f"added token {added['content']!r}", changed[0], True, (False,))
    around = [int(token_id) for token_id in tokenizer("")["input_ids"]]
    expected = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    if around != expected:
        raise _refused("post_processor", "around a text", around, (expected,))


def _setting(content: Mapping[str, Any], part: str, setting: str) -> Any:
    """Return a setting of a part of a tokenizer.json, of its last stage; "type": of all its stages."""
    if part == "model":
        return content["model"].get(setting)
    stages = stages_of(content[part], {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[part])
    return [each["type"] for each in stages] if setting == "type" else stages[-1].get(setting)


def _refused(part: str, setting: str, value: Any, known: Sequence[Any]) -> ValueError:
    expected = " or ".join(map(repr, known))
    return ValueError(
        f"the tokenizer's {part} has {setting} {value!r}, and llama.cpp reads {expected}; expected the tokenizer of "
        "BERT, RoBERTa, XLM-R or CamemBERT. Export the model with format='onnx'"
    )


def _entries_of(tokenizer: PreTrainedTokenizerFast, content: Mapping[str, Any], vocab_size: int) -> _Entries:
    """Return the tokens by id, and what stands for rows of the model's table that no token has."""
    from gguf import TokenType

    texts = [f"[PAD{token_id}]" for token_id in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for text, token_id in tokenizer.vocab.items():
        texts[token_id], types[token_id] = text, int(TokenType.NORMAL)
    for added in content["added_tokens"]:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    return _Entries(texts, types)


def _write_wordpiece(writer: Any, content: Mapping[str, Any], entries: _Entries) -> None:
    """Add pieces as llama.cpp has them: those that begin a word have a mark in front, and others none."""
    from gguf import TokenType

    kept = (TokenType.CONTROL, TokenType.USER_DEFINED)
    marked = [
        text if type in kept else text.removeprefix(_PART) if text.startswith(_PART) else SPACE + text
        for text, type in zip(entries.texts, entries.types, strict=True)
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(marked)
    writer.add_token_types(entries.types)
    (normalizer,) = stages_of(content["normalizer"], "normalizers")
    lowers, strips = normalizer["lowercase"], normalizer["strip_accents"]
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowers)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", lowers if strips is None else strips)


def _write_unigram(writer: Any, content: Mapping[str, Any], entries: _Entries) -> None:
    from gguf import TokenType

    scores = [score for _, score in content["model"]["vocab"]]
    types = list(entries.types)
    types[content["model"]["unk_id"]] = int(TokenType.UNKNOWN)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(entries.texts)
    writer.add_token_scores(scores + [_NO_SCORE] * (len(types) - len(scores)))
    writer.add_token_types(types)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    for stage in stages_of(content["normalizer"], "normalizers"):
        writer.add_precompiled_charsmap(b64decode(stage["precompiled_charsmap"]))


def _write_byte_level_bpe(writer: Any, content: Mapping[str, Any], entries: _Entries) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("roberta-bpe")
    writer.add_token_list(entries.texts)
    writer.add_token_types(entries.types)
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]])


_STYLES: Mapping[str, _Style] = {
    "WordPiece": _Style(
        _write_wordpiece,
        (
            ("model", "continuing_subword_prefix", (_PART,)),
            ("model", "max_input_chars_per_word", (100,)),  # llama.cpp has no bound; real words are shorter than this
            ("normalizer", "type", (["BertNormalizer"],)),
            ("normalizer", "clean_text", (True,)),
            ("normalizer", "handle_chinese_chars", (True,)),
            ("pre_tokenizer", "type", (["BertPreTokenizer"],)),
        ),
    ),
    "Unigram": _Style(
        _write_unigram,
        (
            ("model", "byte_fallback", (False, None)),
            ("normalizer", "type", ([], ["Precompiled"])),
            ("pre_tokenizer", "type", (["WhitespaceSplit", "Metaspace"], ["Metaspace"])),
            ("pre_tokenizer", "prepend_scheme", ("always",)),
        ),
    ),
    "BPE": _Style(
        _write_byte_level_bpe,
        (
            ("normalizer", "type", ([],)),
            ("pre_tokenizer", "type", (["ByteLevel"],)),
            ("pre_tokenizer", "use_regex", (True,)),
            ("pre_tokenizer", "add_prefix_space", (False,)),
        ),
    ),
}
"""Type of a tokenizer's model -> what llama.cpp makes of it."""
