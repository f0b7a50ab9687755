"""One epoch of distilling a 2-layer student from cached teacher logits: kdistill beside PyTorch, f32 both.

Both sides do forward, loss, backward, clipping and AdamW with dropout 0.1 and a constant learning rate. kdistill's
batches are random rows; PyTorch's are rows of similar length, padded beforehand, in random order.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

import kdistill as kd
from kdistill.cache import teacher_logits
from kdistill.data import Dataset

from . import common, torch_peer

LEARNING_RATE, MAX_GRAD_NORM, ALPHA, TEMPERATURE, SEED = 5e-4, 1.0, 0.5, 4.0, 33


def kdistill_epoch(
    student: kd.BertForSequenceClassification, dataset: Dataset, soft: NDArray[np.float32], batch_size: int
) -> Callable[[], float]:
    """A function that trains for one more epoch and returns its mean loss."""
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


def torch_epoch(dataset: Dataset, soft: NDArray[np.float32], batch_size: int) -> Callable[[], float]:
    """The same in PyTorch."""
    torch.manual_seed(SEED)
    training = torch_peer.Training(torch_peer.fresh(**common.STUDENT_SHAPE), LEARNING_RATE, MAX_GRAD_NORM)
    batches = torch_peer.bucketed(dataset, batch_size)
    rng = np.random.default_rng(SEED)

    def epoch() -> float:
        order = rng.permutation(len(batches))
        return training.epoch(batches, order, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)

    return epoch


def measure(options: argparse.Namespace) -> None:
    """Run both and report."""
    dataset, teacher = common.subjects(options)
    soft = teacher_logits(teacher, dataset)
    student = kd.BertForSequenceClassification(kd.BertConfig(**common.STUDENT_SHAPE), seed=SEED)
    epochs = {
        "kdistill": kdistill_epoch(student, dataset, soft, options.batch_size),
        "PyTorch": torch_epoch(dataset, soft, options.batch_size),
    }
    losses: dict[str, list[float]] = {name: [] for name in epochs}
    runs = {name: lambda name=name: losses[name].append(epochs[name]()) for name in epochs}
    times = common.alternate(runs, options.rounds)
    seconds, rows = common.medians(times), len(dataset)
    lines = [
        (name, seconds[name], rows / seconds[name], seconds[name] / seconds["kdistill"], losses[name][-1])
        for name in runs
    ]
    text = common.table(["", "seconds", "rows/s", "times kdistill's", f"loss of epoch {options.rounds}"], lines)
    text += f"\n\n{rows:,} distinct rows, {int(dataset.starts[-1]):,} tokens, batch size {options.batch_size}."
    figures = {"rows": rows, "seconds": times, "median_seconds": seconds, "losses": losses}
    common.report("Student epoch", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    options.add_argument("--batch-size", type=int, default=128, help="rows of a training step, both sides")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
