"""The files that a tokenizer is saved as, from which transformers makes the same tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..system.files import json_text
from .kinds import Kind, kind_of
from .pipelines import (
    WORDPIECE,
    Vocabulary,
    bert_template,
    shell_with,
    stages_as_json,
    style_of,
)
from .tokenizer_settings import (
    EXTRA_SPECIAL_TOKENS,
    extra_special_tokens_of,
    special_tokens_of,
    token_text,
    without,
)

# All that a tokenizer may write.
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
# Settings that are written anew (or lie in tokenizer.json), and those that are places on the machine that wrote them.
_NOT_KEPT = (
    "added_tokens", "added_tokens_decoder", "auto_map", "max_len", "merges_file", "name_or_path",
    "special_tokens_map_file", "tokenizer_file", "vocab_file",
)  # fmt: skip
# What of a model in tokenizer.json is its vocabulary.
_OF_VOCABULARY = ("vocab", "merges")


def is_plain(kind: Kind, content: Mapping[str, Any], special_tokens: Mapping[str, str]) -> bool:
    """Return whether transformers' class of this kind makes this tokenizer of its tokenizer.json.

    For its own classes transformers 5 takes nothing from a tokenizer.json but vocabulary and added tokens, and builds
    all else anew (models/bert/tokenization_bert.py, ...); the class PreTrainedTokenizerFast reads the file as it is.

    Args:
        kind: what the tokenizer's settings name.
        content: its tokenizer.json.
        special_tokens: name -> token.
    """
    from tokenizers import Tokenizer

    style, model = kind.style, content["model"]
    if model["type"] != style.type or not set(kind.special_tokens) <= set(special_tokens):
        return False
    vocab = model["vocab"]
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    if not set(special_tokens.values()) <= set(ids) or max(ids.values()) >= len(vocab):
        return False
    present = style.settings(content)
    # One entry instead of the vocabulary, which is the same in any case.
    unknown = special_tokens["unk_token"]
    entries = {unknown: 0} if isinstance(vocab, dict) else [(str(i), 0.0) for i in range(kind.unknown_id + 1)]
    own = Vocabulary(entries, unknown if isinstance(vocab, dict) else kind.unknown_id)
    expected_model = json.loads(Tokenizer(style.model(own)).to_str())["model"]
    if without(model, _OF_VOCABULARY) != without(expected_model, _OF_VOCABULARY):
        return False
    if isinstance(vocab, dict) and style is WORDPIECE and unknown not in vocab:
        return False
    rebuilt = shell_with(style.stages(present))
    rebuilt.post_processor = kind.template(lambda name: (special_tokens[name], ids[special_tokens[name]]), present)
    expected = stages_as_json(rebuilt)
    cls, sep = ([special_tokens[name], ids[special_tokens[name]]] for name in ("cls_token", "sep_token"))
    processors = [expected["post_processor"]]
    if kind.template is bert_template:
        processors.append({"type": "BertProcessing", "sep": sep, "cls": cls})
    return content["post_processor"] in processors and all(
        content[part] == expected[part] for part in ("normalizer", "pre_tokenizer", "decoder")
    )


def files_of(serialized: str, settings: Mapping[str, Any], special_tokens: Mapping[str, str]) -> dict[str, str]:
    """Return the content of the files that a tokenizer is saved as, by name.

    Args:
        serialized: its tokenizer.json.
        settings: everything else that tokenizer_config.json keeps.
        special_tokens: name -> token.
    """
    content, kind = json.loads(serialized), kind_of(settings)
    has_class = is_plain(kind, content, special_tokens)
    style = style_of(content["model"]["type"], kind.style)
    extra = [token_text(token) for token in extra_special_tokens_of(settings)]
    special_map = {**special_tokens, **({"additional_special_tokens": extra} if extra else {})}
    config = {
        **without(settings, (*_NOT_KEPT, *EXTRA_SPECIAL_TOKENS, *special_tokens_of(settings))),
        **special_map,
        **({} if style is None else without(style.settings(content), ("charsmap",))),
        "tokenizer_class": kind.name if has_class else "PreTrainedTokenizerFast",
    }
    files = {
        "tokenizer.json": serialized,
        "tokenizer_config.json": json_text(config, indent=2, ensure_ascii=False) + "\n",
        "special_tokens_map.json": json_text(special_map, indent=2, ensure_ascii=False) + "\n",
    }
    if has_class and _has_plain_tokens(kind, content, special_tokens):
        files |= _vocabulary_files(content["model"])
    return files


def _has_plain_tokens(kind: Kind, content: Mapping[str, Any], special_tokens: Mapping[str, str]) -> bool:
    """Return whether the files of a vocabulary leave nothing of the added tokens out."""
    stripped = {special_tokens[name] for name in kind.strips_before}
    return {token["content"] for token in content["added_tokens"]} <= set(special_tokens.values()) and all(
        token["special"]
        and token["lstrip"] == (token["content"] in stripped)
        and not (token["single_word"] or token["rstrip"] or token["normalized"])
        for token in content["added_tokens"]
    )


def _vocabulary_files(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a vocabulary that can be written: those of WordPiece and BPE with ids 0..n-1."""
    vocab = model["vocab"]
    if not isinstance(vocab, dict):
        return {}
    tokens = sorted(vocab, key=vocab.__getitem__)
    if sorted(vocab.values()) != list(range(len(tokens))):
        return {}
    if model["type"] == "WordPiece":
        return {"vocab.txt": "".join(f"{token}\n" for token in tokens)}
    merges = "".join(f"{first} {second}\n" for first, second in model["merges"])
    return {
        "vocab.json": json_text({token: vocab[token] for token in tokens}, ensure_ascii=False) + "\n",
        "merges.txt": f"#version: 0.2\n{merges}",
    }
