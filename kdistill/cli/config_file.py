"""The TOML file of `--config`: a command's options, under the names of the arguments."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..train.arguments import DistillationTrainingArguments, secret_arguments
from ..train.fields import argument_types, did_you_mean_argument
from ..train.transformers_names import OTHER_ARGUMENTS, translate


def read_config_file(
    path: str, known: Mapping[str, bool], several: Collection[str] = (), given: Collection[str] = ()
) -> list[str]:
    """Return the content of the file as words of a command line.

    The file's keys are options without their dashes, with underscores or hyphens: `learning_rate = 6e-5`,
    `resume = true`; an argument that is a mapping is a table. Names of transformers are understood as in
    `TrainingArguments`.

    Args:
        path: the TOML file.
        known: the command's options -> whether it is a switch.
        several: those that take several values, a list in the file.
        given: options of the command line, which take the place of such a list.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML or has an unknown key.
        TypeError: an option does not accept a value.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--config is {path!r}; there is no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    return words_of_options(path, content, known, several, given)


def words_of_options(
    path: str,
    content: Mapping[str, Any],
    known: Mapping[str, bool],
    several: Collection[str] = (),
    given: Collection[str] = (),
) -> list[str]:
    """Return options, by name, as words of a command line: the content of a file, or that of what `path` names.

    Raises `ValueError` and `TypeError` as `read_config_file`.
    """
    switches = {option[2:].replace("-", "_"): is_switch for option, is_switch in known.items()}
    words: list[str] = []
    for key, value in content.items():
        name = key.replace("-", "_")
        translated = translate(name, value, stacklevel=2) if name in OTHER_ARGUMENTS else (name, value)
        if translated is None:
            continue
        if translated[0] not in switches:
            raise ValueError(f"{path}: there is no option {key!r}{did_you_mean_argument(name, switches)}")
        if isinstance(translated[1], bool) != switches[translated[0]]:
            expected = "true or false" if switches[translated[0]] else "a value"
            raise TypeError(f"{path}: {key} is {_found(translated[0], value)}; expected {expected}")
        option = f"--{translated[0].replace('_', '-')}"
        if option in several and option in given:
            continue
        if option in several and isinstance(translated[1], list):
            words += _words_of_list(path, key, translated[0], translated[1])
        else:
            words.append(_word(path, key, translated[0], translated[1]))
    return words


def _words_of_list(path: str, key: str, name: str, values: list[Any]) -> list[str]:
    """Return the words of an option that takes several values: `--name a b`.

    A value that begins with a dash would be taken for an option there. Options with such values, texts, may be given
    several times.
    """
    each = [_word(path, key, name, value) for value in values]
    plain = [word.partition("=")[2] for word in each]
    if any(word.startswith("-") for word in plain):
        return each
    return [f"--{name.replace('_', '-')}", *plain]


def _word(path: str, key: str, name: str, value: Any) -> str:
    """Return the word of the option `name`, which the file calls `key`."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    kind, _ = argument_types(DistillationTrainingArguments).get(name, (str, False))
    if isinstance(value, dict) and kind in (dict, list):
        value = json.dumps(value)
    if isinstance(value, list) and kind is list:
        value = ",".join(map(str, value))
    if not isinstance(value, str | int | float):
        raise TypeError(f"{path}: {key} is {_found(name, value)}; expected a string, a number or a list of strings")
    return f"--{option}={value}"


def _found(name: str, value: Any) -> str:
    """Return how a message shows the value of the option `name`."""
    return "a secret" if name in secret_arguments() else _as_toml(value)


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "a table" if isinstance(value, dict) else repr(value)
