"""`HfArgumentParser`, as transformers has it: a command line, a JSON file or a dict to instances of dataclasses."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import types
import typing
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .fields import argument_types, did_you_mean_argument
from .transformers_names import OTHER_ARGUMENTS, OtherArgument

_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


class HfArgumentParser(ArgumentParser):
    """A parser of scripts that were written for transformers: each field of the dataclasses is an option.

    Fields may be str, int, float, bool, a list of these, an enum or a Literal, or one of these or None. A field without
    a default is required. Training arguments have an option for every argument of transformers, as their constructor
    takes it (--do_train, --fp16). That of transformers takes the argument classes of kdistill, too: their fields alone.

    Args:
        dataclass_types: one dataclass, or several, such as (ModelArguments, TrainingArguments).
        kwargs: those of `argparse.ArgumentParser`.
    """

    def __init__(self, dataclass_types: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        several = isinstance(dataclass_types, Iterable)
        self.dataclass_types: list[Any] = list(dataclass_types) if several else [dataclass_types]
        for kind in self.dataclass_types:
            hints = typing.get_type_hints(kind)
            for field in dataclasses.fields(kind):
                if field.init:
                    self._add_field(field, hints[field.name])
        for other in OTHER_ARGUMENTS.values():
            owner = next((kind for kind in self.dataclass_types if _takes(kind, other.name)), None)
            if owner is not None and all(f"--{other.name}" not in action.option_strings for action in self._actions):
                self._add_other(other, owner)
        for action in self._actions:
            if any(issubclass(kind, TrainingArguments) and _takes(kind, action.dest) for kind in self.dataclass_types):
                action.default = SUPPRESS  # their own defaults hold, and they know that nobody gave them

    def _add_field(self, field: dataclasses.Field[Any], hint: Any) -> None:
        names = dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}"])
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        keywords: dict[str, Any] = {"help": str(field.metadata.get("help", "")).replace("%", "%%")}
        keywords |= {"default": default} if has_default else {"required": True}
        kind = _without_none(hint)
        if kind is bool:
            keywords.setdefault("default", False)
            keywords.pop("required", None)
            self.add_argument(*names, type=_as_bool, nargs="?", const=True, **keywords)
            if default is True:
                negative = dict.fromkeys(f"--no{name[1:] if '-' in name[2:] else '_' + name[2:]}" for name in names)
                self.add_argument(*negative, action="store_false", dest=field.name)
        elif typing.get_origin(kind) is list:
            self.add_argument(*names, type=typing.get_args(kind)[0], nargs="+", **keywords)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            values = [member.value for member in kind]
            self.add_argument(*names, type=type(values[0]), choices=values, **keywords)
        elif typing.get_origin(kind) is typing.Literal:
            values = list(typing.get_args(kind))
            self.add_argument(*names, type=type(values[0]), choices=values, **keywords)
        else:
            self.add_argument(*names, type=kind, **keywords)

    def _add_other(self, other: OtherArgument, owner: Any) -> None:
        """Add an argument of transformers that `owner` takes without having a field: given, it has its say there."""
        names = dict.fromkeys([f"--{other.name}", f"--{other.name.replace('_', '-')}"])
        keywords: dict[str, Any] = {"dest": other.becomes or other.name, "default": SUPPRESS, "help": SUPPRESS}
        kind = argument_types(owner)[other.becomes][0] if other.becomes is not None else type(other.default)
        if kind is bool:
            self.add_argument(*names, type=_as_bool, nargs="?", const=True, **keywords)
        elif isinstance(other.default, list) or any(isinstance(value, list) for value in other.harmless):
            self.add_argument(*names, nargs="+", **keywords)
        else:
            self.add_argument(*names, type=kind if kind in (int, float) else str, **keywords)

    def parse_args_into_dataclasses(
        self, args: Sequence[str] | None = None, return_remaining_strings: bool = False
    ) -> tuple[Any, ...]:
        """Parse words (default: those of the process) to an instance of each dataclass.

        Args:
            args: the words.
            return_remaining_strings: whether to return a list of the words that are no option, last.

        Returns:
            The instances in the order of the classes; then, if options were added to the parser, their namespace.
        """
        namespace, remaining = self.parse_known_args(args)
        if remaining and not return_remaining_strings:
            known = [name for action in self._actions for name in action.option_strings]
            self.error(f"there is no option {remaining[0]}{did_you_mean_argument(remaining[0], known)}")
        given = vars(namespace)
        made: list[Any] = []
        for kind in self.dataclass_types:
            names = [name for name in given if _takes(kind, name)]
            made.append(kind(**{name: given.pop(name) for name in names}))
        made += [namespace] if given else []
        return (*made, remaining) if return_remaining_strings else tuple(made)

    def parse_dict(self, args: Mapping[str, Any], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """Return an instance of each dataclass from a dict. Raises `ValueError` for a key that no class has."""
        taken = [{name: value for name, value in args.items() if _takes(kind, name)} for kind in self.dataclass_types]
        unknown = next((name for name in args if not any(name in values for values in taken)), None)
        if unknown is not None and not allow_extra_keys:
            known = [field.name for kind in self.dataclass_types for field in dataclasses.fields(kind) if field.init]
            raise ValueError(f"there is no argument {unknown!r}{did_you_mean_argument(unknown, known)}")
        return tuple(kind(**values) for kind, values in zip(self.dataclass_types, taken, strict=True))

    def parse_json_file(self, json_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """Return an instance of each dataclass from a JSON file with one object, as `parse_dict` does."""
        try:
            content = json.loads(Path(json_file).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{json_file} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{json_file} holds a {type(content).__name__}; expected an object of arguments")
        return self.parse_dict(content, allow_extra_keys=allow_extra_keys)


def _takes(kind: Any, name: str) -> bool:
    """Return whether a dataclass has an argument; training arguments take all those of transformers."""
    if any(field.init and field.name == name for field in dataclasses.fields(kind)):
        return True
    return name in OTHER_ARGUMENTS and issubclass(kind, TrainingArguments)


def _without_none(hint: Any) -> Any:
    """Return the type of a hint such as `int | None`; text, where text is one of several."""
    if not isinstance(hint, types.UnionType) and typing.get_origin(hint) is not typing.Union:
        return hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return str if str in kinds else kinds[0]


def _as_bool(word: str) -> bool:
    if word.lower() in _TRUE + _FALSE:
        return word.lower() in _TRUE
    raise ArgumentTypeError(f"{word!r} is neither true nor false")
