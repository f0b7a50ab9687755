"""The directory of a model of sentence-transformers: its pooling read and written beside the model's own files.

`modules.json` lists the modules that a text goes through, each with a folder of its own. Read are a Transformer, a
Pooling and perhaps a Normalize (https://sbert.net/docs/sentence_transformer/usage/custom_models.html).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..hub import MODULES_FILE, modules_of
from ..system.callers import level_outside
from ..system.files import read_json_object, write_json
from ..system.names import listing
from .configuration import Config
from .head_names import ENCODER, named_head
from .pooling import CLS, MEAN, PICKS, Pooling

POOLING_FOLDER, NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
TRANSFORMER_FILE = "sentence_bert_config.json"
SETTINGS_FILE = "config_sentence_transformers.json"
_CONFIG = "config.json"
_COSINE = "cosine"
WRITTEN_FILES = (
    MODULES_FILE,
    TRANSFORMER_FILE,
    f"{POOLING_FOLDER}/{_CONFIG}",
    f"{NORMALIZE_FOLDER}/{_CONFIG}",
)
"""What such a directory has beside the files of a model, ..."""
OPTIONAL_FILES = (*WRITTEN_FILES, SETTINGS_FILE)
"""... and with what is read and not written."""
_TOKENIZER_FILE = "tokenizer_config.json"
# Keys of 1_Pooling/config.json before version 6, which has one key, pooling_mode.
_OLDER_KEYS = {
    "pooling_mode_cls_token": CLS,
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_CHAIN = ("Transformer", "Pooling", "Normalize")
_EXPECTED = "expected a Transformer, a Pooling by mean or [CLS], and perhaps a Normalize; kdistill computes no other"


class SentenceFiles(NamedTuple):
    """What the directory states beside the model: its pooling, and tokens that texts are cut to (None: any)."""

    pooling: Pooling
    max_length: int | None


def has_sentence_files(directory: Path) -> bool:
    """Return whether a model's directory is one of sentence-transformers."""
    return _root(directory) is not None


def head_in(directory: Path, content: Mapping[str, Any], *, language_models: bool = False) -> str | None:
    """Return the head that the files of a checkpoint give it; None: none.

    Args:
        directory: where they are.
        content: its config.json, parsed.
        language_models: as in `head_names.named_head`.
    """
    if named_head(content) is None and has_sentence_files(directory):
        return ENCODER  # also of a language model, such as all-mpnet-base-v2 calls itself
    return named_head(content, language_models=language_models)


def config_in(directory: Path, config: Config, head: str) -> Config:
    """Return the configuration that a directory states as that of a model with this head.

    Where the checkpoint has another head, the columns that it was trained on are those of another task.
    """
    if head_in(directory, read_json_object(directory / _CONFIG)) not in (None, head):
        config = config.with_trained(config.trained_with.without_columns())
    return config.with_head(head)


def read_sentence_files(directory: Path) -> SentenceFiles | None:
    """Read how texts are embedded; None for a directory that is none of sentence-transformers.

    Args:
        directory: where the files of the Transformer are, the directory itself or a folder of it.

    Raises:
        ValueError: another module or pooling than those that are computed, or a malformed file; names the file.
    """
    root = _root(directory)
    if root is None:
        return None
    path, modules = root / MODULES_FILE, modules_of(root)
    kinds = [module.kind for module in modules]
    if tuple(kinds) not in (_CHAIN, _CHAIN[:2]):
        raise ValueError(f"{path} lists {', '.join(kinds)}; {_EXPECTED}")
    settings = _read(root / SETTINGS_FILE)
    if settings.get("default_prompt_name") is not None:
        raise ValueError(
            f"{root / SETTINGS_FILE}: default_prompt_name is {settings['default_prompt_name']!r}, a text before every "
            "text; kdistill adds none: take the entry out, and put the prompt before the texts yourself"
        )
    _warn_of_unkept(root / SETTINGS_FILE, settings)
    mode = _mode(root / modules[1].path / _CONFIG)
    if len(modules) == 3:
        _check_normalize(root / modules[2].path / _CONFIG)
    return SentenceFiles(Pooling(mode, len(modules) == 3), _max_length(directory / TRANSFORMER_FILE))


