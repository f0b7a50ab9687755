"""int8 files of `kdistill export` in OpenVINO: with ranges of training rows (QDQ), without, and the float32 file.

Each file runs in float32 (`f32`) and in bfloat16 (`bf16`, OpenVINO's own choice where the CPU has it), on development
rows in batches of similar length and one by one, in alternating rounds. Labels and divergences are those beside
kdistill's float32 logits; development rows for them are in batches, and so are training rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.bench.other_runtimes import (
    Forward,
    PaddedBatch,
    bucketed,
    forward_pass,
    openvino_forward,
    openvino_graph,
    padded,
)
from kdistill.data.columns import read_rows
from kdistill.data.dataset import Dataset, encode
from kdistill.metrics.classification import softmax

from . import common
from .forward import sample_of
from .openvino_peer import PRECISIONS

FIRST = "int8"
Logits = NDArray[np.float32]


class Rows(NamedTuple):
    """Rows in batches, and kdistill's float32 logits of them."""

    dataset: Dataset
    batches: Sequence[PaddedBatch]
    logits: Logits

    @classmethod
    def of(cls, model: kd.BertForSequenceClassification, dataset: Dataset, batch_size: int) -> Rows:
        """Return the rows in batches of similar length."""
        return cls(dataset, bucketed(dataset, batch_size), model.forward(dataset.batch(np.arange(len(dataset)))[0]))

    def other_labels(self, logits: Logits) -> int:
        """Return how many rows have another label than kdistill gives them in float32."""
        return int((logits.argmax(axis=1) != self.logits.argmax(axis=1)).sum())

    def divergence(self, logits: Logits) -> float:
        """Return the mean KL divergence from kdistill's probabilities, in nats."""
        expected, found = (softmax(of).astype(np.float64) for of in (self.logits, logits))
        return float((expected * np.log(expected / found)).sum(axis=1).mean())


def exported(model: Path, train: Path, range_rows: int, work: Path) -> dict[str, Path]:
    """Write a model's files into `work`, and return them by what `kdistill export` was asked for."""
    asked: Mapping[str, dict[str, Any]] = {
        FIRST: {"dtype": "int8"},
        "float32": {"dtype": "float32"},
        "int8 --data": {"dtype": "int8", "data": train, "rows": range_rows},
    }
    return {
        name: kd.export(model, work / f"{number}.onnx", format="onnx", **settings).path
        for number, (name, settings) in enumerate(asked.items())
    }


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    kd.set_num_threads(options.threads)
    model = kd.BertForSequenceClassification.from_pretrained(options.teacher).freeze()
    dev = encode(read_rows(options.eval), kd.AutoTokenizer.from_pretrained(options.teacher))
    evaluated = Rows.of(model, dev, options.batch_size)
    trained = Rows.of(
        model, common.tokenised(options.train, options.teacher, options.training_rows), options.batch_size
    )
    timed = sample_of(dev, options.rows or len(dev))
    works = {
        "batches": bucketed(timed, options.batch_size),
        "one by one": [padded(timed, np.array([row])) for row in range(len(timed))],
    }
    with tempfile.TemporaryDirectory() as work:
        files = exported(options.teacher, options.train, options.range_rows, Path(work))
        forwards: dict[tuple[str, str], Forward] = {}
        for name, path in files.items():
            for precision in PRECISIONS.values():
                graph = openvino_graph(path, options.threads, precision, hint={"PERFORMANCE_HINT": "LATENCY"})
                forwards[name, precision] = openvino_forward(graph)
        seconds = {what: _seconds(forwards, batches, options.rounds) for what, batches in works.items()}
        sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
        figures = {key: _figures(forward, evaluated, trained) for key, forward in forwards.items()}
    lines = [
        (
            *(name, precision, sizes[name]),
            *(seconds[what][FIRST, "f32"] / seconds[what][name, precision] for what in works),
            *figures[name, precision].values(),
        )
        for name, precision in forwards
    ]
    header = ["file", "precision", "MB", *(f"speed, {what}" for what in works), *figures[FIRST, "f32"]]
    all_figures = [
        {"file": name, "precision": precision, "seconds": {what: seconds[what][name, precision] for what in works}}
        | figures[name, precision]
        for name, precision in forwards
    ]
    title = f"int8 in OpenVINO, {len(timed)} rows timed, {len(dev)} and {len(trained.dataset)} compared"
    common.report(title, common.table(header, lines), {"files": sizes, "measured": all_figures}, options)


def _seconds(
    forwards: Mapping[tuple[str, str], Forward], batches: Sequence[PaddedBatch], rounds: int
) -> dict[tuple[str, str], float]:
    """Return the median seconds of each file's passes."""
    passes = {key: partial(forward_pass, forward, batches, num_labels=2) for key, forward in forwards.items()}
    for run in passes.values():
        run()  # warms up
    found = common.medians(common.alternate({" ".join(key): run for key, run in passes.items()}, rounds))
    return {key: found[" ".join(key)] for key in passes}


def _figures(forward: Forward, evaluated: Rows, trained: Rows) -> dict[str, float]:
    """Return what a file changes in the answers, and how many of them are right."""
    found = forward_pass(forward, evaluated.batches, num_labels=2)
    on_training_rows = forward_pass(forward, trained.batches, num_labels=2)
    return {
        "other label": evaluated.other_labels(found),
        "right": int((found.argmax(axis=1) == evaluated.dataset.labels).sum()),
        "other label, training rows": trained.other_labels(on_training_rows),
        "mean KL, training rows": trained.divergence(on_training_rows),
    }


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=3)
    common.add_data(options, sample=False)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--rows", type=int, default=48, help="development rows that are timed, at random (0: all)")
    options.add_argument("--training-rows", type=int, default=512, help="training rows that are compared")
    options.add_argument("--range-rows", type=int, default=128, help="training rows that show the ranges")
    options.add_argument("--batch-size", type=int, default=32)
    measure(options.parse_args())


if __name__ == "__main__":
    main()
