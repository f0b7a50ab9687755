"""Latency of a student on single sentences, from ids to logits, the Python call included, beside other runtimes.

The sentences are SST-2's, in their real lengths. kdistill gets lists of token ids; the other runtimes get arrays and
masks made beforehand. Rounds alternate, and every figure is over all calls of all rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.bench.bench import PAUSE_SECONDS
from kdistill.bench.other_runtimes import Forward, export_onnx, load_torch, onnx_session, padded, torch_forward
from kdistill.data.dataset import Dataset

from . import common, openvino_peer, peers
from .forward import sample_of

WARM_UP = 200  # calls


def calls(
    student: kd.BertForSequenceClassification, sentences: Sequence[list[int]]
) -> dict[str, list[Callable[[], NDArray[np.float32]]]]:
    """Return kdistill's calls in two ways: the model's call, and the forward pass alone."""
    return {
        "kdistill, `model([ids]).logits`": [lambda ids=ids: student([ids]).logits for ids in sentences],
        "kdistill, `model.forward([ids])`": [lambda ids=ids: student.forward([ids]) for ids in sentences],
    }


def peer_forwards(options: argparse.Namespace, directory: Path, work: Path) -> dict[str, Forward]:
    """Return every other runtime in every setting, by name, loaded from a model directory."""
    import torch

    torch.set_num_threads(options.threads)
    forwards = {
        "PyTorch": torch_forward(load_torch(directory)),
        "PyTorch, compiled": torch_forward(peers.compile_frozen(load_torch(directory))),
    }
    for int8, name in ((False, "ONNX Runtime"), (True, "ONNX Runtime int8")):
        for setting, forward in peers.onnx_forwards(directory, options.threads, work, int8=int8).items():
            forwards[f"{name}, {setting}"] = forward
    unmasked = work / "unmasked.onnx"
    export_onnx(directory, unmasked, mask=False)
    forwards["ONNX Runtime, exported without mask"] = onnx_session(unmasked, options.threads)
    return forwards | {"OpenVINO": openvino_peer.latency_forward(directory, options.threads, work)}


def timed(runs: Sequence[Callable[[], NDArray[np.float32]]]) -> tuple[list[float], NDArray[np.float32]]:
    """Return the seconds of each call, and the logits of all."""
    for run in runs[:WARM_UP]:
        run()
    seconds, logits = [], []
    for run in runs:
        started = time.perf_counter()
        values = run()
        seconds.append(time.perf_counter() - started)
        logits.append(values.copy())  # OpenVINO returns the same memory each time
    return seconds, np.concatenate(logits)


def measure(options: argparse.Namespace) -> None:
    """Run all and report."""
    dataset = sample_of(common.rows_of(options), options.sentences)
    student = common.student().freeze()
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work, "model")
        student.save_pretrained(directory)
        runs: dict[str, list[Callable[[], NDArray[np.float32]]]] = {}
        runs |= calls(student, [ids.tolist() for ids in np.split(dataset.ids, dataset.starts[1:-1])])
        batches = [padded(dataset, np.array([row])) for row in range(len(dataset))]
        for name, forward in peer_forwards(options, directory, Path(work)).items():
            runs[name] = [lambda batch=batch, forward=forward: forward(batch) for batch in batches]
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        logits = {}
        for _ in range(options.rounds):
            for name, contestant in runs.items():
                time.sleep(PAUSE_SECONDS)
                measured, logits[name] = timed(contestant)
                seconds[name] += measured
    _report(dataset, seconds, logits, options)


def _report(
    dataset: Dataset,
    seconds: Mapping[str, list[float]],
    logits: Mapping[str, NDArray[np.float32]],
    options: argparse.Namespace,
) -> None:
    medians, first = common.medians(seconds), next(iter(seconds))
    lines, figures = [], {}
    for name, values in seconds.items():
        p99 = float(np.percentile(values, 99))
        off = float(np.abs(logits[name] - logits[first]).max())
        lines.append((name, 1e6 * medians[name], 1e6 * p99, 1 / medians[name], medians[name] / medians[first], off))
        figures[name] = {"median_seconds": medians[name], "p99_seconds": p99, "largest_difference": off}
    text = common.table(["", "us, median", "us, p99", "1/s", "times kdistill's", "largest logit difference"], lines)
    lengths = dataset.lengths
    text += f"\n\n{len(dataset):,} sentences, {np.median(lengths):.0f} tokens in the median, {lengths.max()} at most; "
    text += f"{len(seconds[first]):,} calls each."
    content: dict[str, Any] = {"sentences": len(dataset), "of": figures}
    common.report("One sentence at a time", text, content, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    options.add_argument("--sentences", type=int, default=1000, help="drawn at random")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
