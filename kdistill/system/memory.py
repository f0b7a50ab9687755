"""Available memory, and workspace arrays that raise `MemoryError` when they would exceed it."""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .control_groups import group_directories

_MEMINFO = Path("/proc/meminfo")
_MOST_IN_MEMORY = 1 << 25  # bytes of an array that `large_zeros` keeps in memory
# Files of (limit, usage, statistics) and the statistic of clean file pages, which the kernel reclaims first, in cgroups
# of version 2 and version 1.
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file"),
)


def available_memory() -> int | None:
    """Return how many bytes this process can still allocate, or None where the system gives no figure.

    The smallest of the machine's available memory, swap included, and what the limits of the process's control groups
    leave.
    """
    amounts = [left for group in group_directories("memory") for left in _left_in(group)]
    if _MEMINFO.exists():
        kilobytes = {name: int(value.split()[0]) for name, value in _pairs(_MEMINFO, ":")}
        amounts.append((kilobytes["MemAvailable"] + kilobytes["SwapFree"]) * 1024)
    return min(amounts, default=None)


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library is glibc.

    glibc keeps it for each thread by itself, and so for threads that have ended, too.
    """
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def workspace(size: int, rows: int, tokens: int) -> NDArray[np.int8]:
    """Return an uninitialised int8 array of `size` bytes and a quarter more, for a forward or backward pass.

    The quarter is for larger batches to come: memory that is never touched costs nothing.

    Args:
        size: bytes that the pass needs.
        rows: rows of the batch, for the error message.
        tokens: tokens of the batch, for the error message.

    Raises:
        MemoryError: `size` is more than `available_memory()`; nothing has been allocated.
    """
    require_memory(
        size,
        f"a pass of {rows} rows with {tokens} tokens",
        "use smaller batches (per_device_train_batch_size with gradient_accumulation_steps, "
        "per_device_eval_batch_size) or shorter rows (max_length)",
    )
    return np.empty(size + size // 4, np.int8)


def large_zeros(shape: tuple[int, ...], dtype: Any, directory: Path | None) -> NDArray[Any]:
    """Return an array of zeros, of more than 32 MiB in a file that is mapped: the kernel can take its pages away.

    The file has no name, and its disk is free again when the array is gone. Where there is no room for one, the array
    is in memory.

    Args:
        shape: of the array.
        dtype: of its entries.
        directory: where the file is to lie; None: where temporary files do.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _MOST_IN_MEMORY:
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a signal that ends the process
                return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
        except OSError:
            pass
    return np.zeros(shape, dtype)


def require_memory(size: int, what: str, remedy: str) -> None:
    """Raise MemoryError if `what` needs more bytes than `available_memory()`; the message ends with the remedy."""
    available = available_memory()
    if available is not None and size > available:
        raise MemoryError(
            f"{what} needs {readable_size(size)} of memory and {readable_size(available)} are available; {remedy}"
        )


def _left_in(group: Path) -> Iterator[int]:
    """Yield the bytes that are left below the limit of a control group, if it has one."""
    for limit, use, statistics, cache in _CGROUP_FILES:
        if (group / limit).exists() and (most := (group / limit).read_text().strip()) != "max":
            reclaimable = int(dict(_pairs(group / statistics, " ")).get(cache, "0"))
            yield int(most) - int((group / use).read_text()) + reclaimable


def _pairs(path: Path, separator: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) for each line `name<separator>value` of a file."""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(separator)
        yield name, value.strip()


def readable_size(size: int) -> str:
    """Return bytes as MiB, or as GiB from one on."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
