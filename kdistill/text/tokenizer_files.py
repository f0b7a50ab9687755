"""The files of a tokenizer, read with the settings beside them: tokenizer.json, or those of its vocabulary."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import read_json_object
from .kinds import kind_of
from .pipelines import (
    NORMALIZER_SETTINGS,
    WORDPIECE,
    set_offsets_of_prefix_space,
    set_stages,
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
from .vocabulary_files import backend_from_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Bounds on a tokenizer.json, far above real ones, so that a text takes time and memory in proportion to its length.
# Time of a word rises with the cube of its length in WordPiece: 1,000 characters take 0.1 s.
MAX_WORD = 1000
MAX_SPECIAL_TOKENS = 1000
MAX_GROWTH = 64
# Special tokens without which nothing can be encoded or padded.
NEEDED = ("unk_token", "sep_token", "pad_token", "cls_token")
# Settings of the stages, other than BertNormalizer's.
_OF_STAGES = ("add_prefix_space", "do_lower_case", "keep_accents")


def read_backend(directory: Path, settings: dict[str, Any]) -> Tokenizer:
    """Read tokenizer.json, or the files of the vocabulary if that is missing, with `settings` applied.

    Args:
        directory: where the files are.
        settings: those of `read_settings`, perhaps changed. The special tokens that the kind of tokenizer has where no
            file names more are entered in them.

    Raises:
        FileNotFoundError: a file of the vocabulary is missing.
        ValueError: a file is malformed, lacks a special token, or disagrees with the settings about ids.
    """
    kind = kind_of(settings)
    path = directory / "tokenizer.json"
    if path.is_file():
        backend = _backend_from_json(path, settings)
        _set_stages(path, backend, settings)
        if not any(name in settings for name in EXTRA_SPECIAL_TOKENS) and kind.extra_special_tokens:
            known = [token for token in kind.extra_special_tokens if backend.token_to_id(token) is not None]
            settings[EXTRA_SPECIAL_TOKENS[0]] = known
        _add_tokens(backend, settings)
        return backend
    path = directory / kind.files[0]
    backend = backend_from_vocabulary(directory, kind, settings)
    _add_tokens(backend, settings)
    for name in NEEDED:
        if backend.token_to_id(token_text(special_tokens_of(settings)[name])) is None:
            raise _no_entry(path, backend, token_text(special_tokens_of(settings)[name]))
    backend.post_processor = kind.template(partial(_special_token, path, backend, settings), settings)
    return backend


def _special_token(path: Path, backend: Tokenizer, settings: Mapping[str, Any], name: str) -> tuple[str, int]:
    """Return text and id of a special token by its name."""
    token = token_text(special_tokens_of(settings)[name])
    token_id = backend.token_to_id(token)
    if token_id is None:
        raise _no_entry(path, backend, token)
    return token, token_id


def _add_tokens(backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Add the tokens of the settings, in transformers' order: those with ids by rising ids, then special tokens.

    A named special token ([MASK]) that the vocabulary lacks stays unknown: no model has a row for it.
    """
    from tokenizers import AddedToken

    for token in settings.get("added_tokens", ()):
        is_known = backend.token_to_id(token.content) is not None
        backend.add_tokens([AddedToken(token.content, **token.flags)])
        found = backend.token_to_id(token.content)
        if token.token_id is None or found == token.token_id:
            continue
        if is_known:
            warnings.warn(
                f"{token.source} gives {token.content!r} the id {token.token_id}; its id in the vocabulary is {found}",
                stacklevel=4,
            )
        else:
            raise ValueError(
                f"{token.source} gives {token.content!r} the id {token.token_id}; expected {found}, the next one "
                "behind the vocabulary: added tokens have ids without gaps"
            )
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    stripped = [special_tokens_of(settings).get(name) for name in kind_of(settings).strips_before]
    named = [
        token for token in special_tokens_of(settings).values() if backend.token_to_id(token_text(token)) is not None
    ]
    for token in (*named, *extra_special_tokens_of(settings)):
        if token_text(token) not in added:
            flags = {
                "special": True,
                "lstrip": token in stripped,
                **({} if isinstance(token, str) else without(token, ("content", "__type", "id"))),
            }
            backend.add_tokens([AddedToken(token_text(token), **flags)])


def _no_entry(path: Path, backend: Tokenizer, token: str) -> ValueError:
    return ValueError(
        f"{path} has {backend.get_vocab_size(with_added_tokens=False)} entries and none of them is {token!r}; expected "
        + (
            "one token a line, the special tokens included"
            if path.suffix == ".txt"
            else "the special tokens among them"
        )
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


def _set_stages(path: Path, backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Give a tokenizer the stages that settings ask for, if its own are those of a style but for these settings."""
    kind = kind_of(settings)
    style = style_of(type(backend.model).__name__, kind.style)
    if style is None or style is WORDPIECE:
        return
    content = stages_as_json(backend)
    present = style.settings(content)
    asked = {**kind.settings, **settings}
    changed = {
        name: asked[name] for name in _OF_STAGES if name in present and asked.get(name) not in (None, present[name])
    }
    if not changed:
        return
    if stages_as_json(shell_with(style.stages(present))) != {**content, "post_processor": None}:
        name = next(iter(changed))
        if name in settings:
            warnings.warn(
                f"{path}: {name} is {changed[name]} in the settings and {present[name]} in the file, whose stages are "
                f"not those of {kind.name}; the file decides",
                stacklevel=5,
            )
        return
    set_stages(backend, style.stages(present | changed))
    if "add_prefix_space" in changed:
        set_offsets_of_prefix_space(backend, bool(changed["add_prefix_space"]))
