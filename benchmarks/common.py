"""Options, rows, alternating rounds and the report, which all measurements share."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kdistill as kd
from kdistill import _core
from kdistill.bench.bench import PAUSE_SECONDS
from kdistill.data.dataset import Dataset, as_dataset
from kdistill.distill.row_keys import row_keys
from kdistill.models.flops import peak_flops
from kdistill.system.cpu import cpu_name

# Models and rows that are too large for the repository.
SHARED = Path(os.environ.get("KDISTILL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
STUDENT_SHAPE: Mapping[str, int] = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}
SEED = 33
PEAK_MOMENTS, PEAK_PAUSE_SECONDS = 6, 0.5


def parser(description: str | None, *, rounds: int = 0) -> argparse.ArgumentParser:
    """Return a parser with the options of all measurements.

    Args:
        description: the module's docstring.
        rounds: the default of --rounds; 0 leaves the option out.
    """
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--threads", type=int, default=2, help="threads of both sides")
    options.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    if rounds:
        options.add_argument(
            "--rounds", type=int, default=rounds, help="alternating rounds, of which medians are taken"
        )
    return options


def add_data(options: argparse.ArgumentParser, *, sample: bool = True) -> None:
    """Add the options for the teacher and the rows."""
    options.add_argument("--teacher", type=Path, default=SHARED / "models" / "minilm-l6-sst2", help="a BERT directory")
    options.add_argument("--train", type=Path, default=SHARED / "data" / "SST-2" / "train.tsv", help="rows")
    if sample:
        options.add_argument("--rows", type=int, default=0, help="use only so many of the rows (0: all)")


def add_shape(options: argparse.ArgumentParser) -> None:
    """Add the option that replaces the teacher by a model of BERT-base's shape."""
    options.add_argument(
        "--shape", choices=("base", "teacher"), default="teacher", help="base: BERT-base with random weights"
    )


def tokenised(rows: Path, teacher: Path, count: int = 0) -> Dataset:
    """Return the distinct rows of a file as token ids, or `count` of them drawn at random if that is not 0.

    They are distinct because the teacher's pass computes a repeated row only once, which must not be measured here.
    """
    dataset = as_dataset(rows, kd.AutoTokenizer.from_pretrained(teacher))
    _, chosen = np.unique(row_keys(dataset), return_index=True)
    if count:
        chosen = np.random.default_rng(0).choice(chosen, size=min(count, len(chosen)), replace=False)
    batch, labels = dataset.batch(np.sort(chosen))
    return Dataset(*batch, labels)


def rows_of(options: argparse.Namespace) -> Dataset:
    """Return the rows of the options, after setting the threads of kdistill and PyTorch."""
    import torch

    kd.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    return tokenised(options.train, options.teacher, options.rows)


def subjects(options: argparse.Namespace) -> tuple[Dataset, kd.BertForSequenceClassification]:
    """Return the rows and the frozen teacher of the options, after setting the threads of kdistill and PyTorch."""
    dataset = rows_of(options)
    if getattr(options, "shape", "teacher") == "base":
        return dataset, kd.BertForSequenceClassification(kd.BertConfig(), seed=SEED).freeze()
    return dataset, kd.BertForSequenceClassification.from_pretrained(options.teacher).freeze()


def student_config() -> kd.BertConfig:
    """Return the configuration of the student, with BERT's vocabulary."""
    return kd.BertConfig(**STUDENT_SHAPE)


def student() -> kd.BertForSequenceClassification:
    """Return a student with random weights, on which speed does not depend."""
    return kd.BertForSequenceClassification(student_config(), seed=SEED)


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Measure each run in rounds A B A B ..., so that a slow minute of the machine affects all of them.

    Returns:
        The wall times of each run in seconds, one a round.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE_SECONDS)
            times[name].append(seconds(run))
    return times


def medians(measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each list."""
    return {name: statistics.median(values) for name, values in measured.items()}


@functools.cache
def peak(threads: int) -> float:
    """Return the peak of float32 operations per second of this machine, measured once in a process.

    It is the best of several moments: another program on a core would make the peak too low, and every share of it too
    high.
    """
    best = 0.0
    for _ in range(PEAK_MOMENTS):
        best = max(best, peak_flops(threads))
        time.sleep(PEAK_PAUSE_SECONDS)
    return best


def call_microseconds(threads: int) -> float:
    """Measure a call of the core with almost no work for each thread, in microseconds.

    On a virtual machine it shows whether the cores share a cache at the moment (about 0.6 for two threads) or not (1 to
    2), in which case all communication between threads takes longer.
    """
    calls = [seconds(lambda: _core.multiply_adds(1, threads)) for _ in range(2000)]
    return statistics.median(calls) * 1e6


def machine(threads: int) -> dict[str, Any]:
    """Return the circumstances of a measurement: CPU, load, versions, and kdistill's configuration."""
    versions = {}
    for package in ("numpy", "torch", "transformers", "onnxruntime", "openvino", "nncf"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "call_microseconds": call_microseconds(threads),
        "python": platform.python_version(),
        **versions,
        "kdistill": kd.show_config(),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, with floats of about three significant digits."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [header, ["---"] * len(header), *[[cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(title: str, text: str, figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the table and, with --output, write all figures with their circumstances as JSON."""
    where = machine(options.threads)
    load, call = where["load_1min"], where["call_microseconds"]
    print(f"## {title}\n\n{text}\n\n{where['cpu']}, {options.threads} threads, load {load:.1f}, a call {call:.2f} us")
    if options.output is not None:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        content = {"title": title, "options": settings, "machine": where, "figures": figures}
        options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
