"""The teacher cache at many millions of rows: time to append, to bring its index up to date and to look rows up.

The records are synthetic: random keys, two logits each, written a million at a time. Keys of real rows are hashes, as
random. The last million is appended 250 rows at a time, as a teacher does. Then a million rows that are there and a
million that are not are looked up, in a random order; the first look-up also makes the index. Anonymous memory is that
of the whole process, read 50 times a second. 100 million rows take 4.4 GB of disk, which is freed at the end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from kdistill.distill.cache import TeacherCache

from . import common
from .many_rows import PAUSE_SECONDS, anonymous_mebibytes

AT_ONCE, APPENDED = 1_000_000, 250


class _Peak:
    """The largest anonymous memory of this process since it was last asked for."""

    def __init__(self) -> None:
        self._largest, self._ended = 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._largest = max(self._largest, anonymous_mebibytes(os.getpid()))

    def taken(self) -> float:
        largest, self._largest = max(self._largest, anonymous_mebibytes(os.getpid())), 0.0
        return largest


def keys_of(part: int) -> np.ndarray:
    """Return a million keys, the same for the same part."""
    return np.frombuffer(np.random.default_rng(part).bytes(16 * AT_ONCE), "V16")


def measure(options: argparse.Namespace, directory: Path) -> None:
    """Fill a cache, look rows up and report."""
    peak, cache = _Peak(), TeacherCache(directory, "synthetic", 2)
    logits = np.random.default_rng(0).random((AT_ONCE, 2), np.float32)
    parts = options.rows // AT_ONCE
    for part in range(parts - 1):
        cache.append(keys_of(part), logits)
    last = keys_of(parts - 1)
    some = [keys_of(part)[:: parts // 2].copy() for part in range(0, parts, 2)]
    there, absent = np.random.default_rng(1).permutation(np.concatenate(some)), keys_of(parts + 1)
    blocks = [slice(first, first + APPENDED) for first in range(0, AT_ONCE, APPENDED)]
    found: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    for name, rows, work in (
        ("append, 250 rows at once", AT_ONCE, lambda: [cache.append(last[block], logits[block]) for block in blocks]),
        ("index", options.rows, lambda: cache.lookup(last[:1])),
        ("look-up of rows that are there", len(there), lambda: found.update(there=cache.lookup(there)[0].mean())),
        ("look-up of others", AT_ONCE, lambda: found.update(absent=cache.lookup(absent)[0].mean())),
    ):
        before, _, cpu = anonymous_mebibytes(os.getpid()), peak.taken(), time.process_time()
        seconds, cpu = common.seconds(work), time.process_time() - cpu
        figures[name] = {"rows": rows, "seconds": seconds, "cpu_seconds": cpu}
        figures[name] |= {"mebibytes": peak.taken(), "mebibytes_before": before}
    assert found == {"there": 1.0, "absent": 0.0}
    sizes = {path.suffix[1:]: path.stat().st_size / options.rows for path in directory.iterdir()}
    header = ["", "rows", "microseconds a row", "of the CPU", "anonymous memory, MiB", "before"]
    lines = [
        (name, of["rows"], *(of[key] / of["rows"] * 1e6 for key in ("seconds", "cpu_seconds")), *list(of.values())[3:])
        for name, of in figures.items()
    ]
    text = f"{options.rows:,} rows, bytes of a row: {sizes}\n\n{common.table(header, lines)}"
    common.report("Teacher cache", text, figures | {"bytes_of_a_row": sizes}, options)


def main() -> None:
    """Read the options and measure."""
    options = common.parser(__doc__)
    options.add_argument("--rows", type=int, default=100_000_000, help="records, a multiple of two million")
    options.add_argument("--directory", type=Path, help="where the cache is made (default: that of temporary files)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        measure(given, Path(directory))


if __name__ == "__main__":
    main()
