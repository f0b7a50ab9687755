"""The core's tests once more at every other instruction-set level, and what KDISTILL_ISA refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

from kdistill import _core

LEVELS = ("generic", "avx2", "avx512")
CORE_TESTS = sorted(str(path) for path in (TESTS / "core").glob("test_*.py") if path != Path(__file__))


def run(level: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "KDISTILL_ISA": level},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def test_the_levels_are_those_named_here() -> None:
    assert LEVELS[: len(_core.ISA_LEVELS)] == _core.ISA_LEVELS
    assert _core.ISA_LEVEL in _core.ISA_LEVELS


@pytest.mark.parametrize("level", [level for level in LEVELS if level != _core.ISA_LEVEL])
def test_core_at_level(level: str) -> None:
    if level not in _core.ISA_LEVELS:
        pytest.skip(f"this CPU or build lacks the instruction-set level {level}")
    assert len(CORE_TESTS) >= 14
    result = run(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE_TESTS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_the_one_asked_for_or_refused(level: str) -> None:
    result = run(level, "-c", "import kdistill; print(kdistill.show_config()['isa_level'])")
    if level in _core.ISA_LEVELS:
        assert result.stdout.strip() == level, result.stderr
    else:
        assert f"ImportError: KDISTILL_ISA is '{level}'; this CPU has at most {_core.ISA_LEVELS[-1]}" in result.stderr


def test_an_unknown_level() -> None:
    result = run("sse9", "-c", "import kdistill; kdistill.show_config()")
    last = result.stderr.strip().splitlines()[-1]
    assert last == "ImportError: KDISTILL_ISA is 'sse9'; expected generic, avx2 or avx512"


def test_an_empty_name_asks_for_the_best() -> None:
    result = run("", "-c", "import kdistill; print(kdistill.show_config()['isa_level'])")
    assert result.stdout.strip() in _core.ISA_LEVELS, result.stderr
