"""Passes in float32, bfloat16 and int8: kdistill beside PyTorch, ONNX Runtime and OpenVINO, with the accuracy of each.

Three models: BERT-base's shape with random weights, the 6-layer teacher, and a student L2-H128-A2, which is trained on
the labels for two epochs first so that its accuracy means something. For each, with --threads threads and with one, the
setting and batch size of every program are the fastest on a sample of the rows; then rounds follow in which all
programs of all types alternate. The batches of the other programs hold rows of similar length and are padded before the
clock starts; kdistill's packing is part of its time. Before and after each round the speed of each core is measured,
because cores of a virtual machine may share their units for matrix products with others. With one thread, all of a
round runs on the core that is the faster one just before it.

Each model runs in a process of its own for each number of threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kdistill as kd
from kdistill import _core
from kdistill.bench.bench import PAUSE_SECONDS
from kdistill.bench.other_runtimes import CannotRunError, bucketed, padded
from kdistill.data.columns import read_rows
from kdistill.data.dataset import Dataset, encode
from kdistill.distill.cache import teacher_logits

from . import common, peers
from .core_speeds import core_speeds, fastest_core, only_on
from .forward import Logits, sample_of
from .openvino_peer import openvino_passes

TYPES = ("float32", "bfloat16", "int8")
KDISTILL = "kdistill"
RANDOM = "base"  # the model without training, whose accuracy means nothing
# Rows of each model's passes, so that a round of all programs takes about a minute on two cores; 0: all.
ROWS: Mapping[str, int] = {RANDOM: 600, "teacher": 6000, "student": 0}
CALIBRATION_ROWS = 300  # NNCF's default
TRIES, FINALISTS = 2, 3  # the first try compiles and warms up

# From rows and a batch size to a function that returns the logits of all rows.
Way = Callable[[Dataset, int], Callable[[], Logits]]


class Program(NamedTuple):
    """A program computing in one type."""

    dtype: str
    name: str


@dataclass(frozen=True)
class Setting:
    """A program's fastest setting and batch size on the sample, and the seconds of each combination tried."""

    name: str
    batch_size: int
    way: Way
    tried: Mapping[str, float]


