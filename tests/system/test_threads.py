"""Threads, the instruction-set level, and what `show_config` says of an installation."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

import kdistill as kd
from kdistill import _core
from kdistill.system import threads as defaults
from kdistill.system.threads import aligned_zeros, isa_level, using_num_threads


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = kd.get_num_threads()
    yield
    kd.set_num_threads(before)


def in_a_new_process(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "KDISTILL_NUM_THREADS"}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_misspelt_public_name() -> None:
    done = in_a_new_process("import kdistill; kdistill.Trianer")
    assert "module 'kdistill' has no attribute 'Trianer'. Did you mean: 'Trainer'?" in done.stderr


def test_the_number_of_threads_is_what_was_set() -> None:
    for threads in (1, np.int64(3), 256):  # more than there are CPUs is allowed
        kd.set_num_threads(threads)
        assert kd.get_num_threads() == threads
        assert kd.show_config()["num_threads"] == threads


@pytest.mark.parametrize("threads", [0, -3, 257])
def test_a_number_of_threads_out_of_range_is_refused_and_changes_nothing(threads: int) -> None:
    kd.set_num_threads(2)
    with pytest.raises(ValueError, match=f"the number of threads is {threads}; expected a whole number from 1 to 256"):
        kd.set_num_threads(threads)
    assert kd.get_num_threads() == 2


def test_threads_of_one_python_thread() -> None:
    """A thread's setting concerns that thread alone, and ends with the block, however that ends."""
    kd.set_num_threads(7)
    elsewhere: list[int] = []

    def look() -> None:
        elsewhere.append(kd.get_num_threads())

    with using_num_threads(2):
        assert kd.get_num_threads() == 2
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        with contextlib.suppress(KeyError), using_num_threads(3):
            assert kd.get_num_threads() == 3
            raise KeyError
        assert kd.get_num_threads() == 2
    assert (elsewhere, kd.get_num_threads()) == ([7], 7)
    with (
        pytest.raises(ValueError, match="the number of threads is 0; expected a whole number from 1 to 256"),
        using_num_threads(0),
    ):
        pass


@pytest.mark.parametrize("threads", [2.5, "2", None])
def test_a_number_of_threads_of_another_type_is_refused(threads: Any) -> None:
    with pytest.raises(
        TypeError, match=f"the number of threads is {re.escape(repr(threads))}; expected a whole number"
    ):
        kd.set_num_threads(threads)


def test_threads_by_default() -> None:
    script = "import kdistill as kd; print(kd.get_num_threads())"
    run = in_a_new_process(script)
    assert run.stdout.strip() == str(min(len(os.sched_getaffinity(0)), 256)), run.stderr
    assert in_a_new_process(script, KDISTILL_NUM_THREADS="").stdout == run.stdout
    assert in_a_new_process(script, KDISTILL_NUM_THREADS="7").stdout.strip() == "7"


@pytest.mark.parametrize(
    ("told", "affinity", "quota", "expected"),
    [
        ({}, 64, None, 64),
        ({}, 64, 4, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 64, None, 16),
        ({"MPI_LOCALNRANKS": "4"}, 64, 8, 2),  # the quota is that of all of them
        ({"MV2_COMM_WORLD_LOCAL_SIZE": "4"}, 64, None, 16),
        ({"MPI_LOCALNRANKS": "4"}, 2, None, 2),  # each is bound to its own
        ({"MPI_LOCALNRANKS": "100"}, 64, None, 1),
    ],
)
def test_processes_of_a_launcher_share_the_cpus_of_their_host(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], affinity: int, quota: int | None, expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(affinity))
    monkeypatch.setattr(defaults, "cpu_quota", lambda: quota)
    for name in defaults._NEIGHBOURS:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert defaults._available_cpus() == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("two", "ValueError: KDISTILL_NUM_THREADS is 'two'; expected a whole number"),
        ("0", "ValueError: KDISTILL_NUM_THREADS is 0; expected a whole number from 1 to 256"),
        ("1000", "ValueError: KDISTILL_NUM_THREADS is 1000; expected a whole number from 1 to 256"),
    ],
)
def test_an_environment_that_makes_no_sense(value: str, message: str) -> None:
    run = in_a_new_process("import kdistill as kd; kd.get_num_threads()", KDISTILL_NUM_THREADS=value)
    assert run.stderr.strip().splitlines()[-1] == message


def test_show_config() -> None:
    config = kd.show_config()
    assert list(config) == [
        *("version", "isa_level", "isa_levels", "compute", "blis", "blis_kernels", "num_threads", "cpus"),
        *("compiler", "compiler_flags", "python", "numpy", "platform"),
    ]
    assert config["version"] == kd.__version__
    assert config["isa_level"] == isa_level() == _core.ISA_LEVEL
    assert config["isa_levels"][0] == "generic"
    assert config["isa_level"] in config["isa_levels"]
    assert re.fullmatch(r"\d+\.\d+.*", config["blis"])
    arm = platform.machine() == "aarch64"  # Debian's BLIS for arm64 has one set of kernels
    kernels = {"generic": "cortexa57" if arm else "generic", "neon": "cortexa57", "avx2": "haswell", "avx512": "skx"}
    assert config["blis_kernels"] == kernels[isa_level()]
    assert config["numpy"] == np.__version__
    # What the numbers rest on, see docs/numerics.md.
    flags = config["compiler_flags"]
    assert "-O3" in flags
    assert not re.search(r"-ffast-math|-Ofast|-march=native|-funsafe", flags)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_aligned_zeros(size: int) -> None:
    array = aligned_zeros(size)
    assert (array.shape, array.dtype) == ((size,), np.float32)
    assert not array.any()
    assert array.flags.c_contiguous
    assert not size or array.ctypes.data % 64 == 0
