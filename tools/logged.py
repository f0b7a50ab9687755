"""Running a step of a tool with its output in a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class StepError(Exception):
    """A step failed, or this machine lacks something."""


def run_logged(
    command: list[str], log: Path, what: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run `command` with its output in `log`; print the end of it and raise `StepError` if it fails.

    Args:
        command: The words of the command.
        log: A file, overwritten.
        what: The step's name in the error.
        env: The whole environment of the command; by default that of this process.
        cwd: Where it runs; by default here.
    """
    with log.open("w") as file:
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False, env=env, cwd=cwd
        ).returncode
    if status:
        print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-30:]), file=sys.stderr)
        raise StepError(f"{what} ended with status {status}; its output is in {log}")