def _warn_of_unkept(path: Path, settings: Mapping[str, Any]) -> None:
    """Warn of settings that kdistill neither follows nor writes into what is saved."""
    prompts = settings.get("prompts") or {}
    named = [f"the prompts {listing(prompts)}"] if isinstance(prompts, Mapping) and any(prompts.values()) else []
    similarity = settings.get("similarity_fn_name")
    named += [] if similarity in (None, _COSINE) else [f"similarity_fn_name {similarity!r}"]
    if named:
        warnings.warn(
            f"{path} has {' and '.join(named)}: kdistill adds no prompt, compares by cosine, and writes no such file "
            "beside a model that it saves; put the prompts before the texts yourself, and copy the file",
            stacklevel=level_outside(),
        )


def config_of_sentences(directory: Path, config: Config) -> Config:
    """Return the configuration with the pooling that a directory states and, where it has none, its length of texts.

    Arguments and errors as in `read_sentence_files`; the configuration as it is for a directory of another kind.
    """
    found = read_sentence_files(directory)
    if found is None:
        return config
    if found.max_length is not None and config.trained_with.max_length is None:
        length = min(found.max_length, config.max_tokens)
        config = config.with_trained(replace(config.trained_with, max_length=length))
    return config.with_pooling(found.pooling)


def write_sentence_files(directory: Path, config: Config) -> None:
    """Write what makes the directory of a model with a pooling one that sentence-transformers opens, any version."""
    pooling = config.pooling
    assert pooling is not None
    folders = ["", POOLING_FOLDER, *([NORMALIZE_FOLDER] if pooling.normalize else [])]
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (folder, kind) in enumerate(zip(folders, _CHAIN, strict=False))
    ]
    keys = {key: mode == pooling.mode for key, mode in _OLDER_KEYS.items()}
    for folder in folders[1:]:
        (directory / folder).mkdir(exist_ok=True)
    write_json(directory / POOLING_FOLDER / _CONFIG, {"word_embedding_dimension": config.hidden_size, **keys})
    if pooling.normalize:
        write_json(directory / NORMALIZE_FOLDER / _CONFIG, {})
    length = config.trained_with.max_length or config.max_tokens
    write_json(directory / TRANSFORMER_FILE, {"max_seq_length": length, "do_lower_case": False})
    write_json(directory / MODULES_FILE, modules)  # last: it makes the others count


def _root(directory: Path) -> Path | None:
    """Return the directory with the modules.json of which a module, the Transformer, is in this one."""
    if (directory / MODULES_FILE).is_file():
        return directory
    above = directory.parent
    if (above / MODULES_FILE).is_file() and any(
        (above / module.path).resolve() == directory.resolve() for module in modules_of(above)
    ):
        return above
    return None


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _mode(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected the configuration of the pooling that {MODULES_FILE} lists")
    content = read_json_object(path)
    mode = content.get("pooling_mode")
    if mode is None:  # the older keys count where the newer is absent, as in version 6
        mode = [name for key, name in _OLDER_KEYS.items() if content.get(key)] or [MEAN]
    modes = [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in [*PICKS]:
        raise ValueError(f"{path}: the pooling is {json.dumps(mode)}; expected one of {', '.join(PICKS)}")
    return str(modes[0])


def _check_normalize(path: Path) -> None:
    names = {name: value for name, value in _read(path).items() if name.startswith("module_")}
    if any(value not in (None, "sentence_embedding") for value in names.values()):
        raise ValueError(f"{path}: {json.dumps(names)} normalises something else than the embedding; {_EXPECTED}")


def _max_length(path: Path) -> int | None:
    content = _read(path)
    if content.get("do_lower_case") and not _read(path.with_name(_TOKENIZER_FILE)).get("do_lower_case"):
        raise ValueError(
            f"{path}: do_lower_case is true, and its tokenizer keeps case; state it as do_lower_case in "
            f"{_TOKENIZER_FILE} instead, where the tokenizer finds it"
        )
    length = content.get("max_seq_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 3):
        raise ValueError(f"{path}: max_seq_length is {length!r}; expected a whole number of tokens, at least 3")
    return length
