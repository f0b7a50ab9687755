"""Peaks of this machine: multiply-adds in registers and bytes to and from memory, with 1 to --threads threads.

Memory is measured as by STREAM's "add" (McCalpin, 1995): a = b + c over arrays several times larger than all caches,
12 bytes an element, each thread on a separate part.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from . import common

ELEMENTS = 1 << 26  # 256 MiB an array
BYTES_AN_ELEMENT = 3 * 4


def bandwidth(threads: int, rounds: int) -> float:
    """Return the bytes per second of a = b + c, the best of several rounds."""
    a, b, c = (np.full(ELEMENTS, value, np.float32) for value in (0.0, 1.0, 2.0))
    cuts = np.linspace(0, ELEMENTS, threads + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(cuts)]
    with ThreadPoolExecutor(threads) as pool:

        def add() -> None:
            for done in [pool.submit(np.add, b[part], c[part], out=a[part]) for part in parts]:
                done.result()

        return BYTES_AN_ELEMENT * ELEMENTS / min(common.seconds(add) for _ in range(rounds))


def measure(options: argparse.Namespace) -> None:
    """Measure for each number of threads and report."""
    figures, lines = {}, []
    for threads in range(1, options.threads + 1):
        flops = common.peak(threads)
        rate = bandwidth(threads, options.rounds)
        figures[str(threads)] = {"flops_per_second": flops, "bytes_per_second": rate}
        lines.append((threads, flops / 1e9, rate / 1e9))
    text = common.table(["threads", "float32 GF/s", "GB/s"], lines)
    common.report("Peaks of this machine", text, figures, options)


def main() -> None:
    """Read the options."""
    measure(common.parser(__doc__, rounds=7).parse_args())


if __name__ == "__main__":
    main()
