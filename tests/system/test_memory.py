"""A batch too large for memory is refused before anything is taken; how much there is, as the system's files say it."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bert_cases import SMALL, batch_of, gradient, random_dlogits, random_rows, wide_model

from kdistill.data.batch import Batch
from kdistill.system import control_groups, memory

MIB = 1 << 20


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_batch_larger_than_this_machine() -> None:
    model = wide_model(hidden_size=1024, num_attention_heads=8, intermediate_size=512, num_hidden_layers=1)
    dlogits = random_dlogits(model, 2)
    expected = gradient(model, batch_of(*random_rows([40, 3], model.config)), dlogits)
    before = peak_bytes()
    available = memory.available_memory()
    assert available is not None
    rows = 2 * available // (40 * 1024 * 4)  # the embeddings alone are twice what is there
    ids = np.zeros(rows * 40, np.int32)
    huge = Batch(ids, np.zeros_like(ids), np.arange(rows + 1, dtype=np.int64) * 40)
    with pytest.raises(MemoryError, match=rf"a pass of {rows} rows with {40 * rows} tokens needs [\d.]+ GiB of memory"):
        model.forward(huge, train=True)
    assert peak_bytes() - before < 8 * ids.nbytes + 64 * MIB
    assert model.tokens_in_step == 43
    np.testing.assert_array_equal(model.flat_gradients, expected)
    np.testing.assert_array_equal(gradient(model, batch_of(*random_rows([40, 3], model.config)), dlogits), expected)


def test_the_size_it_needs_is_the_size_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide_model(**SMALL)
    rows = random_rows([40] * 300, model.config)[0]
    monkeypatch.setattr(memory, "available_memory", lambda: MIB)
    with pytest.raises(MemoryError) as refused:
        model.forward(rows, train=True)
    assert model.core.workspace_bytes == 0
    monkeypatch.setattr(memory, "available_memory", lambda: None)  # the system does not say
    model.forward(rows, train=True)
    taken = model.core.workspace_bytes
    assert f"needs {taken / 1.25 / MIB:.1f} MiB of memory and 1.0 MiB are available; use smaller" in str(refused.value)


def test_what_is_available_here() -> None:
    available = memory.available_memory()
    assert available is not None
    page = os.sysconf("SC_PAGE_SIZE")
    swap = int(Path("/proc/meminfo").read_text().split("SwapTotal:")[1].split()[0]) * 1024
    assert os.sysconf("SC_AVPHYS_PAGES") * page / 4 < available < os.sysconf("SC_PHYS_PAGES") * page + swap


GROUPS = {
    "version 2": ("0::/a/b\n", "", ("memory.max", "memory.current", "inactive_file")),
    "version 1": (
        "5:cpu,cpuacct:/x\n4:memory:/a/b\n",
        "memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_the_smallest_limit_of_all_control_groups(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, controller, (limit, use, cache) = GROUPS[version]
    (tmp_path / "cgroup").write_text(own)
    (tmp_path / "meminfo").write_text("MemTotal: 999 kB\nMemAvailable:  900 kB\nSwapFree: 24 kB\n")
    monkeypatch.setattr(control_groups, "_OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "_GROUPS", tmp_path / "groups")
    group = tmp_path / "groups" / controller / "a" / "b"
    group.mkdir(parents=True)
    assert memory.available_memory() == 924 * 1024  # no limit
    for directory, numbers in ((group, ("max", "5000", "100")), (group.parent, ("90000", "30000", "700"))):
        if numbers[0] == "max" and version == "version 1":
            numbers = ("9223372036854771712", *numbers[1:])
        (directory / limit).write_text(f"{numbers[0]}\n")
        (directory / use).write_text(f"{numbers[1]}\n")
        (directory / "memory.stat").write_text(f"anon 1\n{cache} {numbers[2]}\nfile 3\n")
    assert memory.available_memory() == 90000 - 30000 + 700


def test_large_arrays_lie_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_IN_MEMORY", 4 * MIB)
    made, small = (memory.large_zeros((rows, 2), np.float32, tmp_path / "cache") for rows in (MIB, MIB // 2))
    before = anonymous_bytes()
    made += 1
    assert anonymous_bytes() - before < MIB
    small += 1
    assert small.base is None
    assert made.sum() == 2 * MIB == 2 * small.sum()
    assert not list((tmp_path / "cache").iterdir())


def test_without_room_on_the_disk_large_arrays_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory, "_MOST_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert memory.large_zeros((3, 2), np.float32, tmp_path).base is None


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


FREED_IN_A_THREAD = """
import threading
from pathlib import Path
from kdistill.system.memory import return_freed_memory

def work():
    blocks = [b"x" * 100_000 for _ in range(500)]  # too small for a mapping of their own
    pins.append(bytes(10_000))  # it keeps the heap below it
    del blocks

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

pins = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = anonymous()
return_freed_memory()
print(before - anonymous())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_memory_that_an_ended_thread_has_freed_goes_back_to_the_system() -> None:
    fresh = [sys.executable, "-c", FREED_IN_A_THREAD]  # an older heap has holes for all of it
    assert int(subprocess.run(fresh, check=True, capture_output=True).stdout) > 25 * MIB
