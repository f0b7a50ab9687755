"""Real training killed or interrupted at moments nobody chose; `make torture` does the same for longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.paths import TESTS


@pytest.mark.parametrize(
    ("options", "kills"),
    [(["--kills", "20"], 20), (["--file-operations", "--every", "25"], 9), (["--interrupts", "20"], 20)],
    ids=["clock", "files", "interrupts"],
)
def test_killed_runs_end_bit_equal(options: list[str], kills: int) -> None:
    """In a process without threads, which forks its runs."""
    command = [sys.executable, TESTS / "whole" / "torture.py", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[0]) >= kills, run.stdout
