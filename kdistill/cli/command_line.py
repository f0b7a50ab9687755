"""The parser of a command line: understands older names, reads `--config`, and suggests corrections."""

from __future__ import annotations

import shlex
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..train.arguments import secret_arguments
from ..train.fields import did_you_mean_argument
from ..train.transformers_names import OTHER_ARGUMENTS
from .config_file import read_config_file
from .options import build_parsers, options_of

# Other names for a command -> the suggestion.
_ALSO_CALLED = {
    "train": "'finetune' or 'distill'",
    "fit": "'finetune' or 'distill'",
    "fine-tune": "'finetune'",
    "distillation": "'distill'",
    "eval": "'evaluate'",
    "test": "'evaluate'",
    "infer": "'predict'",
    "classify": "'predict'",
    "version": "'--version'",
    "help": "'--help'",
    "tune": "'search'",
    "hyperparameter-search": "'search'",
}
# Options of other programs -> why there is none of them.
_NOT_NEEDED = {
    "--tokenizer": "the tokenizer is read with the model",
    "--tokenizer-name": "the tokenizer is read with the model",
    "--device": "kdistill computes on the CPU",
    "--header": "a file without a header has the names of its columns in --columns",
    "--no-header": "a file without a header has the names of its columns in --columns",
}
# Options that `command.txt` leaves out, because they concern one call alone.
_NOT_REPEATED = ("resume", "json", "config", "help")


def parse(argv: Sequence[str]) -> Namespace:
    """Parse the words of a command line.

    An error ends the program as in argparse; the message for a misspelt word suggests the nearest one.

    Args:
        argv: the words, without the program's name.

    Returns:
        The options. `command_line` is a command that repeats the run, with the content of `--config` as options.
    """
    parser, of_command = build_parsers()
    if not argv:
        parser.print_help()
        raise SystemExit(2)
    name, words = argv[0], list(argv[1:])
    command = of_command.get(name)
    if command is None:
        if not name.startswith("-"):
            parser.error(f"there is no command {name!r}{_meant_command(name, of_command)}")
        return parser.parse_args(argv)
    known = options_of(command)
    words = [_known_option(command, known, word) for word in words]
    if "--config" in known:
        words = [*_words_of_config(known, words), *words]
    options, left_over = parser.parse_known_args([name, *words])
    if left_over:
        files = "; several files of rows are named by a pattern in quotes, such as --train 'part-*.tsv'"
        command.error(f"{left_over[0]!r} is an unexpected argument{files if Path(left_over[0]).is_file() else ''}")
    options.command_line = _command_line(options, known)
    return options


def _meant_command(name: str, known: Mapping[str, Any]) -> str:
    names = {command: repr(command) for command in known} | _ALSO_CALLED
    nearest = get_close_matches(name, names, n=1)
    return f"; did you mean {names[nearest[0]]}?" if nearest else f"; expected one of {', '.join(known)}"


def _known_option(command: ArgumentParser, known: Mapping[str, Action], word: str) -> str:
    """Return an option under its name here, for a name with underscores or an older name of transformers."""
    if not word.startswith("--") or word == "--" or " " in word.partition("=")[0]:  # a text, as argparse sees it too
        return word
    option, *value = word.split("=", 1)
    option = option.replace("_", "-")
    if option not in known:
        other = OTHER_ARGUMENTS.get(option[2:].replace("-", "_"))
        reason = did_you_mean_argument(option, known)
        if option == "--resume":
            reason = ": the same command goes on with what is there" if "--n-trials" in known else ""
        if other is not None and other.becomes is not None:
            option = f"--{other.becomes.replace('_', '-')}"
        elif other is not None:
            reason = f": {other.reason}"
        elif option in _NOT_NEEDED:
            reason = f": {_NOT_NEEDED[option]}"
        if option not in known:
            command.error(f"there is no option {word.split('=')[0]}{reason}")
    return "=".join([option, *value])


def _words_of_config(known: Mapping[str, Action], words: list[str]) -> list[str]:
    """Return the options in the file of `--config`. Those of the command line come after them and so override them."""
    path, given = "", {word.partition("=")[0] for word in words}
    for index, word in enumerate(words):
        option, _, value = word.partition("=")
        if option == "--config":
            path = value or "".join(words[index + 1 : index + 2])
    several = [name for name, action in known.items() if action.nargs == "+"]
    return read_config_file(path, switches_of(known), several, given) if path else []


def switches_of(known: Mapping[str, Action]) -> dict[str, bool]:
    """Return the options that a file may give -> whether it is a switch, of a command's options by name."""
    return {
        name: isinstance(action, BooleanOptionalAction)
        for name, action in known.items()
        if name not in ("--config", "--help") and not name.startswith("--no-")
    }


def _command_line(options: Namespace, known: Mapping[str, Action]) -> str:
    """Return a command that repeats this one: all options given, except secret ones and those for one call alone."""
    return shlex.join(["kdistill", options.command, *_words_given(options, known)])


def _words_given(options: Namespace, known: Mapping[str, Action]) -> list[str]:
    words, secret = [], secret_arguments()
    for action in dict.fromkeys(known.values()):
        value = getattr(options, action.dest, action.default)
        if value == action.default or action.dest in (*_NOT_REPEATED, *secret):
            continue
        option = action.option_strings[0]
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:  # a value that begins with a dash would be taken for an option
            several = isinstance(value, list)
            dashed = not several and str(value).startswith("-")
            words += [f"{option}={value}"] if dashed else [option, *map(str, value if several else [value])]
    return words


def words_for(command: str, options: Namespace, *, but: Collection[str]) -> list[str]:
    """Return the options of a parsed command that another command has too, as words.

    Args:
        command: the other command.
        options: those given to the first.
        but: names of arguments to leave out.
    """
    _, of_command = build_parsers()
    theirs = options_of(of_command[command])
    known = options_of(of_command[options.command])
    both = {name: action for name, action in known.items() if name in theirs and action.dest not in but}
    return _words_given(options, both)
