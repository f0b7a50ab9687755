"""Shell scripts that complete the words of `kdistill`, made from the commands' options."""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterator

from .command_list import COMMANDS
from .options import build_parsers, options_of

_BASH = """\
_kdistill() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case $before in
{choices}
        esac
        if [ -z "$words" ]; then
            case ${{COMP_WORDS[1]}} in
{options}
            esac
            case $word in -*) ;; *) words= ;; esac
            case ${{COMP_WORDS[1]}}:$COMP_CWORD in
{positionals}
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _kdistill kdistill
"""
_ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def script(shell: str) -> str:
    """Return the script for "bash", "zsh" or "fish". Where no option fits, the shell completes file names."""
    if shell == "fish":
        return "\n".join(_fish()) + "\n"
    return (_ZSH if shell == "zsh" else "") + _bash()


def _bash() -> str:
    _, parsers = build_parsers()
    choices: dict[str, str] = {}
    options, positionals = [], []
    for name, parser in parsers.items():
        known = options_of(parser)
        options.append(f'                {name}) words="{" ".join(known)}" ;;')
        choices |= {option: " ".join(action.choices) for option, action in known.items() if action.choices is not None}
        for action in _positionals(list(parser._actions)):
            positionals.append(f'                {name}:2) words="{" ".join(action.choices or ())}" ;;')
    return _BASH.format(
        commands=" ".join(parsers),
        choices="\n".join(f'            {option}) words="{values}" ;;' for option, values in choices.items()),
        options="\n".join(options),
        positionals="\n".join(positionals),
    )


def _fish() -> Iterator[str]:
    _, parsers = build_parsers()
    for command in COMMANDS:
        yield f"complete -c kdistill -n __fish_use_subcommand -f -a {command.name} -d {_quoted(command.summary)}"
    for name, parser in parsers.items():
        here = f"complete -c kdistill -n '__fish_seen_subcommand_from {name}'"
        for action in _positionals(list(parser._actions)):
            yield f"{here} -f -a {_quoted(' '.join(action.choices or ()))}"
        for option, action in options_of(parser).items():
            values = f" -x -a {_quoted(' '.join(action.choices))}" if action.choices is not None else ""
            takes = values or ("" if action.nargs == 0 else " -r")
            described = (action.help or "").replace("%%", "%")
            yield f"{here} -l {option[2:]}{takes} -d {_quoted(described)}"


def _positionals(actions: list[Action]) -> list[Action]:
    return [action for action in actions if not action.option_strings]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
