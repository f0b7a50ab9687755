"""The settings beside a tokenizer's vocabulary, read as transformers reads them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system.files import read_json_object
from ..system.names import listing
from .encodings import NO_MAX_LENGTH
from .kinds import GENERIC, KINDS, guessed_kind, kind_of, named_kind, plain_name

SPECIAL_TOKEN_NAMES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
# Lists of more special tokens: the name in transformers 4, and in 5.
EXTRA_SPECIAL_TOKENS = ("additional_special_tokens", "extra_special_tokens")
# All may be absent. The last is the model's, which may name the class of its tokenizer.
SETTINGS_FILES = ("special_tokens_map.json", "tokenizer_config.json", "added_tokens.json", "config.json")
# Settings that are true or false; the second group may also be null, which means what their absence means.
_SWITCHES = ("do_lower_case", "tokenize_chinese_chars")
_OPTIONAL_SWITCHES = (
    "add_prefix_space", "clean_up_tokenization_spaces", "do_basic_tokenize", "keep_accents", "split_special_tokens",
    "strip_accents", "trim_offsets",
)  # fmt: skip
SIDES = ("right", "left")
# Settings that may also be given when a tokenizer is loaded, beside do_lower_case and model_max_length.
GIVEN_SETTINGS = (
    "add_prefix_space",
    "clean_up_tokenization_spaces",
    "model_input_names",
    "padding_side",
    "split_special_tokens",
    "truncation_side",
)
# Arguments of `AddedToken` that decide where it is found in a text.
MATCHING_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
# The classes of transformers that are Python code and read no tokenizer.json.
_PYTHON_CLASSES = (
    "BartphoTokenizer", "BertGenerationTokenizer", "BertJapaneseTokenizer", "BertweetTokenizer", "BioGptTokenizer",
    "BlenderbotSmallTokenizer", "ByT5Tokenizer", "CTRLTokenizer", "CanineTokenizer", "CharacterBertTokenizer",
    "CpmAntTokenizer", "CpmTokenizer", "EsmTokenizer", "FSMTTokenizer", "FlaubertTokenizer",
    "GPTNeoXJapaneseTokenizer", "GPTSw3Tokenizer", "KoBertTokenizer", "KoBERTTokenizer", "M2M100Tokenizer",
    "MarianTokenizer", "PLBartTokenizer", "PhobertTokenizer", "ProphetNetTokenizer", "RoCBertTokenizer",
    "RoFormerTokenizer", "SiglipTokenizer", "TapasTokenizer", "XLMTokenizer",
)  # fmt: skip
# Settings of BertJapaneseTokenizer -> their values that mean BERT's own tokenizer.
_JAPANESE_SETTINGS = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}


@dataclass(frozen=True)
class AddedTokenSetting:
    """A token that a file beside the vocabulary adds: its id if the file states one, and arguments of `AddedToken`."""

    source: str
    token_id: int | None
    content: str
    flags: Mapping[str, bool]


def token_text(token: Any) -> str:
    """Return the text of a token: a string, {"content": ...} as files write it, or an `AddedToken`."""
    return str(token["content"] if isinstance(token, Mapping) else getattr(token, "content", token))


def checked_side(name: str, side: str) -> str:
    """Return a value of `padding_side` or `truncation_side`. Raises ValueError for any but "right" and "left"."""
    if side not in SIDES:
        raise ValueError(f"{name} is {side!r}; expected 'right' or 'left'")
    return side


def input_names_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the columns of a call's result: those that the files list, or those of the kind.

    The class TokenizersBackend, which only transformers 5 writes, has no token types there.
    """
    if listed := settings.get("model_input_names"):
        return list(listed)
    has_types = settings.get("tokenizer_class") != "TokenizersBackend" and kind_of(settings).has_token_types
    return ["input_ids", *(("token_type_ids",) if has_types else ()), "attention_mask"]


