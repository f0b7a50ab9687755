"""The core's tests once more at every other instruction-set level, and what KDISTILL_ISA refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

from kdistill import _core

LEVELS = ("generic", "neon", "avx2", "avx512")  # of the float32 kernels
ISAS = ("generic", "neon", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx")
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
    assert [name for name in ISAS if name in _core.ISA_LEVELS] == list(_core.ISA_LEVELS)
    assert _core.ISA_LEVEL in LEVELS


@pytest.mark.skipif(_core.ISA_LEVELS == ("generic",), reason="a build without kernels of one processor alone")
def test_the_instruction_sets_are_those_that_the_kernel_lists() -> None:
    flags = re.search(r"^flags\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if flags is None:
        pytest.skip("no processor of x86-64")
    listed = set(flags[1].split())
    avx512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
    needed = {
        "avx2": {"avx2", "fma"},
        "avx_vnni": {"avx2", "fma", "avx_vnni"},
        "avx512": avx512,
        "avx512_vnni": {*avx512, "avx512_vnni"},
        "avx512_bf16": {*avx512, "avx512_vnni", "avx512_bf16"},
        "amx": {*avx512, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
    }
    here = {isa for isa, flags in needed.items() if flags <= listed}
    assert here - {*_core.ISA_LEVELS} <= {"amx"}  # whose tiles the kernel may keep for itself
    assert {*_core.ISA_LEVELS} - {"generic"} <= here


@pytest.mark.parametrize("isa", ISAS)
def test_an_instruction_set_is_the_one_asked_for_or_refused(isa: str) -> None:
    result = run(isa, "-c", "from kdistill import _core; print(*_core.COMPUTE.values())")
    if isa not in _core.ISA_LEVELS:
        assert f"ImportError: KDISTILL_ISA is '{isa}'; this CPU has {', '.join(_core.ISA_LEVELS)}" in result.stderr
        return
    expected = {
        "generic": "generic None None",
        "neon": "neon None None",
        "avx2": "avx2 None avx2",
        "avx_vnni": "avx2 None avx_vnni",
        "avx512": "avx512 None avx2",
        "avx512_vnni": "avx512 None avx512_vnni",
        "avx512_bf16": "avx512 avx512_bf16 avx512_vnni",
        "amx": "avx512 amx amx",
    }
    assert result.stdout.strip() == expected[isa], result.stderr


def test_an_unknown_name() -> None:
    result = run("sse9", "-c", "import kdistill; kdistill.show_config()")
    last = result.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: KDISTILL_ISA is 'sse9'; expected one of {', '.join(ISAS)}"


def test_a_command_says_in_one_line_what_is_refused() -> None:
    result = run("amx|foo", "-m", "kdistill", "info")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"kdistill: error: KDISTILL_ISA is 'amx|foo'; expected one of {', '.join(ISAS)}\n"


def test_an_empty_name_asks_for_the_best() -> None:
    result = run("", "-c", "import kdistill; print(kdistill.show_config()['isa_level'])")
    assert result.stdout.strip() in _core.ISA_LEVELS, result.stderr


@pytest.mark.parametrize("level", [level for level in LEVELS if level != _core.ISA_LEVEL])
def test_core_at_level(level: str) -> None:
    if level not in _core.ISA_LEVELS:
        pytest.skip(f"this CPU or build lacks the instruction-set level {level}")
    assert len(CORE_TESTS) >= 14
    result = run(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE_TESTS)
    assert result.returncode == 0, result.stdout + result.stderr
