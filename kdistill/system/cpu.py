"""The CPU as Linux describes it: its name and its maker."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def cpu_name() -> str:
    """Return the CPU's name in /proc/cpuinfo, else the architecture."""
    return _field("model name") or platform.machine()


def cpu_vendor() -> str:
    """Return the CPU's maker as CPUID spells it, such as "AuthenticAMD" or "GenuineIntel"; "" where nobody says."""
    return _field("vendor_id")


def _field(name: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(rf"^{name}\s*: (.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else ""
