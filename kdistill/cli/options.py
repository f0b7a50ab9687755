"""The parser of the command line: the commands with their options, and the help of both."""

from __future__ import annotations

import textwrap
from argparse import SUPPRESS, Action, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from dataclasses import Field, fields
from typing import Any, NoReturn

from ..train.arguments import TrainingArguments
from ..train.fields import GROUPS, argument_types
from .command_list import COMMANDS
from .input_options import add_inputs


class CommandLineError(SystemExit):
    """The end of a program whose command line is wrong.

    Attributes:
        sentence: about the error, with the command whose help shows the options.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(2)
        self.sentence = sentence


class _Parser(ArgumentParser):
    """An argparse parser whose errors are one line, as all errors of the program."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{message} (see {self.prog} --help)")


class _Version(Action):
    """The action of `--version`, which loads the version only on request."""

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        from ..system.threads import show_config

        print(f"kdistill {show_config()['version']}")
        parser.exit()


RECIPE = "auto"
"""The default of `--recipe`, which in Python is that of transformers."""
_OUTPUT_OF_SEARCH = "directory for the study, the best hyperparameters and the logs of the trials"
_METAVARS = {int: "N", float: "X", str: "NAME", dict: "JSON", list: "A,B,..."}


def options_of(parser: ArgumentParser) -> dict[str, Action]:
    """Return the argparse action of every option of a command, by its name, such as `--learning-rate`."""
    # argparse has no public list of a parser's options.
    return {name: action for action in parser._actions for name in action.option_strings if name.startswith("--")}


def build_parsers() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the program, and that of each command by name."""
    parser = _Parser(
        prog="kdistill",
        description="Distil models of the BERT family on a CPU, without PyTorch.",
        epilog="Run kdistill COMMAND --help for the options of a command.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_command: dict[str, ArgumentParser] = {}
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            usage=f"kdistill {command.name} {command.usage} [options]",
            description=textwrap.fill(command.description, 100),
            epilog=f"example:\n  {command.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        add_inputs(subparser, command.name)
        if command.arguments is not None:
            _add_training_arguments(subparser, command.name, command.arguments, command.only)
        of_command[command.name] = subparser
    return parser, of_command


def _add_training_arguments(
    parser: _Parser, command: str, cls: type[TrainingArguments], only: tuple[str, ...] | None
) -> None:
    """Add one option per dataclass field; options that are not given are absent, so that the class's defaults hold."""
    kinds = argument_types(cls)
    for group_name in GROUPS:
        members = [
            field
            for field in fields(cls)
            if field.metadata["group"] == group_name and (only is None or field.name in only)
        ]
        group = parser.add_argument_group(group_name) if members else parser
        for field in members:
            kind, _ = kinds[field.name]
            # A mapping or list stays the text that it is: the class of arguments reads it.
            keywords: dict[str, Any] = {"type": str if kind in (dict, list) else kind, "metavar": _METAVARS.get(kind)}
            if field.metadata["several"]:
                keywords = {"metavar": "A,B,..."}
            elif field.metadata["choices"] is not None:
                keywords = {"choices": field.metadata["choices"]}
            elif kind is bool:
                keywords = {"action": BooleanOptionalAction}
            elif field.name.endswith("_dir"):
                keywords["metavar"] = "DIR"
            option = f"--{field.name.replace('_', '-')}"
            help = _OUTPUT_OF_SEARCH if command == "search" and field.name == "output_dir" else _help(field)
            group.add_argument(option, default=SUPPRESS, help=help, **keywords)


def _help(field: Field[Any]) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    default = RECIPE if field.name == "recipe" else field.metadata["default"]
    if default is None or default is False:
        return text
    return f"{text} (default: {'yes' if default is True else default})"
