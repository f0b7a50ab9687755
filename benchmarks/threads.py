"""The speed-up of --threads threads over 1: the teacher's pass, a student's epoch and its inference, kdistill alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.distill.cache import teacher_logits

from . import common
from .forward import sample_of
from .inference import ways
from .student_epoch import kdistill_epoch

BATCH_SIZE = 128


def with_threads(threads: int, run: Callable[[], object]) -> None:
    """Run with this many threads."""
    kd.set_num_threads(threads)
    run()


def measure(options: argparse.Namespace) -> None:
    """Run each piece of work with both numbers of threads in alternation and report."""
    dataset, teacher = common.subjects(options)
    for_teacher = sample_of(dataset, options.teacher_rows)
    soft: NDArray[np.float32] = np.random.default_rng(0).standard_normal((len(dataset), 2), np.float32)
    works: Mapping[str, Callable[[], object]] = {
        "teacher pass": lambda: teacher_logits(teacher, for_teacher, enabled=False),
        "student epoch, batch 128": kdistill_epoch(common.student(), dataset, soft, BATCH_SIZE),
        "student inference": ways(common.student().freeze(), dataset, BATCH_SIZE)["kdistill"],
    }
    lines, figures = [], {}
    for name, work in works.items():
        runs = {str(threads): partial(with_threads, threads, work) for threads in (1, options.threads)}
        times = common.alternate(runs, options.rounds)
        one, many = common.medians(times).values()
        lines.append((name, one, many, one / many))
        figures[name] = {"seconds": times, "times_faster": one / many}
    text = common.table(["", "seconds, 1 thread", f"{options.threads} threads", "times faster"], lines)
    text += f"\n\n{len(dataset):,} rows, {len(for_teacher):,} of them for the teacher ({teacher!r})."
    common.report("Threads", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    common.add_shape(options)
    options.add_argument("--teacher-rows", type=int, default=4000, help="rows of the teacher's pass")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