def check_special_tokens_dict(tokens: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that no special token has, or one token where a list of them is expected."""
    known = (*SPECIAL_TOKEN_NAMES, *EXTRA_SPECIAL_TOKENS)
    for name, token in tokens.items():
        if name not in known or isinstance(token, (list, tuple)) != (name in EXTRA_SPECIAL_TOKENS):
            raise ValueError(
                f"special_tokens_dict[{name!r}] is {token!r}; expected a token for {', '.join(known[:-2])}, or a "
                "list of tokens for additional_special_tokens"
            )


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a directory, merged as transformers merges them.

    special_tokens_map.json overrides tokenizer_config.json, unless the latter has `added_tokens_decoder`, which newer
    files have. The tokens of added_tokens.json become `added_tokens`, a list of `AddedTokenSetting`.

    Raises:
        ValueError: a setting is malformed, or the files are those of a tokenizer that is not read here.
    """
    found = {}
    for name in SETTINGS_FILES:
        if (directory / name).is_file():
            found[name] = read_json_object(directory / name)
    special_map, config, added, model = (found.get(name, {}) for name in SETTINGS_FILES)
    for name in SETTINGS_FILES[:2]:
        check_settings(directory / name, found.get(name, {}))
    has_decoder = bool(config.get("added_tokens_decoder"))
    settings = {**special_map, **config} if has_decoder else {**config, **special_map}
    if not settings.get("tokenizer_class"):
        settings["tokenizer_class"] = model.get("tokenizer_class")
    for name in ("tokenizer_config.json", "config.json"):
        _check_no_code(directory / name, found.get(name, {}).get("auto_map"))
    _check_class(directory, settings)
    _choose_kind(directory, settings, model.get("model_type"))
    _warn_of_unused(directory / "tokenizer_config.json", settings)
    settings["added_tokens"] = _added_tokens(directory, settings, added)
    return settings


def _choose_kind(directory: Path, settings: dict[str, Any], model_type: Any) -> None:
    """Enter the class that is guessed where the files name none, or one that takes any vocabulary."""
    has_json = (directory / "tokenizer.json").is_file()
    class_name = settings.get("tokenizer_class")
    if class_name is None or (plain_name(class_name) in GENERIC and not has_json):
        kind = guessed_kind(model_type, (path.name for path in directory.iterdir()))
        if kind is not None:
            settings["tokenizer_class"] = kind.name


def special_tokens_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> token (text or object) of the special tokens that have names: those of the kind, bos_token, ..."""
    named = {name: token for name, token in settings.items() if name.endswith("_token") and _is_token(token)}
    return dict(kind_of(settings).special_tokens) | named


def extra_special_tokens_of(settings: Mapping[str, Any]) -> list[Any]:
    """Return the special tokens beyond those with a name of their own, as text or objects."""
    extra: list[Any] = []
    for name in EXTRA_SPECIAL_TOKENS:
        tokens = settings.get(name) or ()
        extra += tokens.values() if isinstance(tokens, Mapping) else tokens
    return extra


def check_settings(path: Path | str, settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first malformed setting; `path` is where it stands, for the message."""
    for name, (is_one, expected) in _EXPECTED.items():
        if name in settings and not is_one(settings[name]):
            raise ValueError(f"{path}: {name} is {settings[name]!r}; expected {expected}")
    for name, token in settings.items():
        if name in SPECIAL_TOKEN_NAMES or (name.endswith("_token") and isinstance(token, Mapping)):
            _check_token(path, name, token)
    for name in EXTRA_SPECIAL_TOKENS:
        tokens = settings.get(name)
        for token in tokens.values() if isinstance(tokens, dict) else tokens or ():
            if token is None:
                raise ValueError(f"{path}: {name} holds null; expected tokens")
            _check_token(path, name, token)


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and 1 <= value <= NO_MAX_LENGTH and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_input_names(value: Any) -> bool:
    return isinstance(value, list) and "input_ids" in value and all(map(_is_text, value))


def _is_token_type(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _or_null(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_one(value)


# Settings -> whether a value can be one, and the end of the message about another.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_SWITCHES, (lambda value: isinstance(value, bool), "true or false")),
    **dict.fromkeys(_OPTIONAL_SWITCHES, (lambda value: isinstance(value, bool | None), "true, false or null")),
    **dict.fromkeys(EXTRA_SPECIAL_TOKENS, (lambda value: isinstance(value, list | dict | None), "a list of tokens")),
    **dict.fromkeys(("model_max_length", "max_len"), (_or_null(_is_length), "a number of tokens")),
    **dict.fromkeys(("padding_side", "truncation_side"), (_or_null(SIDES.__contains__), "'right' or 'left'")),
    "model_input_names": (_or_null(_are_input_names), "a list of names with input_ids"),
    "pad_token_type_id": (_or_null(_is_token_type), "a token type"),
}


def _is_token(value: Any) -> bool:
    return bool(value) and isinstance(value, str | Mapping)


def _check_token(path: Path | str, name: str, token: Any) -> None:
    text = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(text, str | None) or (token is not None and text is None):
        raise ValueError(f"{path}: {name} is {token!r}; expected a token")
    if isinstance(token, Mapping):
        _flags_of(path, name, token)


def _flags_of(path: Path | str, name: str, token: Mapping[str, Any]) -> dict[str, bool]:
    """Return the arguments of `AddedToken` that a token object has."""
    flags = {flag: token[flag] for flag in (*MATCHING_FLAGS, "special") if flag in token}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise ValueError(f"{path}: {name} is {dict(token)!r}; expected true or false for {', '.join(flags)}")
    return flags


def _check_no_code(path: Path, auto_map: Any) -> None:
    """Raise ValueError for a tokenizer that is Python code beside the files."""
    code = auto_map.get("AutoTokenizer") if isinstance(auto_map, Mapping) else auto_map
    names = [name for name in (code if isinstance(code, list) else [code]) if name]
    if names:
        raise ValueError(
            f"{path}: auto_map names {names[0]!r}, a tokenizer with code of its own, which is not run here; expected "
            "files that stand alone: tokenize with transformers and give rows with input_ids, or remove auto_map if "
            "tokenizer.json alone gives the same ids"
        )


def _check_class(directory: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError when the files belong to a tokenizer that makes other ids of them."""
    remedy = "tokenize with transformers and give rows with input_ids"
    for name, own in _JAPANESE_SETTINGS.items():
        if settings.get(name) not in (None, own):
            raise ValueError(
                f"{directory}: {name} is {settings[name]!r} in tokenizer_config.json, a setting of "
                f"BertJapaneseTokenizer, which splits words by a dictionary; expected BertTokenizer's files: {remedy}"
            )
    class_name = settings.get("tokenizer_class")
    if class_name is None:
        return
    if not isinstance(class_name, str):
        raise ValueError(f"{directory}: tokenizer_class is {class_name!r}; expected the name of a class")
    name = plain_name(class_name)
    has_json = (directory / "tokenizer.json").is_file()
    if name in _PYTHON_CLASSES or not (has_json or name in GENERIC or named_kind(class_name)):
        what = "which is code that reads no tokenizer.json" if has_json else "whose vocabulary is not read here"
        raise ValueError(
            f"{directory}: tokenizer_class is {class_name!r}, {what}; expected "
            f"{listing(kind.name for kind in KINDS)} or a tokenizer.json: "
            + (remedy if name in _PYTHON_CLASSES else f"save its fast form with transformers, or {remedy}")
        )


def _warn_of_unused(path: Path, settings: Mapping[str, Any]) -> None:
    """Warn of settings of the tokenizers written in Python, which those of the package `tokenizers` do without."""
    for name, is_used in (("never_split", bool), ("do_basic_tokenize", lambda value: value is False)):
        value = settings.get(name)
        if is_used(value):
            warnings.warn(
                f"{path}: {name} is {value!r}; not used, as in the fast tokenizers of transformers", stacklevel=4
            )


def _added_tokens(directory: Path, settings: Mapping[str, Any], added: Mapping[str, Any]) -> list[AddedTokenSetting]:
    """Return the tokens of `added_tokens_decoder` and added_tokens.json, by rising ids."""
    tokens = []
    path = directory / "tokenizer_config.json"
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ValueError(f"{path}: added_tokens_decoder is a {type(decoder).__name__}; expected an object of tokens")
    for index, token in decoder.items():
        if not (index.isascii() and index.isdigit() and isinstance(token, dict) and _is_text(token.get("content"))):
            raise ValueError(f"{path}: added_tokens_decoder[{index!r}] is {token!r}; expected a token with its id")
        flags = _flags_of(path, f"added_tokens_decoder[{index!r}]", token)
        tokens.append(AddedTokenSetting(str(path), int(index), token["content"], flags))
    path = directory / "added_tokens.json"
    special = set(map(token_text, (*special_tokens_of(settings).values(), *extra_special_tokens_of(settings))))
    known = {token.content for token in tokens}
    for content, index in added.items():
        if type(index) is not int or index < 0:
            raise ValueError(f"{path}: {content!r} has the id {index!r}; expected a whole number")
        if content not in known:
            flags = {"normalized": content not in special, "special": content in special}
            tokens.append(AddedTokenSetting(str(path), index, content, flags))
    return sorted(tokens, key=lambda token: token.token_id or 0)


def without(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the settings without `names`."""
    return {name: value for name, value in settings.items() if name not in set(names)}
