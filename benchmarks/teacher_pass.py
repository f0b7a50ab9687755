"""The teacher's pass over the training rows: kdistill beside PyTorch, f32.

PyTorch runs twice: as it comes, and with its linear layers packed for oneDNN.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from kdistill.cache import teacher_logits
from kdistill.data import Dataset

from . import common, torch_peer

SAMPLE_ROWS = 1024  # to choose the peer's batch size with


def fastest_batch_size(model: Any, dataset: Dataset, sizes: list[int], labels: int) -> int:
    """The batch size with which PyTorch is fastest on a sample, best of two tries each."""
    chosen = np.random.default_rng(1).permutation(len(dataset))[:SAMPLE_ROWS]
    batch, targets = dataset.batch(chosen)
    sample = Dataset(*batch, targets)
    times = {}
    for size in sizes:
        batches = torch_peer.bucketed(sample, size)
        run = partial(torch_peer.forward_pass, model, batches, labels)
        times[size] = min(common.seconds(run) for _ in range(2))
    return min(times, key=times.__getitem__)


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    dataset, teacher = common.subjects(options)
    labels = teacher.config.num_labels
    peers = {"PyTorch": torch_peer.load(options.teacher), "PyTorch, oneDNN": torch_peer.load_onednn(options.teacher)}
    if options.bfloat16:
        peers["PyTorch, bf16"] = torch_peer.load(options.teacher).to(torch.bfloat16)
    sizes = {name: fastest_batch_size(peer, dataset, options.peer_batch_sizes, labels) for name, peer in peers.items()}
    results: dict[str, np.ndarray] = {}

    def run_kdistill() -> None:
        results["kdistill"] = teacher_logits(teacher, dataset, enabled=False)

    def run_peer(name: str, batches: list[torch_peer.PaddedBatch]) -> None:
        results[name] = torch_peer.forward_pass(peers[name], batches, labels)

    runs: dict[str, Callable[[], None]] = {"kdistill": run_kdistill}
    for name, size in sizes.items():
        runs[name] = partial(run_peer, name, torch_peer.bucketed(dataset, size))
    times = common.alternate(runs, options.rounds)
    seconds, rows, tokens = common.medians(times), len(dataset), int(dataset.starts[-1])
    lines = [
        (
            name,
            sizes.get(name, "by tokens"),
            seconds[name],
            rows / seconds[name],
            seconds[name] / seconds["kdistill"],
            float(np.abs(results[name] - results["PyTorch"]).max()),
        )
        for name in runs
    ]
    text = common.table(
        ["", "batch size", "seconds", "rows/s", "times kdistill's", "largest logit difference from PyTorch f32"], lines
    )
    text += f"\n\n{rows:,} distinct rows, {tokens:,} tokens. PyTorch's batch sizes are the best of "
    text += f"{options.peer_batch_sizes} on {min(SAMPLE_ROWS, rows):,} rows."
    figures = {"rows": rows, "tokens": tokens, "batch_sizes": sizes, "seconds": times, "median_seconds": seconds}
    common.report("Teacher pass", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=3)
    common.add_data(options)
    options.add_argument(
        "--peer-batch-sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="PyTorch's, the best is taken"
    )
    options.add_argument("--bfloat16", action="store_true", help="a further row: PyTorch in bf16, other logits")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
