"""A student's training step with products in float32 and in bfloat16: forward, backward and AdamW, on the core alone.

Both sides have the same batches of SST-2 rows, dropout 0.1 and a gradient of the logits that is made beforehand. Beside
the wall time stands the CPU time of all threads, which depends less on other programs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdistill import _core
from kdistill.data.batch import Batch
from kdistill.data.dataset import Dataset
from kdistill.system.memory import workspace
from kdistill.system.threads import aligned_zeros

from . import common

CONSTANTS = (5e-4, 0.9, 0.999, 1e-8, 0.0, 1.0)
SEED = 33


class Student:
    """A student of the core's own, its optimiser's state, and one step of both."""

    def __init__(self, dtype: str, threads: int) -> None:
        model = common.student()
        shape = model.architecture.encoder(model.config), model.architecture.head(model.head, model.config)
        self.flat = aligned_zeros(model.num_flat)
        self.flat[:] = model.flat_parameters
        self.gradients = aligned_zeros(len(self.flat))
        self.threads = threads
        self.core = _core.Model(*shape, self.flat, self.gradients, workspace, dtype=dtype)
        self.moments = aligned_zeros(len(self.flat)), aligned_zeros(len(self.flat))
        self.done = np.zeros(model.config.vocab_size + 1, np.int32)
        self.history: NDArray[np.float32] = np.zeros((4096, _core.ADAMW_CONSTANTS), np.float32)
        self.base = 0

    def _state(self, step: int) -> tuple[Any, ...]:
        return *self.moments, None, self.done, self.history, self.base, step

    def step(self, batch: Batch, dlogits: NDArray[np.float32]) -> None:
        """Do one step; rows of the word table catch up as a trainer has them do."""
        steps = int(self.done[-1])
        if steps - self.base == len(self.history):
            self.core.catch_up(self._state(steps), None, self.threads)
            self.base = steps
        if steps > self.base:
            self.core.catch_up(self._state(steps), batch.ids, self.threads)
        self.core.forward(*batch, True, SEED, steps, 0, self.threads)
        self.core.backward(dlogits, self.threads)
        self.core.adamw_step(self._state(steps + 1), CONSTANTS, self.threads)
        self.core.clear_gradients(self.threads)


def batches_of(dataset: Dataset, size: int) -> list[Batch]:
    """Return whole batches of random rows."""
    order = np.random.default_rng(SEED).permutation(len(dataset))
    return [dataset.batch(order[first : first + size])[0] for first in range(0, len(order) - size + 1, size)]


def clocked(run: Callable[[], None]) -> tuple[float, float]:
    """Return the wall time and the CPU time of a call, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(options: argparse.Namespace) -> None:
    """Take turns, a few steps each, and report."""
    dataset = common.tokenised(options.train, options.teacher, options.rows)
    batches = batches_of(dataset, options.batch_size)
    dlogits = np.random.default_rng(0).standard_normal((options.batch_size, 2), np.float32) / options.batch_size
    lines, figures = [], {}
    for threads in options.thread_counts:
        students = {dtype: Student(dtype, threads) for dtype in ("float32", "bfloat16")}
        times: dict[str, list[tuple[float, float]]] = {dtype: [] for dtype in students}
        for turn in range(options.rounds + 1):
            chosen = [batches[(turn * options.steps + i) % len(batches)] for i in range(options.steps)]
            for dtype, student in students.items():

                def steps(student: Student = student, chosen: list[Batch] = chosen) -> None:
                    for batch in chosen:
                        student.step(batch, dlogits)

                measured = clocked(steps)
                if turn:  # the first is a warm-up
                    times[dtype].append(measured)
        of = {d: [1e3 * statistics.median(t) / options.steps for t in zip(*times[d], strict=True)] for d in times}
        least = {d: [1e3 * min(t) / options.steps for t in zip(*times[d], strict=True)] for d in times}
        for dtype, (wall, cpu) in of.items():
            lines.append(
                (threads, dtype, wall, cpu, *least[dtype], of["float32"][0] / wall, of["float32"][1] / cpu,
                 least["float32"][1] / least[dtype][1])
            )  # fmt: skip
        figures[str(threads)] = {"wall_and_cpu_seconds": times, "steps": options.steps}
    header = ["threads", "products", "ms", "CPU ms", "least ms", "least CPU ms", "faster", "by CPU", "by least CPU"]
    text = common.table(header, lines)
    tokens = statistics.mean(len(batch.ids) for batch in batches)
    text += f"\n\n{options.batch_size} rows a step, {tokens:,.0f} tokens on average. Engines: {_core.COMPUTE}."
    common.report("Student step", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=41)
    common.add_data(options)
    options.add_argument("--batch-size", type=int, default=128, help="rows of a step")
    options.add_argument("--steps", type=int, default=4, help="steps of a turn")
    options.add_argument("--thread-counts", type=int, nargs="+", default=[2, 1], help="measured one after the other")
    options.set_defaults(rows=8000)
    measure(options.parse_args())


if __name__ == "__main__":
    main()
