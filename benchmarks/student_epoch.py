"""One epoch of distilling a 2-layer student from cached teacher logits in float32 and bfloat16, compared with PyTorch.

Both do forward, loss, backward, clipping and AdamW with dropout 0.1 and a constant learning rate. kdistill's batches
are random rows, and packing them is part of its time; PyTorch's batches are rows of similar length, padded beforehand,
in random order. PyTorch runs in eager mode and compiled. In bfloat16 both have float32 weights and moments and round
the operands of products; PyTorch does so under autocast. The dev rows that each student has right after its last epoch
are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kdistill as kd
from kdistill import _core
from kdistill.bench.other_runtimes import bucketed, forward_pass, torch_forward
from kdistill.data.columns import read_rows
from kdistill.data.dataset import Dataset, encode
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


def torch_epoch(
    model: Any, dataset: Dataset, soft: NDArray[np.float32], batch_size: int, *, compiled: bool, bf16: bool
) -> Callable[[], float]:
    """Return the same function for PyTorch."""
    training = torch_peer.Training(model, LEARNING_RATE, MAX_GRAD_NORM, compiled=compiled, bf16=bf16)
    batches = bucketed(dataset, batch_size)
    rng = np.random.default_rng(SEED)

    def epoch() -> float:
        order = rng.permutation(len(batches))
        return training.epoch(batches, order, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)

    if compiled:  # PyTorch compiles again for some shapes; do that before the clock starts
        _, each_shape = np.unique([batch.ids.shape for batch in batches], axis=0, return_index=True)
        training.epoch(batches, each_shape, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)
    return epoch


@dataclass(frozen=True)
class Contestant:
    """A student in training: a function that trains for one more epoch, and one that returns its logits of rows."""

    epoch: Callable[[], float]
    logits: Callable[[Dataset], NDArray[np.float32]]


def own_contestant(
    dataset: Dataset, soft: NDArray[np.float32], batch_size: int, *, dtype: str = "float32"
) -> Contestant:
    """Return kdistill's student, trained with products in the given type; it answers in float32 in every case."""
    student = common.student()
    student.training_dtype = dtype

    def logits(rows: Dataset) -> NDArray[np.float32]:
        student.training_dtype = "float32"
        return student.forward(rows.batch(np.arange(len(rows)))[0])

    return Contestant(kdistill_epoch(student, dataset, soft, batch_size), logits)


def torch_contestant(
    dataset: Dataset, soft: NDArray[np.float32], batch_size: int, *, compiled: bool = False, bf16: bool = False
) -> Contestant:
    """Return PyTorch's student."""
    torch.manual_seed(SEED)
    model = torch_peer.fresh(**common.STUDENT_SHAPE)
    epoch = torch_epoch(model, dataset, soft, batch_size, compiled=compiled, bf16=bf16)

    def logits(rows: Dataset) -> NDArray[np.float32]:
        return forward_pass(torch_forward(model.eval()), bucketed(rows, batch_size), num_labels=2)

    return Contestant(epoch, logits)


def contestants(
    dataset: Dataset, soft: NDArray[np.float32], batch_size: int, options: argparse.Namespace
) -> dict[str, Contestant]:
    """Return all sides by name, kdistill in float32 first."""
    sides = {"kdistill": own_contestant(dataset, soft, batch_size)}
    if options.bf16:
        sides["kdistill bf16"] = own_contestant(dataset, soft, batch_size, dtype="bfloat16")
    for bf16 in (False, True) if options.bf16 else (False,):
        name = "PyTorch bf16" if bf16 else "PyTorch"
        sides[name] = torch_contestant(dataset, soft, batch_size, bf16=bf16)
        if options.compiled:
            sides[f"{name}, compiled"] = torch_contestant(dataset, soft, batch_size, bf16=bf16, compiled=True)
    return sides


def measure(options: argparse.Namespace) -> None:
    """Run all sides with each batch size and report."""
    dataset, teacher = common.subjects(options)
    dev = encode(read_rows(options.eval), kd.AutoTokenizer.from_pretrained(options.teacher))
    soft = teacher_logits(teacher, dataset)
    rows, peak = len(dataset), common.peak(options.threads)
    lines: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for size in options.batch_sizes:
        sides = contestants(dataset, soft, size, options)
        losses: dict[str, list[float]] = {name: [] for name in sides}
        runs = {name: partial(_keep, losses[name], side.epoch) for name, side in sides.items()}
        times = common.alternate(runs, options.rounds)
        seconds = common.medians(times)
        of: dict[str, dict[str, Any]] = {}
        for name, side in sides.items():
            work = training_flops(common.student_config(), dataset.lengths, cls_only=name.startswith("kdistill"))
            share = 100 * work / seconds[name] / peak
            right = int((side.logits(dev).argmax(1) == dev.labels).sum())
            each = " ".join(f"{one:.2f}" for one in times[name])
            ratio = seconds[name] / seconds["kdistill"]
            lines.append((size, name, seconds[name], each, rows / seconds[name], ratio, share, losses[name][-1], right))
            of[name] = {"seconds": times[name], "median_seconds": seconds[name], "percent_of_peak": share,
                        "losses": losses[name], "dev_right": right}  # fmt: skip
        figures[str(size)] = {"of": of}
    header = ["batch", "", "seconds", "each round", "rows/s", "times kdistill's", "% of float32 peak",
              f"loss of epoch {options.rounds}", "dev rows right"]  # fmt: skip
    text = common.table(header, lines)
    text += f"\n\n{rows:,} distinct rows, {int(dataset.starts[-1]):,} tokens; {len(dev)} dev rows."
    text += f" Peak: {peak / 1e9:.0f} GF/s, {options.threads} threads."
    if options.bf16:
        text += f" kdistill's bfloat16 products: {_core.COMPUTE['bfloat16'] or 'portable C'}."
    common.report("Student epoch", text, {"rows": rows, "peak": peak, "of_batch_size": figures}, options)


def _keep(losses: list[float], epoch: Callable[[], float]) -> None:
    losses.append(epoch())


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 16], help="rows of a step, both sides")
    options.add_argument("--no-compiled", dest="compiled", action="store_false", help="leave out compiled PyTorch")
    options.add_argument("--no-bf16", dest="bf16", action="store_false", help="measure float32 alone")
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
