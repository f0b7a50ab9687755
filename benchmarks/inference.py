"""A student's evaluation of many rows in batches, from ids to logits, compared with other runtimes.

kdistill is measured in three ways: from a data set (cutting and packing batches is part of the time), from batches
packed beforehand, and from lists of token ids. The batches of PyTorch, ONNX Runtime and OpenVINO hold rows of similar
length and are padded beforehand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

import kdistill as kd
from kdistill.data.dataset import Dataset

from . import common, forward


def ways(
    student: kd.BertForSequenceClassification, dataset: Dataset, size: int
) -> dict[str, Callable[[], forward.Logits]]:
    """Return kdistill's ways to the logits of all rows, in their order, by name."""
    pieces = [np.arange(first, min(first + size, len(dataset))) for first in range(0, len(dataset), size)]
    packed = [dataset.batch(rows)[0] for rows in pieces]
    sentences = [ids.tolist() for ids in np.split(dataset.ids, dataset.starts[1:-1])]
    lists = [sentences[rows[0] : rows[-1] + 1] for rows in pieces]

    def run(batches: Callable[[], Iterable[Any]]) -> forward.Logits:
        return np.concatenate([student.forward(batch) for batch in batches()])

    return {
        "kdistill": partial(run, lambda: (dataset.batch(rows)[0] for rows in pieces)),
        "kdistill, packed before": partial(run, lambda: packed),
        "kdistill, from lists": partial(run, lambda: lists),
    }


def measure(options: argparse.Namespace) -> None:
    """Choose kdistill's batch size as that of the other runtimes, run all and report."""
    dataset = common.rows_of(options)
    student = common.student().freeze()
    sample = forward.sample_of(dataset, options.sample_rows)
    times = {}
    for size in options.batch_sizes:
        run = ways(student, sample, size)["kdistill"]
        times[size] = min(common.seconds(run) for _ in range(3))
    size = min(times, key=times.__getitem__)
    forward.compare(f"Student inference (kdistill's batch size {size})", student, dataset,
                    ways(student, dataset, size), options)  # fmt: skip


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    forward.add_options(options)
    measure(options.parse_args())


if __name__ == "__main__":
    main()
