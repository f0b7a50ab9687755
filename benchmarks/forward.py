"""Evaluation of many rows, compared with other runtimes; `teacher_pass` and `inference` share it.

Each runtime's setting and batch size are the fastest of all combinations on a sample of the rows; the passes over all
rows then alternate.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kdistill as kd
from kdistill.bench.other_runtimes import bucketed
from kdistill.data.dataset import Dataset
from kdistill.models.flops import forward_flops

from . import common, peers
from .openvino_peer import openvino_passes

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """A runtime's fastest setting and batch size on the sample, and the seconds of every combination tried."""

    name: str
    batch_size: int
    run: peers.Pass
    tried: Mapping[str, float]


def add_options(options: argparse.ArgumentParser) -> None:
    """Add the options of both measurements."""
    options.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="tried by each side"
    )
    options.add_argument("--sample-rows", type=int, default=1024, help="rows on which settings are chosen")
    options.add_argument(
        "--no-compiled",
        dest="compiled",
        action="store_false",
        help="leave out compiled PyTorch, which compiles for long",
    )
    options.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS + OTHER_LOGITS,
        default=list(PEERS),
        metavar="NAME",
        help=f"beside kdistill; one more is {OTHER_LOGITS[0]!r}",
    )


def load_peer(
    name: str, directory: Path, labels: int, work: Path, options: argparse.Namespace
) -> dict[str, peers.Pass]:
    """Return all settings of one runtime."""
    threads = options.threads
    if name == "PyTorch":
        return peers.torch_passes(directory, threads, labels, compiled=options.compiled)
    if name == "PyTorch bf16":
        return peers.bfloat16_passes(directory, labels, compiled=options.compiled)
    if name == "OpenVINO":
        return openvino_passes(directory, threads, labels, work)
    return peers.onnx_passes(directory, threads, labels, work, int8=name == "ONNX Runtime int8")


TRIES = 3  # the first compiles and warms up
PEERS = ("PyTorch", "ONNX Runtime", "ONNX Runtime int8", "OpenVINO")
OTHER_LOGITS = ("PyTorch bf16",)  # measured only on request


def sample_of(dataset: Dataset, rows: int) -> Dataset:
    """Return at most `rows` rows, drawn at random."""
    batch, labels = dataset.batch(np.random.default_rng(1).permutation(len(dataset))[:rows])
    return Dataset(*batch, labels)


def fastest(settings: Mapping[str, peers.Pass], sample: Dataset, sizes: list[int]) -> Setting:
    """Return the fastest combination of setting and batch size on the sample, by the best of several tries."""
    tried = {}
    for name, run in settings.items():
        for size in sizes:
            batches = bucketed(sample, size)
            tried[name, size] = min(common.seconds(partial(run, batches)) for _ in range(TRIES))
    name, size = min(tried, key=tried.__getitem__)
    return Setting(name, size, settings[name], {f"{name}, {size}": seconds for (name, size), seconds in tried.items()})


def compare(
    title: str,
    model: kd.BertForSequenceClassification,
    dataset: Dataset,
    own: Mapping[str, Callable[[], Logits]],
    options: argparse.Namespace,
) -> None:
    """Time kdistill's ways to the logits of all rows, which are `own`, and every other runtime, and report."""
    results: dict[str, Logits] = {}
    sample = sample_of(dataset, options.sample_rows)
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work, "model")
        model.save_pretrained(directory)
        chosen = {}
        for name in options.peers:
            settings = load_peer(name, directory, model.config.num_labels, Path(work), options)
            chosen[name] = fastest(settings, sample, options.batch_sizes)
        runs = {name: partial(_keep, results, name, run) for name, run in own.items()}
        for name, setting in chosen.items():
            batches = bucketed(dataset, setting.batch_size)
            runs[name] = partial(_keep, results, name, partial(setting.run, batches))
        times = common.alternate(runs, options.rounds)
    _report(title, model, dataset, chosen, times, results, options)


def _keep(results: dict[str, Logits], name: str, run: Callable[[], Logits]) -> None:
    results[name] = run()


def _report(
    title: str, model: kd.BertForSequenceClassification, dataset: Dataset, chosen: Mapping[str, Setting],
    times: Mapping[str, list[float]], results: Mapping[str, Logits], options: argparse.Namespace,
) -> None:  # fmt: skip
    seconds, rows, peak = common.medians(times), len(dataset), common.peak(options.threads)
    first = next(iter(times))
    lines: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for name in times:
        setting = chosen.get(name)
        work = forward_flops(model.config, dataset.lengths, cls_only=setting is None)
        share = 100 * work / seconds[name] / peak
        off = float(np.abs(results[name] - results[first]).max())
        how = "" if setting is None else f"{setting.name}, {setting.batch_size}"
        lines.append((name, how, seconds[name], rows / seconds[name], seconds[name] / seconds[first], share, off))
        figures[name] = {
            "seconds": times[name], "median_seconds": seconds[name], "rows_per_second": rows / seconds[name],
            "percent_of_peak": share, "largest_difference": off, "setting": how,
            "tried": {} if setting is None else setting.tried,
        }  # fmt: skip
    header = ["", "fastest setting, batch size", "seconds", "rows/s", "times kdistill's", "% of peak",
              "largest logit difference"]  # fmt: skip
    text = common.table(header, lines)
    text += f"\n\n{rows:,} distinct rows, {int(dataset.starts[-1]):,} tokens; {model!r}."
    text += f" Peak: {peak / 1e9:.0f} GF/s, {options.threads} threads."
    common.report(title, text, {"rows": rows, "tokens": int(dataset.starts[-1]), "peak": peak, "of": figures}, options)