def fastest(ways: Mapping[str, Way], sample: Dataset, sizes: Sequence[int]) -> Setting:
    """Return the fastest combination; all settings run at the middle batch size, the best of them at every size."""
    tried: dict[tuple[str, int], float] = {}

    def measure(name: str, size: int) -> float:
        run = ways[name](sample, size)
        tried[name, size] = min(common.seconds(run) for _ in range(TRIES))
        return tried[name, size]

    middle = sizes[len(sizes) // 2]
    ranked = sorted(ways, key=lambda name: measure(name, middle))
    for name in ranked[:FINALISTS]:
        for size in sizes:
            if size != middle:
                measure(name, size)
    name, size = min(tried, key=tried.__getitem__)
    return Setting(name, size, ways[name], {f"{name}, {size}": seconds for (name, size), seconds in tried.items()})


def own_ways(model: kd.BertForSequenceClassification) -> dict[str, Way]:
    """Return kdistill's ways to the logits of all rows: as `kdistill distill` runs its teacher, and batch by batch."""

    def in_batches(rows: Dataset, size: int) -> Callable[[], Logits]:
        pieces = [np.arange(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]
        return lambda: np.concatenate([model.forward(rows.batch(piece)[0]) for piece in pieces])

    return {
        "as a teacher": lambda rows, size: partial(teacher_logits, model, rows, enabled=False),
        "model.forward": in_batches,
    }


def own_models(directory: Path, notes: list[str]) -> dict[Program, dict[str, Way]]:
    """Return kdistill in every type that this CPU multiplies natively."""
    found = {}
    for dtype in TYPES:
        if _core.COMPUTE[dtype] is None:
            notes.append(f"{KDISTILL} {dtype} left out: this CPU has no native products of it")
            continue
        model = kd.BertForSequenceClassification.from_pretrained(directory, dtype=dtype).freeze()
        found[Program(dtype, KDISTILL)] = own_ways(model)
    return found


def peer_loaders(
    directory: Path, threads: int, work: Path, calibration: Dataset, options: argparse.Namespace
) -> dict[Program, Callable[[], dict[str, peers.Pass]]]:
    """Return what loads each other program in all its settings."""
    labels = kd.BertConfig.from_pretrained(directory).num_labels
    singles = [padded(calibration, np.array([row])) for row in range(len(calibration))]
    loaders: dict[Program, Callable[[], dict[str, peers.Pass]]] = {
        Program("float32", "PyTorch"): partial(
            peers.torch_passes, directory, threads, labels, compiled=options.compiled
        ),
        Program("bfloat16", "PyTorch"): partial(peers.bfloat16_passes, directory, labels, compiled=options.compiled),
        Program("int8", "PyTorch"): partial(peers.int8_passes, directory, labels),
        Program("float32", "ONNX Runtime"): partial(peers.onnx_passes, directory, threads, labels, work),
        Program("int8", "ONNX Runtime"): partial(peers.onnx_passes, directory, threads, labels, work, int8=True),
    }
    for dtype in TYPES:
        loaders[Program(dtype, "OpenVINO")] = partial(openvino_passes, directory, threads, labels, work, dtype, singles)
    return {program: load for program, load in loaders.items() if program.name in options.peers}


def _padded(run: peers.Pass, rows: Dataset, size: int) -> Callable[[], Logits]:
    return partial(run, bucketed(rows, size))


def choose(
    directory: Path, threads: int, work: Path, rows: Dataset, options: argparse.Namespace, notes: list[str]
) -> dict[Program, Setting]:
    """Return every program's fastest setting, the types in their order and kdistill first in each."""
    sample = sample_of(rows, options.sample_rows)
    calibration = sample_of(rows, CALIBRATION_ROWS)
    chosen: dict[Program, Setting] = {}
    for program, ways in own_models(directory, notes).items():
        chosen[program] = fastest(ways, sample, options.batch_sizes)
    for program, load in peer_loaders(directory, threads, work, calibration, options).items():
        try:
            passes = load()
        except ModuleNotFoundError as error:
            notes.append(f"{program.name} {program.dtype} left out: {error.name} is not installed")
            continue
        except CannotRunError as error:
            notes.append(f"{program.name} {program.dtype} left out: {error}")
            continue
        ways = {name: partial(_padded, run) for name, run in passes.items()}
        chosen[program] = fastest(ways, sample, options.batch_sizes)
    return dict(sorted(chosen.items(), key=lambda item: (TYPES.index(item[0].dtype), item[0].name != KDISTILL)))


def alternate(
    runs: Mapping[Program, Callable[[], Logits]], threads: int, rounds: int
) -> tuple[dict[Program, list[float]], dict[Program, Logits], list[dict[str, Any]]]:
    """Run all programs in each round, after one round to warm up; return seconds, logits and the cores' speeds."""
    seconds: dict[Program, list[float]] = {program: [] for program in runs}
    logits: dict[Program, Logits] = {}
    speeds: list[dict[str, Any]] = []
    cores = os.sched_getaffinity(0)
    for turn in range(rounds + 1):
        before, core = core_speeds(), None
        if threads == 1:
            core = fastest_core(before)
            only_on({core})
        for program in list(runs) if turn % 2 == 0 else reversed(runs):  # not always after the same program
            time.sleep(PAUSE_SECONDS)
            started = time.perf_counter()
            logits[program] = runs[program]()
            if turn > 0:
                seconds[program].append(time.perf_counter() - started)
        only_on(cores)
        if turn > 0:
            speeds.append({"before": before, "after": core_speeds(), "core": core})
    return seconds, logits, speeds


def measure_model(model: str, directory: Path, threads: int, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one model with one number of threads, in this process; `work` keeps the graphs for the next number."""
    import torch

    kd.set_num_threads(threads)
    torch.set_num_threads(threads)
    count = options.rows if options.rows is not None else ROWS[model]
    rows = common.tokenised(options.train, options.teacher, count)
    dev = encode(read_rows(options.eval), kd.AutoTokenizer.from_pretrained(options.teacher))
    notes: list[str] = []
    chosen = choose(directory, threads, work, rows, options, notes)
    runs = {program: setting.way(rows, setting.batch_size) for program, setting in chosen.items()}
    seconds, logits, speeds = alternate(runs, threads, options.rounds)
    on_dev = {program: setting.way(dev, setting.batch_size)() for program, setting in chosen.items()}
    nodes = {graph.stem: peers.onnx_nodes(graph) for graph in sorted(work.glob("*.onnx"))}
    first = next(iter(chosen))
    programs = []
    for program, setting in chosen.items():
        off = np.abs(logits[program] - logits[first]).max()
        median = statistics.median(seconds[program])
        programs.append({
            "type": program.dtype, "program": program.name, "setting": setting.name, "batch_size": setting.batch_size,
            "seconds": seconds[program], "median_seconds": median, "rows_per_second": len(rows) / median,
            "dev_right": None if model == RANDOM else int((on_dev[program].argmax(1) == dev.labels).sum()),
            "dev_agreement": float((on_dev[program].argmax(1) == on_dev[first].argmax(1)).mean()),
            "agreement": float((logits[program].argmax(1) == logits[first].argmax(1)).mean()),
            "largest_difference": float(off), "tried": dict(setting.tried),
        })  # fmt: skip
    return {"model": model, "threads": threads, "rows": len(rows), "tokens": int(rows.starts[-1]), "dev": len(dev),
            "spread": float(np.ptp(logits[first])), "programs": programs, "cores": speeds, "nodes": nodes,
            "notes": notes}  # fmt: skip


def train_student(options: argparse.Namespace, target: Path) -> None:
    """Train a student of BERT-Tiny's shape on the labels alone and write it to `target`."""
    command = [
        sys.executable, "-m", "kdistill", "distill", "--teacher", str(options.teacher), "--student", "L2-H128-A2",
        "--train", str(options.train), "--eval", str(options.eval), "--output-dir", str(target), "--alpha", "1",
        "--num-train-epochs", "2", "--per-device-train-batch-size", "64", "--learning-rate", "1e-3", "--recipe",
        "transformers", "--no-teacher-cache", "--threads", str(options.threads), "--seed", str(common.SEED), "--json",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def directory_of(model: str, options: argparse.Namespace, work: Path) -> Path:
    """Return the directory of a model, which is made in `work` where it does not exist."""
    if model == "teacher":
        return options.teacher
    target = work / model
    if model == RANDOM:
        kd.BertForSequenceClassification(kd.BertConfig(), seed=common.SEED).save_pretrained(target)
        return target
    if options.student is not None:
        return options.student
    train_student(options, target)
    return target


def section(part: Mapping[str, Any]) -> str:
    """Return the table of one model with one number of threads, and what follows from it."""
    programs = part["programs"]
    base = programs[0]["rows_per_second"]
    header = ["type", "program", "fastest setting, batch size", "rows/s, median", "each round",
              "times kdistill float32", "dev rows right", "agreement, dev rows", "agreement",
              "largest logit difference"]  # fmt: skip
    lines = [
        (one["type"], one["program"], f"{one['setting']}, {one['batch_size']}", one["rows_per_second"],
         " ".join(f"{part['rows'] / seconds:,.0f}" for seconds in one["seconds"]), one["rows_per_second"] / base,
         "-" if one["dev_right"] is None else one["dev_right"], one["dev_agreement"], one["agreement"],
         one["largest_difference"])
        for one in programs
    ]  # fmt: skip
    threads = f"{part['threads']} thread{'s' * (part['threads'] > 1)}"
    text = f"### {part['model']}, {threads}\n\n{common.table(header, lines)}\n\n"
    text += (
        f"{part['rows']:,} distinct rows, {part['tokens']:,} tokens; {part['dev']} dev rows. Agreement and difference "
    )
    text += f"are from kdistill float32, whose logits span {part['spread']:.2f}.\n"
    text += "".join(f"- {line}\n" for line in [*ratios(programs), *part["notes"], *cores(part["cores"])])
    return text


def ratios(programs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return kdistill's speed beside the best other program, in each type and in both low-precision types together."""
    lines = []
    for title, types in (*((dtype, (dtype,)) for dtype in TYPES), ("bfloat16 or int8", TYPES[1:])):
        within = [one for one in programs if one["type"] in types]
        own = [one for one in within if one["program"] == KDISTILL]
        other = [one for one in within if one["program"] != KDISTILL]
        if own and other:
            best, peer = (max(side, key=lambda one: one["rows_per_second"]) for side in (own, other))
            ratio = best["rows_per_second"] / peer["rows_per_second"]
            lines.append(f"{title}: {ratio:.2f} times the best other, {peer['program']} {peer['type']}")
    return lines


def cores(speeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each core: its speeds before and after each round."""
    lines = []
    for core in speeds[0]["before"]:
        moments = [when[side][core] for when in speeds for side in ("before", "after")]
        kinds = (f"{kind} {' '.join(f'{moment[kind] / 1e9:,.0f}' for moment in moments)}" for kind in moments[0])
        lines.append(f"core {core}, GF/s before and after each round: {'; '.join(kinds)}")
    chosen = [when["core"] for when in speeds if when["core"] is not None]
    return [*lines, *([f"cores of the rounds: {' '.join(map(str, chosen))}"] if chosen else [])]


def measure(options: argparse.Namespace) -> None:
    """Measure every model with every number of threads, each in a process of its own, and report."""
    counts = [options.threads] if options.skip_one_thread else sorted({options.threads, 1}, reverse=True)
    parts = []
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as work:
        for model in options.models:
            directory = directory_of(model, options, Path(work))
            graphs = Path(work, f"graphs-{model}")
            graphs.mkdir()
            for threads in counts:
                with ProcessPoolExecutor(1, mp_context=spawn) as process:
                    parts.append(process.submit(measure_model, model, directory, threads, graphs, options).result())
                print(section(parts[-1]), file=sys.stderr, flush=True)
    where = common.machine(options.threads)
    versions = ", ".join(f"{name} {where[name]}" for name in ("torch", "onnxruntime", "openvino", "nncf"))
    config = where["kdistill"]
    text = "\n".join(map(section, parts))
    text += f"\nInstruction sets: {' '.join(config['isa_levels'])}; in use: {config['compute']}. "
    text += f"{versions}. The setting of each program is the fastest of those listed under `tried` in the JSON file."
    if options.output is not None:
        options.output.with_suffix(".md").write_text(f"{where['cpu']}\n\n{text}\n", encoding="utf-8")
    common.report("Compute types", text, {"parts": parts}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options, sample=False)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--models", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME",
                         help=f"of {', '.join(ROWS)}")  # fmt: skip
    options.add_argument("--student", type=Path, help="a trained student's directory, instead of training one")
    options.add_argument("--rows", type=int, help="rows of every model (default: 600, 6,000 and all; 0: all)")
    options.add_argument("--sample-rows", type=int, default=512, help="rows on which settings are chosen")
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="tried by each")
    options.add_argument("--skip-one-thread", action="store_true", help="measure with --threads threads alone")
    options.add_argument("--no-compiled", dest="compiled", action="store_false",
                         help="leave out compiled PyTorch, which compiles for minutes")  # fmt: skip
    names = ["PyTorch", "ONNX Runtime", "OpenVINO"]
    options.add_argument("--peers", nargs="*", choices=names, default=names, metavar="NAME", help="beside kdistill")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
