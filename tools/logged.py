"""What tools of several steps share: a step with its output in a file, and how the tool ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
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


def exit_status(tool: str, work: Callable[[], int], *errors: type[Exception]) -> int:
    """Return what `work` returns; after `StepError` or one of `errors`, which is printed, 1; after Ctrl-C, 130."""
    try:
        return work()
    except (StepError, *errors) as error:
        print(f"{tool}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
