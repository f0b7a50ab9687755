"""A profile by kinds of work: a teacher's batch, a student's step and a student's inference batch.

Linux's `perf` samples one thread while it computes, without its start-up. A kind's microseconds are its share of the
samples times the measured time of a batch or step. For comparison the report gives the time of the products at the
peak.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.data.dataset import Dataset
from kdistill.distill.cache import BATCH_TOKENS, teacher_logits
from kdistill.models.flops import forward_flops, training_flops

from . import common
from .inference import ways
from .student_epoch import kdistill_epoch

WORKS = ("teacher batch", "student step", "student inference")
BATCH_SIZE = 128
# Kind of work -> functions of the core; the first pattern that matches decides.
KINDS = {
    "products with weights": r"^(run_tile|kernel_product|kernel_outer|finish_tile|matmul_edge|layer_tiles)",
    "packing": r"^kernel_pack|^pack_item|^transpose",
    "attention": r"^kernel_(matmul|softmax|dot)|attention|^forward_head|^head_|^keys_backward|^attend|copy_back",
    "activation": r"^kernel_(activate|tanh)",
    "LayerNorm": r"^kernel_normalize|^kd_norm",
    "dropout": r"^kernel_(dropout|random)|^philox|^random_blocks|^drop_(row|block)|^kd_dropout",
    "embeddings, sums and copies": r"^kernel_(add|sum|scale|multiply)|embed|memmove|memcpy|memset|^clear",
    "AdamW": r"adamw|^replay|^update_item|^deferred",
    "waiting for threads": r"^(await|serve|worker|take_items|begin_loop)",
}
TEACHER_ROWS, STUDENT_ROWS = 1500, 30_000  # some seconds of each


def workload(options: argparse.Namespace) -> tuple[Callable[[], object], int, float]:
    """Return what to profile: the run, its number of batches or steps, and the operations of all its products."""
    count = TEACHER_ROWS if options.work == "teacher batch" else STUDENT_ROWS
    options.rows = min(options.rows or count, count)
    dataset, teacher = common.subjects(options)
    steps = -(-len(dataset) // BATCH_SIZE)
    config = common.student_config()
    if options.work == "teacher batch":
        flops = forward_flops(teacher.config, dataset.lengths)
        batches = round(int(dataset.starts[-1]) / BATCH_TOKENS)
        return lambda: teacher_logits(teacher, dataset, enabled=False), max(1, batches), flops
    if options.work == "student step":
        soft: NDArray[np.float32] = np.random.default_rng(0).standard_normal((len(dataset), 2), np.float32)
        epoch = kdistill_epoch(common.student(), dataset, soft, BATCH_SIZE)
        return epoch, steps, training_flops(config, dataset.lengths)
    run = ways(common.student().freeze(), shuffled(dataset), BATCH_SIZE)["kdistill"]
    return run, steps, forward_flops(config, dataset.lengths)


def shuffled(dataset: Dataset) -> Dataset:
    """Return the rows in random order."""
    batch, labels = dataset.batch(np.random.default_rng(0).permutation(len(dataset)))
    return Dataset(*batch, labels)


def work(options: argparse.Namespace) -> None:
    """Run once to warm up, then with perf's sampling on, and print the figures; for a separate process."""
    run, steps, flops = workload(options)
    run()
    control, acknowledged = os.open(options.fifo / "control", os.O_WRONLY), os.open(options.fifo / "done", os.O_RDONLY)
    os.write(control, b"enable\n")
    os.read(acknowledged, 5)
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    os.write(control, b"disable\n")
    os.read(acknowledged, 5)
    print(json.dumps({"seconds": seconds / steps, "flops": flops / steps}))


def profile(options: argparse.Namespace, name: str, directory: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds and operations of a batch or step, and each function's share of its samples."""
    samples = directory / "perf.data"
    for fifo in ("control", "done"):
        (directory / fifo).unlink(missing_ok=True)
        os.mkfifo(directory / fifo)
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2999", "-D", "-1", "-o", str(samples),
              "--control", f"fifo:{directory / 'control'},{directory / 'done'}", "--"]  # fmt: skip
    child = [sys.executable, "-m", "benchmarks.profile", "--work", name, "--fifo", str(directory), "--threads", "1",
             "--rows", str(options.rows), "--shape", options.shape, "--teacher", str(options.teacher),
             "--train", str(options.train)]  # fmt: skip
    printed = subprocess.run([*record, *child], check=True, stdout=subprocess.PIPE, text=True).stdout
    report = ["perf", "report", "-i", str(samples), "--no-children", "-t", "|", "-F", "overhead,dso,symbol"]
    lines = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1]), dict(_functions(lines))


def _functions(report: str) -> Iterator[tuple[str, float]]:
    """Yield (library and function, share of the samples) from perf's report."""
    for line in report.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and fields[0].endswith("%"):
            function = re.sub(r"^\[.\] ", "", fields[2])
            yield f"{fields[1]} {function}", float(fields[0].rstrip("%")) / 100


def kind_of(function: str) -> str:
    """Return the kind of work of a function in perf's report."""
    library, _, symbol = function.partition(" ")
    for kind, pattern in KINDS.items():
        if (library.startswith(("_core", "libc."))) and re.search(pattern, symbol):
            return kind
    return "the rest of the core" if library.startswith("_core") else "Python, NumPy and the system"


def measure(options: argparse.Namespace) -> None:
    """Profile all works and report."""
    kd.set_num_threads(1)
    peak = common.peak(1)
    kinds: dict[str, dict[str, float]] = {name: {} for name in WORKS}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in WORKS:
            measured, functions = profile(options, name, Path(directory))
            for function, share in functions.items():
                kind = kind_of(function)
                kinds[name][kind] = kinds[name].get(kind, 0.0) + 1e6 * share * measured["seconds"]
            at_peak = 1e6 * measured["flops"] / peak
            largest = {function: share for function, share in functions.items() if share >= 0.002}
            figures[name] = {**measured, "us_of_kind": kinds[name], "us_at_peak": at_peak, "share_of": largest}
    names = sorted({kind for of in kinds.values() for kind in of}, key=lambda kind: -kinds["student step"].get(kind, 0))
    lines: list[list[Any]] = [[kind, *(round(kinds[name].get(kind, 0.0)) for name in WORKS)] for kind in names]
    lines.append(["all", *(round(1e6 * figures[name]["seconds"]) for name in WORKS)])
    lines.append(["the products at the peak", *(round(figures[name]["us_at_peak"]) for name in WORKS)])
    text = common.table(["us, one thread", *WORKS], lines)
    text += f"\n\nA batch is {BATCH_SIZE} rows; the teacher's, {BATCH_TOKENS:,} tokens. Peak: {peak / 1e9:.0f} GF/s."
    common.report("Profile", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    common.add_data(options)
    common.add_shape(options)
    options.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    options.add_argument("--fifo", type=Path, help=argparse.SUPPRESS)
    options.set_defaults(threads=1)
    given = options.parse_args()
    if given.work is None:
        measure(given)
    else:
        work(given)


if __name__ == "__main__":
    main()
