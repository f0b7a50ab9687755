"""A check that a wheel is self-contained: the symbols its extension exports, the libraries it links to, its size.

Usage: python tools/check_wheel.py WHEEL
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

LARGEST_BYTES = 8_000_000
EXPORTED = {"PyInit__core"}
# The C library, in parts as in older versions. Neither BLIS nor OpenMP may be among them.
LINKED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def _exported(elf: ELFFile) -> set[str]:
    table = elf.get_section_by_name(".dynsym")
    assert isinstance(table, SymbolTableSection)
    return {s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF" and s.name}


def _linked(elf: ELFFile) -> set[str]:
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    return {tag.needed for tag in section.iter_tags("DT_NEEDED")}


def problems(wheel: Path) -> list[str]:
    """Return what is wrong with the wheel, one line for each problem."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        extensions = [name for name in archive.namelist() if name.endswith(".so")]
        if extensions != ["kdistill/_core.abi3.so"]:
            found.append(f"shared objects are {extensions}; expected kdistill/_core.abi3.so alone")
        for name in extensions:
            elf = ELFFile(io.BytesIO(archive.read(name)))
            if more := _exported(elf) - EXPORTED:
                found.append(f"{name} exports {sorted(more)[:5]} ({len(more)} in all); expected {sorted(EXPORTED)}")
            if more := _linked(elf) - LINKED:
                found.append(f"{name} links to {sorted(more)}; expected the C library alone")
    if wheel.stat().st_size > LARGEST_BYTES:
        found.append(f"{wheel.stat().st_size:,} bytes; expected at most {LARGEST_BYTES:,}")
    return found


def main() -> None:
    wheel = Path(sys.argv[1])
    found = problems(wheel)
    for line in found:
        print(f"{wheel.name}: {line}", file=sys.stderr)
    if found:
        raise SystemExit(1)
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, one symbol exported, nothing linked but the C library")


if __name__ == "__main__":
    main()
