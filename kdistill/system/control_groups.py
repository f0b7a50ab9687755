"""The control groups of this process, by which containers limit its memory and CPUs (Linux, versions 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def group_directories(controller: str) -> Iterator[Path]:
    """Yield the directory of each control group that limits this process, from its own to the root.

    Args:
        controller: "memory" or "cpu"; version 2 has one tree for all.
    """
    if not _OWN_GROUPS.exists():
        return
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controllers
        group = root / path.lstrip("/")
        yield from (directory for directory in (group, *group.parents) if directory.is_relative_to(root))


def cpu_quota() -> int | None:
    """Return how many CPUs the control groups allow, a fraction counting as one, or None without a limit."""
    quotas = []
    for group in group_directories("cpu"):
        if (group / "cpu.max").exists():  # version 2: "200000 100000", or "max 100000"
            quota, period = (group / "cpu.max").read_text().split()
        elif (group / "cpu.cfs_quota_us").exists():  # version 1: "-1" without a limit
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        else:
            continue
        if quota not in ("max", "-1"):
            quotas.append(max(1, math.ceil(int(quota) / int(period))))
    return min(quotas, default=None)
