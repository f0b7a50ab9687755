"""The speed of each core in multiply-adds and in bfloat16 products, and threads kept on chosen cores.

On a virtual machine two cores need not be equally fast: their units for matrix products may be shared with other
machines. Multiply-adds are float32 in registers; the product is oneDNN's, of two matrices that stay in the L2 cache.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdistill import _core

from . import common

SIZE = 512  # rows and columns: 0.5 MiB an operand in bfloat16
ROUNDS = 20_000  # of multiply-adds, about a millisecond
TRIES = 15


def core_speeds() -> dict[int, dict[str, float]]:
    """Return the operations per second of each core that this process may use, by type; takes about 20 ms a core."""
    import torch

    threads, before = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    left, right = torch.ones((2, SIZE, SIZE), dtype=torch.bfloat16)
    speeds = {}
    try:
        for core in sorted(before):
            os.sched_setaffinity(0, {core})
            speeds[core] = {
                "float32": statistics.median(_multiply_adds_per_second() for _ in range(TRIES)),
                "bfloat16": 2 * SIZE**3 / statistics.median(_seconds_of_product(left, right) for _ in range(TRIES)),
            }
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)
    return speeds


def _seconds_of_product(left: Any, right: Any) -> float:
    import torch

    return common.seconds(lambda: torch.mm(left, right))


def _multiply_adds_per_second() -> float:
    operations = 0.0

    def run() -> None:
        nonlocal operations
        operations = _core.multiply_adds(ROUNDS, 1)

    seconds = common.seconds(run)
    return operations / seconds


def fastest_core(speeds: Mapping[int, Mapping[str, Any]]) -> int:
    """Return the core with the fastest bfloat16 products."""
    return max(speeds, key=lambda core: speeds[core]["bfloat16"])


def only_on(cores: Iterable[int]) -> None:
    """Let all threads of this process run on these cores alone."""
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:  # it ended meanwhile
            continue
