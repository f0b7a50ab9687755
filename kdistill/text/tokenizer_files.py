"""The files of a tokenizer: tokenizer.json or vocab.txt, read with the settings beside them, and written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import json_text, read_json_object
from .tokenizer_settings import (
    DEFAULT_SPECIAL_TOKENS,
    EXTRA_SPECIAL_TOKENS,
    NORMALIZER_SETTINGS,
    extra_special_tokens_of,
    special_tokens_of,
    token_text,
    without,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# All that a tokenizer writes.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
# Bounds on a tokenizer.json, far above real ones, so that a text takes time and memory in proportion to its length.
# Time of a word rises with the cube of its length in WordPiece: 1,000 characters take 0.1 s.
MAX_WORD = 1000
MAX_SPECIAL_TOKENS = 1000
MAX_GROWTH = 64
# Settings that are written anew (or lie in tokenizer.json), and those that are places on the machine that wrote them.
_NOT_KEPT = (
    "added_tokens", "added_tokens_decoder", "auto_map", "max_len", "merges_file", "name_or_path",
    "special_tokens_map_file", "tokenizer_file", "vocab_file",
)  # fmt: skip


def read_backend(directory: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Read tokenizer.json, or vocab.txt if that is missing, with `settings` applied.

    Args:
        directory: where the files are.
        settings: those of `read_settings`, perhaps changed.

    Raises:
        ValueError: the file is malformed, lacks a special token, or disagrees with the settings about ids.
    """
    if (directory / "tokenizer.json").is_file():
        backend = _backend_from_json(directory / "tokenizer.json", settings)
    else:
        backend = _backend_from_vocab(directory / "vocab.txt", settings)
    _add_tokens(backend, settings)
    if not (directory / "tokenizer.json").is_file():
        _check_special_tokens(directory / "vocab.txt", backend, settings)
        backend.post_processor = _bert_template(backend, special_tokens_of(settings))
    return backend


