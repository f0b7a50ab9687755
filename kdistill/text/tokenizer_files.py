"""The files of a tokenizer: tokenizer.json or vocab.txt, and the settings beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import read_json_object
from .encodings import NO_MAX_LENGTH

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# The second overrides the first; both may be absent.
SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json")
# All that a tokenizer writes.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", *SETTINGS_FILES)
# Settings of tokenizer_config.json -> their names in the BertNormalizer of tokenizer.json.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def read_backend(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Read tokenizer.json, or vocab.txt if that is missing, with `settings` applied.

    Args:
        directory: where the files are.
        settings: those of `read_settings`, perhaps changed.

    Raises:
        ValueError: the file is malformed or lacks a special token.
    """
    if (directory / "tokenizer.json").is_file():
        return _backend_from_json(directory / "tokenizer.json", settings)
    return _backend_from_vocab(directory / "vocab.txt", settings)


def token_text(token: Any) -> str:
    """Return the text of a special token, which the files write as a string or as {"content": ...}."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the content of the settings files of a directory, merged. Raises `ValueError` for a malformed setting."""
    settings: dict[str, Any] = {}
    for name in SETTINGS_FILES:
        if (directory / name).is_file():
            found = read_json_object(directory / name)
            _check_settings(directory / name, found)
            settings.update(found)
    return settings


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for name in NORMALIZER_SETTINGS:
        if not isinstance(settings.get(name), bool | None):
            raise ValueError(f"{path}: {name} is {settings[name]!r}; expected true or false")
    for name in DEFAULT_SPECIAL_TOKENS:
        token = settings.get(name)
        text = token.get("content") if isinstance(token, Mapping) else token
        if not isinstance(text, str | None) or (token is not None and text is None):
            raise ValueError(f"{path}: {name} is {token!r}; expected a token")
    length = settings.get("model_max_length")
    if length is not None and not (type(length) in (int, float) and 0 <= length <= NO_MAX_LENGTH):
        raise ValueError(f"{path}: model_max_length is {length!r}; expected a number of tokens")


def _backend_from_json(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    content = read_json_object(path)
    _check_templates(path, content.get("post_processor"))
    model = content.get("model")
    if isinstance(model, dict) and isinstance(model.get("vocab"), dict):
        unknown = model.get("unk_token")
        if unknown is not None and unknown not in model["vocab"]:
            raise ValueError(f"{path}: the model's unk_token {unknown!r} is not in its vocabulary")
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        normalizer.update({key: settings[name] for name, key in NORMALIZER_SETTINGS.items() if name in settings})
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the package raises plain Exception
        raise ValueError(f"{path} is not a tokenizer.json that `tokenizers` reads: {error}") from error


def _check_templates(path: Path, processor: Any) -> None:
    """Raise `ValueError` for a template with a token it does not describe, on which `tokenizers` would panic later."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors") or ():
        _check_templates(path, inner)
    described = processor.get("special_tokens")
    for piece in [*(processor.get("single") or ()), *(processor.get("pair") or ())]:
        token = piece.get("SpecialToken") if isinstance(piece, dict) else None
        if isinstance(token, dict) and token.get("id") not in (described or ()):
            raise ValueError(f"{path}: the post-processor adds {token.get('id')!r}, which its special_tokens lack")


def _backend_from_vocab(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Build the same tokenizer from a vocab.txt as transformers: one token a line, its id the line's number from 0."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # Lines end at "\n" only: some vocabularies hold U+2028 and U+0085 as tokens, which str.splitlines would cut at.
    try:
        with path.open(encoding="utf-8") as file:
            vocab = {line.rstrip("\n"): index for index, line in enumerate(file)}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    special = {name: token_text(settings.get(name) or default) for name, default in DEFAULT_SPECIAL_TOKENS.items()}
    missing = [token for name, token in special.items() if token not in vocab and name != "mask_token"]
    if missing:
        raise ValueError(
            f"{path} has {len(vocab)} entries and none of them is {missing[0]!r}; expected one token a line, "
            "the special tokens included"
        )
    cls, sep = special["cls_token"], special["sep_token"]
    backend = Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    backend.add_special_tokens([token for token in special.values() if token in vocab])
    return backend
