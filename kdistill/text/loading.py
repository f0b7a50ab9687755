"""Load a tokenizer: find its files, read them, and apply what the caller gives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hub import resolve
from ..keywords import location
from .kinds import FURTHER_FILES, VOCABULARY_FILES, Kind, named_kind
from .tokenizer_files import NEEDED, read_backend
from .tokenizer_settings import (
    GIVEN_SETTINGS,
    SETTINGS_FILES,
    check_settings,
    read_settings,
    special_tokens_of,
    token_text,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load(
    owner: str,
    kind: Kind | None,
    path_or_id: str | os.PathLike[str],
    do_lower_case: bool | None,
    model_max_length: int | None,
    keywords: Mapping[str, Any],
) -> tuple[Tokenizer, dict[str, Any]]:
    """Return a tokenizer of the package `tokenizers`, and its settings.

    Args:
        owner: the class whose `from_pretrained` is called.
        kind: the kind of tokenizer that is asked for; None: the one that the files name.
        path_or_id, do_lower_case, model_max_length, keywords: the arguments of `from_pretrained`.
    """
    others = dict(keywords)
    owner = f"{owner}.from_pretrained"
    given = {name: others.pop(name) for name in GIVEN_SETTINGS if name in others}
    check_settings(owner, given)
    where = location(others, owner, ["path_or_id", "do_lower_case", "model_max_length", *GIVEN_SETTINGS])
    needed, optional = [["tokenizer.json", *VOCABULARY_FILES]], (*SETTINGS_FILES, *FURTHER_FILES)
    directory = resolve(path_or_id, needed, optional=optional, **where)
    settings = read_settings(directory) | given
    if do_lower_case is not None:
        settings["do_lower_case"] = do_lower_case
    if model_max_length is not None:
        settings["model_max_length"] = model_max_length
    if kind is not None:
        _check_kind(directory, kind, settings.get("tokenizer_class"))
        settings["tokenizer_class"] = kind.name
    backend = read_backend(directory, settings)
    check_special_tokens(backend, settings, f"{directory}: ")
    _check_case(directory, lowers_case(backend), settings, do_lower_case)
    return backend, settings


def _check_kind(directory: Path, kind: Kind, class_name: str | None) -> None:
    """Raise `ValueError` when the files are those of another kind of tokenizer, with other special tokens."""
    found = named_kind(class_name)
    if found is not None and (found.style.type, found.special_tokens) != (kind.style.type, kind.special_tokens):
        raise ValueError(
            f"{directory}: the files are those of a {class_name}; expected a {kind.name}: load them with "
            "AutoTokenizer, or with the class of their name"
        )


def check_special_tokens(backend: Tokenizer, settings: Mapping[str, Any], where: str = "") -> None:
    """Raise `ValueError` when the vocabulary lacks a special token without which nothing can be encoded."""
    for name, token in special_tokens_of(settings).items():
        if name in NEEDED and backend.token_to_id(token_text(token)) is None:
            raise ValueError(
                f"{where}the vocabulary has no {name} {token_text(token)!r}; give the right files, or name the token "
                f'as "{name}" in tokenizer_config.json'
            )


def lowers_case(backend: Tokenizer) -> bool:
    """Return whether a tokenizer lowercases text."""
    return backend.normalizer is not None and backend.normalizer.normalize_str("A").strip() == "a"


def _check_case(directory: Path, lowers: bool, settings: Mapping[str, Any], do_lower_case: bool | None) -> None:
    """Warn when the normalizer does not do what the settings state; raise ValueError when the caller states it."""
    if settings.get("do_lower_case", lowers) == lowers:
        return
    text = (
        f"{directory}: do_lower_case is {settings['do_lower_case']}, and the normalizer of tokenizer.json "
        f"{'lowercases' if lowers else 'keeps case'}"
    )
    if do_lower_case is not None:
        raise ValueError(f"{text}; expected a BertNormalizer or ALBERT's, which have this setting")
    warnings.warn(f"{text}; the normalizer decides, as in transformers", stacklevel=4)
