"""Each allocation of a training step fails once: a MemoryError, an unchanged model, and the same bits afterwards.

allocation_sweep.py runs under failing_malloc.c, with every object of Python allocated by malloc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import SUPPORT, TESTS


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler for tests/support/failing_malloc.c")
    library = tmp_path_factory.mktemp("shim") / "failing_malloc.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SUPPORT / "failing_malloc.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def sweep(shim: Path, name: str) -> list[int]:
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    process = subprocess.run(
        [sys.executable, SUPPORT / "allocation_sweep.py", name],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return [int(number) for number in process.stdout.split()]


def test_every_allocation_of_a_step_fails_once(shim: Path) -> None:
    refused, allocations = sweep(shim, "steps")
    assert allocations > 50
    assert refused > allocations / 2, "most failures should be noticed; the rest are caches that do without"


def test_a_pool_that_gets_no_memory_or_no_threads(shim: Path) -> None:
    refused, allocations = sweep(shim, "pool")
    assert 2 <= refused <= allocations
