"""One epoch of distilling a 2-layer student from cached teacher logits in float32, compared with PyTorch.

Both do forward, loss, backward, clipping and AdamW with dropout 0.1 and a constant learning rate. kdistill's batches
are random rows, and packing them is part of its time; PyTorch's batches are rows of similar length, padded beforehand,
in random order. PyTorch runs in eager mode and compiled.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kdistill as kd
from kdistill.bench.other_runtimes import bucketed
from kdistill.data.dataset import Dataset
from kdistill.distill.cache import teacher_logits
from kdistill.models.flops import training_flops

from . import common, torch_peer
from .common import SEED

LEARNING_RATE, MAX_GRAD_NORM, ALPHA, TEMPERATURE = 5e-4, 1.0, 0.5, 4.0


def kdistill_epoch(
    student: kd.BertForSequenceClassification, dataset: Dataset, soft: NDArray[np.float32], batch_size: int
) -> Callable[[], float]:
    """Return a function that trains for one more epoch and returns its mean loss."""
    optimizer = kd.AdamW(student, lr=LEARNING_RATE, weight_decay=0.0)
    rng = np.random.default_rng(SEED)

    def epoch() -> float:
        order, losses = rng.permutation(len(dataset)), []
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            batch, labels = dataset.batch(rows)
            logits = student.forward(batch, train=True)
            loss, dlogits = kd.distillation_loss(logits, soft[rows], labels, alpha=ALPHA, temperature=TEMPERATURE)
            student.backward(dlogits)
            kd.clip_grad_norm_(student, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
        return float(np.mean(losses))

    return epoch


def torch_epoch(dataset: Dataset, soft: NDArray[np.float32], batch_size: int, *, compiled: bool) -> Callable[[], float]:
    """Return the same function for PyTorch."""
    torch.manual_seed(SEED)
    model = torch_peer.fresh(**common.STUDENT_SHAPE)
    training = torch_peer.Training(model, LEARNING_RATE, MAX_GRAD_NORM, compiled=compiled)
    batches = bucketed(dataset, batch_size)
    rng = np.random.default_rng(SEED)

    def epoch() -> float:
        order = rng.permutation(len(batches))
        return training.epoch(batches, order, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)

    if compiled:  # PyTorch compiles again for some shapes; do that before the clock starts
        _, each_shape = np.unique([batch.ids.shape for batch in batches], axis=0, return_index=True)
        training.epoch(batches, each_shape, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)
    return epoch


def contestants(
    dataset: Dataset, soft: NDArray[np.float32], batch_size: int, *, compiled: bool
) -> dict[str, Callable[[], float]]:
    """Return, for each side, a function that trains for one more epoch."""
    sides = {
        "kdistill": kdistill_epoch(common.student(), dataset, soft, batch_size),
        "PyTorch": torch_epoch(dataset, soft, batch_size, compiled=False),
    }
    if compiled:
        sides["PyTorch, compiled"] = torch_epoch(dataset, soft, batch_size, compiled=True)
    return sides


def measure(options: argparse.Namespace) -> None:
    """Run all sides with each batch size and report."""
    dataset, teacher = common.subjects(options)
    soft = teacher_logits(teacher, dataset)
    rows, peak = len(dataset), common.peak(options.threads)
    lines: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for size in options.batch_sizes:
        epochs = contestants(dataset, soft, size, compiled=options.compiled)
        losses: dict[str, list[float]] = {name: [] for name in epochs}
        runs = {name: partial(_keep, losses[name], epoch) for name, epoch in epochs.items()}
        times = common.alternate(runs, options.rounds)
        seconds = common.medians(times)
        of: dict[str, dict[str, Any]] = {}
        for name in runs:
            work = training_flops(common.student_config(), dataset.lengths, cls_only=name == "kdistill")
            share = 100 * work / seconds[name] / peak
            ratio = seconds[name] / seconds["kdistill"]
            lines.append((size, name, seconds[name], rows / seconds[name], ratio, share, losses[name][-1]))
            of[name] = {"seconds": times[name], "median_seconds": seconds[name], "percent_of_peak": share,
                        "losses": losses[name]}  # fmt: skip
        figures[str(size)] = {"of": of}
    header = ["batch", "", "seconds", "rows/s", "times kdistill's", "% of peak", f"loss of epoch {options.rounds}"]
    text = common.table(header, lines)
    text += f"\n\n{rows:,} distinct rows, {int(dataset.starts[-1]):,} tokens."
    text += f" Peak: {peak / 1e9:.0f} GF/s, {options.threads} threads."
    common.report("Student epoch", text, {"rows": rows, "peak": peak, "of_batch_size": figures}, options)


def _keep(losses: list[float], epoch: Callable[[], float]) -> None:
    losses.append(epoch())


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 16], help="rows of a step, both sides")
    options.add_argument("--no-compiled", dest="compiled", action="store_false", help="leave out compiled PyTorch")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
