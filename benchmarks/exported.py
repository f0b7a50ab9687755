"""Graphs of `kdistill export` in ONNX Runtime, beside those of PyTorch's exporter: in batches and one row at a time.

Each graph runs as it was exported, and after ONNX Runtime's optimiser for transformers, with all threads on one batch.
Batches hold rows of similar length and are padded before the clock starts; rounds alternate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.bench.other_runtimes import (
    Forward,
    PaddedBatch,
    bucketed,
    export_onnx,
    forward_pass,
    onnx_session,
    optimize_onnx,
    padded,
)

from . import common
from .forward import sample_of

FIRST = "kdistill export"


def graphs(model: kd.BertForSequenceClassification, work: Path) -> dict[str, Path]:
    """Write the graphs of both exporters into `work`, optimised and not, and return their files by name."""
    directory = work / "model"
    model.save_pretrained(directory)
    kd.export(model, work / "ours.onnx", format="onnx")
    export_onnx(directory, work / "theirs.onnx")
    files = {}
    for name, path in ((FIRST, work / "ours.onnx"), ("PyTorch's exporter", work / "theirs.onnx")):
        fused = path.with_name(f"{path.stem}-fused.onnx")
        optimize_onnx(path, fused, model.config)
        files |= {name: path, f"{name}, optimiser": fused}
    return files


def fused_operators(path: Path) -> dict[str, int]:
    """Return how many operators of each kind that the optimiser makes are in a graph."""
    import onnx

    kinds = [node.op_type for node in onnx.load(path).graph.node if node.domain == "com.microsoft"]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    dataset, teacher = common.subjects(options)
    singles = sample_of(dataset, options.singles)
    lines: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for title, model in (("student", common.student().freeze()), ("teacher", teacher)):
        with tempfile.TemporaryDirectory() as work:
            files = graphs(model, Path(work))
            fused = {name: fused_operators(path) for name, path in files.items()}
            forwards = {name: onnx_session(path, options.threads) for name, path in files.items()}
            work_of = {
                f"batches of {options.batch_size}": (dataset, bucketed(dataset, options.batch_size)),
                "one by one": (singles, [padded(singles, np.array([row])) for row in range(len(singles))]),
            }
            for what, (rows, batches) in work_of.items():
                times, results = _measured(forwards, batches, options)
                lines += _lines(f"{title}, {what}", times, results, fused, len(rows))
                figures[f"{title}, {what}"] = {"rows": len(rows), "seconds": times, "fused": fused}
    header = ["", "graph", "seconds", "rows/s", "times the first", "largest logit difference", "fused operators"]
    common.report("Exported graphs in ONNX Runtime", common.table(header, lines), figures, options)


def _measured(
    forwards: Mapping[str, Forward], batches: Sequence[PaddedBatch], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, NDArray[np.float32]]]:
    """Return the seconds of each graph's rounds, and its logits."""
    results: dict[str, NDArray[np.float32]] = {}

    def run(name: str) -> None:
        results[name] = forward_pass(forwards[name], batches, num_labels=2)

    for name in forwards:
        run(name)  # warms up
    return common.alternate({name: partial(run, name) for name in forwards}, options.rounds), results


def _lines(
    what: str,
    times: Mapping[str, Sequence[float]],
    results: Mapping[str, NDArray[np.float32]],
    fused: Mapping[str, Mapping[str, int]],
    rows: int,
) -> list[tuple[Any, ...]]:
    medians = common.medians(times)
    return [
        (
            what,
            name,
            seconds,
            rows / seconds,
            seconds / medians[FIRST],
            float(np.abs(results[name] - results[FIRST]).max()),
            ", ".join(f"{count} {kind}" for kind, count in fused[name].items()),
        )
        for name, seconds in medians.items()
    ]


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=7)
    common.add_data(options)
    common.add_shape(options)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--singles", type=int, default=500, help="rows that are computed one by one, drawn at random")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