def _add_tokens(backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Add the tokens of the settings, in transformers' order: those with ids by rising ids, then special tokens.

    A named special token ([MASK]) that the vocabulary lacks stays unknown: no model has a row for it.
    """
    from tokenizers import AddedToken

    for token in settings.get("added_tokens", ()):
        is_known = backend.token_to_id(token.content) is not None
        backend.add_tokens([AddedToken(token.content, **token.flags)])
        found = backend.token_to_id(token.content)
        if found != token.token_id and is_known:
            warnings.warn(
                f"{token.source} gives {token.content!r} the id {token.token_id}; its id in the vocabulary is {found}",
                stacklevel=4,
            )
        elif found != token.token_id:
            raise ValueError(
                f"{token.source} gives {token.content!r} the id {token.token_id}; expected {found}, the next one "
                "behind the vocabulary: added tokens have ids without gaps"
            )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    named = [
        token for token in special_tokens_of(settings).values() if backend.token_to_id(token_text(token)) is not None
    ]
    for token in (*named, *extra_special_tokens_of(settings)):
        if token_text(token) not in added:
            flags = {
                "special": True,
                **({} if isinstance(token, str) else without(token, ("content", "__type", "id"))),
            }
            backend.add_tokens([AddedToken(token_text(token), **flags)])


def _check_special_tokens(path: Path, backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    for name in DEFAULT_SPECIAL_TOKENS:
        token = token_text(special_tokens_of(settings)[name])
        if backend.token_to_id(token) is None and name != "mask_token":
            raise _no_entry(path, backend.get_vocab_size(with_added_tokens=False), token)


def _no_entry(path: Path, entries: int, token: str) -> ValueError:
    return ValueError(
        f"{path} has {entries} entries and none of them is {token!r}; expected one token a line, the special tokens "
        "included"
    )


def _backend_from_json(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    content = read_json_object(path)
    _check_templates(path, content.get("post_processor"))
    _check_model(path, content.get("model"))
    growth = _growth(content.get("normalizer"))
    if growth > MAX_GROWTH:
        raise ValueError(f"{path}: the normalizer makes texts up to {growth:.3g} times as long; expected {MAX_GROWTH}")
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        normalizer.update({key: settings[name] for name, key in NORMALIZER_SETTINGS.items() if name in settings})
    try:
        backend = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the package raises plain Exception
        raise ValueError(f"{path} is not a tokenizer.json that `tokenizers` reads: {error}") from error
    specials = max(backend.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
    if specials > MAX_SPECIAL_TOKENS:
        raise ValueError(f"{path}: the post-processor adds {specials} tokens; expected at most {MAX_SPECIAL_TOKENS}")
    return backend


def _check_model(path: Path, model: Any) -> None:
    if not isinstance(model, dict):
        return
    unknown = model.get("unk_token")
    if isinstance(model.get("vocab"), dict) and unknown is not None and unknown not in model["vocab"]:
        raise ValueError(f"{path}: the model's unk_token {unknown!r} is not in its vocabulary")
    longest = model.get("max_input_chars_per_word")
    if isinstance(longest, int) and longest > MAX_WORD:
        raise ValueError(f"{path}: max_input_chars_per_word is {longest}; expected at most {MAX_WORD}")
    if model.get("dropout"):
        raise ValueError(
            f"{path}: the model's dropout is {model['dropout']!r}, which gives a text other ids each time; "
            "expected null"
        )


def _growth(normalizer: Any) -> float:
    """Return how many times longer a normalizer's replacements can make a text."""
    if not isinstance(normalizer, dict):
        return 1.0
    growth = 1.0
    for inner in normalizer.get("normalizers") or ():
        growth *= _growth(inner)
    if normalizer.get("type") == "Replace":
        pattern, content = normalizer.get("pattern"), normalizer.get("content")
        found = pattern.get("String") if isinstance(pattern, dict) else None
        growth *= max(1.0, len(str(content)) / max(1, len(found) if isinstance(found, str) else 1))
    return growth


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
    # Lines end at "\n" only: some vocabularies hold U+2028 and U+0085 as tokens, which str.splitlines would cut at.
    try:
        with path.open(encoding="utf-8") as file:
            vocab = {line.rstrip("\n"): index for index, line in enumerate(file)}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if any(token.startswith("\u2581") for token in vocab) and not any(token.startswith("##") for token in vocab):
        raise ValueError(
            f"{path} is a vocabulary of SentencePiece (words begin with U+2581, no piece with ##), which KoBERT and "
            "others read with code of their own; expected BERT's, or a tokenizer.json: tokenize with transformers and "
            "give rows with input_ids"
        )
    unknown = token_text(special_tokens_of(settings)["unk_token"])
    if unknown not in vocab:
        raise _no_entry(path, len(vocab), unknown)
    return _bert_backend(vocab, unknown, {key: settings.get(name) for name, key in NORMALIZER_SETTINGS.items()})


def _bert_backend(vocab: Mapping[str, int], unknown: str, normalizer: Mapping[str, bool | None]) -> Tokenizer:
    """Return BERT's pipeline without a post-processor; `normalizer` has the names of BertNormalizer, None: default."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordPiece(dict(vocab), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, **{name: value for name, value in normalizer.items() if value is not None}
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _bert_template(backend: Tokenizer, special_tokens: Mapping[str, Any]) -> Any:
    """Return the post-processor that adds [CLS] and [SEP]."""
    from tokenizers import processors

    cls, sep = (token_text(special_tokens[name]) for name in ("cls_token", "sep_token"))
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, backend.token_to_id(cls)), (sep, backend.token_to_id(sep))],
    )


def is_plain_bert(backend: Tokenizer, special_tokens: Mapping[str, str]) -> bool:
    """Return whether transformers' class BertTokenizer, and a vocab.txt, stand for this tokenizer.

    transformers 5 takes nothing from a tokenizer.json for that class but vocabulary and added tokens, and builds all
    else anew (models/bert/tokenization_bert.py); the class PreTrainedTokenizerFast reads the file as it is.
    """
    from tokenizers import AddedToken

    content = json.loads(backend.to_str())
    normalizer, model = content["normalizer"] or {}, content["model"]
    if normalizer.get("type") != "BertNormalizer" or model.get("type") != "WordPiece":
        return False
    if not set(DEFAULT_SPECIAL_TOKENS) <= set(special_tokens):
        return False
    # The vocabulary itself is kept, so that of the rebuilt tokenizer can be its special tokens alone.
    vocab = {token: index for token, index in model["vocab"].items() if token in special_tokens.values()}
    if special_tokens["unk_token"] not in vocab:
        return False
    rebuilt = _bert_backend(
        vocab, special_tokens["unk_token"], {key: normalizer[key] for key in NORMALIZER_SETTINGS.values()}
    )
    rebuilt.add_tokens([AddedToken(special_tokens[name], special=True) for name in DEFAULT_SPECIAL_TOKENS])
    rebuilt.post_processor = _bert_template(rebuilt, special_tokens)
    expected = json.loads(rebuilt.to_str())
    cls, sep = special_tokens["cls_token"], special_tokens["sep_token"]
    same_template = {"type": "BertProcessing", "sep": [sep, vocab.get(sep)], "cls": [cls, vocab.get(cls)]}
    return (
        without(model, ("vocab",)) == without(expected["model"], ("vocab",))
        and all(content[part] == expected[part] for part in ("normalizer", "pre_tokenizer", "decoder", "added_tokens"))
        and content["post_processor"] in (expected["post_processor"], same_template)
    )


def files_of(
    backend: Tokenizer, serialized: str, settings: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> dict[str, str]:
    """Return the content of the files that a tokenizer is saved as, by name.

    Args:
        backend: the tokenizer.
        serialized: its tokenizer.json.
        settings: everything else that tokenizer_config.json keeps.
        special_tokens: name -> token.
    """
    is_bert = is_plain_bert(backend, special_tokens)
    normalizer = json.loads(serialized)["normalizer"] or {}
    extra = [token_text(token) for token in extra_special_tokens_of(settings)]
    special_map = {**special_tokens, **({"additional_special_tokens": extra} if extra else {})}
    config = {
        **without(settings, (*_NOT_KEPT, *EXTRA_SPECIAL_TOKENS, *special_tokens_of(settings))),
        **special_map,
        **{name: normalizer[key] for name, key in NORMALIZER_SETTINGS.items() if key in normalizer},
        "tokenizer_class": "BertTokenizer" if is_bert else "PreTrainedTokenizerFast",
    }
    files = {
        "tokenizer.json": serialized,
        "tokenizer_config.json": json_text(config, indent=2, ensure_ascii=False) + "\n",
        "special_tokens_map.json": json_text(special_map, indent=2, ensure_ascii=False) + "\n",
    }
    tokens = sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    if is_bert and [token_id for _, token_id in tokens] == list(range(len(tokens))):
        files["vocab.txt"] = "".join(f"{token}\n" for token, _ in tokens)
    return files
