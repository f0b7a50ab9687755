"""A reader of Dockerfiles, for the instructions that the project's own uses.

An instruction, flag or form it does not know is an error: tools/image.py must not carry out something else than Docker
would. Reference: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# With the flags that are understood.
KNOWN: dict[str, set[str]] = {
    "ARG": set(),
    "FROM": set(),
    "RUN": set(),
    "COPY": {"from"},
    "ENV": set(),
    "LABEL": set(),
    "EXPOSE": set(),
    "USER": set(),
    "WORKDIR": set(),
    "ENTRYPOINT": set(),
}


class DockerfileError(Exception):
    """The Dockerfile has something that this reader does not know, or that Docker would reject."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, its flags, the text behind them, and the line it begins on."""

    name: str
    flags: dict[str, str]
    text: str
    line: int

    def words(self, variables: dict[str, str]) -> list[str]:
        """Return the words of the text, with quotes removed and `variables` put in."""
        return [expand(word, variables, self) for word in shlex.split(self.text)]

    def exec_form(self) -> list[str] | None:
        """Return the list of a JSON array (the exec form), or None when the text has the shell form."""
        if not self.text.startswith("["):
            return None
        try:
            words = json.loads(self.text)
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self.error("begins with [ and is no JSON array of strings")
        return words

    def settings(self, variables: dict[str, str]) -> dict[str, str]:
        """Return the NAME=VALUE pairs of ENV and LABEL."""
        pairs = [word.partition("=") for word in self.words(variables)]
        if not pairs or not all(name and equals for name, equals, _ in pairs):
            raise self.error("needs NAME=VALUE")
        return {name: value for name, _, value in pairs}

    def error(self, problem: str) -> DockerfileError:
        return DockerfileError(f"line {self.line}: {self.name} {self.text!r} {problem}")


@dataclass
class Stage:
    """The instructions from one FROM to the next: its base and its name, None when it has none."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)


def expand(word: str, variables: dict[str, str], where: Instruction) -> str:
    """Put `variables` in the place of $NAME and ${NAME}. As in Docker, one that is not set is empty."""
    if re.search(r"\$\{\w+[^\w}]", word) or "\\" in word:
        raise where.error("has a form of substitution that this reader does not know")
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: variables.get(match[1] or match[2], ""), word)


def logical_lines(text: str) -> list[tuple[int, str]]:
    """Return lines joined where they end with a backslash, without comments and empty lines, each with its number."""
    lines: list[tuple[int, str]] = []
    parts: list[str] = []
    begin = 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        begin = begin if parts else number
        parts.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            lines.append((begin, " ".join(parts)))
            parts = []
    if parts:
        raise DockerfileError(f"line {begin}: ends with a backslash and nothing behind it")
    return lines


def read_instruction(line: int, text: str) -> Instruction:
    name, _, rest = text.partition(" ")
    name = name.upper()
    if name not in KNOWN:
        raise DockerfileError(f"line {line}: the instruction {name!r} is not known; expected one of {', '.join(KNOWN)}")
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s*", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    instruction = Instruction(name, flags, rest.strip(), line)
    if unknown := set(flags) - KNOWN[name]:
        raise instruction.error(f"has the flag --{min(unknown)}, which is not known here")
    if not instruction.text or "<<" in instruction.text:
        raise instruction.error("is empty or a here-document, which is not known here")
    return instruction


def read_stages(text: str, arguments: dict[str, str]) -> list[Stage]:
    """Return the stages of a Dockerfile.

    Args:
        text: of the Dockerfile.
        arguments: what --build-arg gives; those that stand before the first FROM have their defaults replaced.
    """
    defaults: dict[str, str] = {}
    stages: list[Stage] = []
    for line, content in logical_lines(text):
        instruction = read_instruction(line, content)
        if instruction.name == "FROM":
            match instruction.words(defaults):
                case [base]:
                    stages.append(Stage(base, None))
                case [base, word, name] if word.upper() == "AS":
                    stages.append(Stage(base, name))
                case _:
                    raise instruction.error("needs IMAGE, or IMAGE AS NAME")
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            defaults |= read_argument(instruction, arguments)
        else:
            raise instruction.error("stands before the first FROM")
    if not stages:
        raise DockerfileError("has no FROM")
    return stages


def read_argument(instruction: Instruction, arguments: dict[str, str]) -> dict[str, str]:
    """Return the name and value that ARG declares: the caller's, else its default."""
    name, equals, default = instruction.text.partition("=")
    if not equals or not name.isidentifier():
        raise instruction.error("needs NAME=DEFAULT")
    return {name: arguments.get(name, default)}


class Ignore:
    """The patterns of a .dockerignore: the last that fits a path, or a directory above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (not line.startswith("!"), _pattern(line.removeprefix("!")))
            for line in lines
            if line and not line.startswith("#")
        ]

    def __call__(self, path: PurePosixPath) -> bool:
        """Return whether `path`, relative to the context, is left out."""
        ignored = False
        candidates = [str(path), *(str(parent) for parent in path.parents if parent.name)]
        for ignores, pattern in self._rules:
            if any(pattern.fullmatch(candidate) for candidate in candidates):
                ignored = ignores
        return ignored


def _pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern: * within a name, ** over any number of directories."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    split = re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/"))
    return re.compile("".join(parts.get(part, re.escape(part)) for part in split))


def read_ignore(context: Path) -> Ignore:
    """Return the rules of the .dockerignore in `context`; none when there is no such file."""
    path = context / ".dockerignore"
    return Ignore(path.read_text() if path.exists() else "")
