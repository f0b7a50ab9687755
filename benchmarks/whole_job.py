"""The notebook's whole job, from a TSV file to a saved model: time and peak memory of the whole process.

The teacher has BERT-base's shape and random weights, on which speed does not depend; the student has BERT-Tiny's shape.
It is trained for 7 epochs of batch 128 and evaluated after each. `kdistill distill` starts with an empty teacher cache.
It is compared with PyTorch at its best (`benchmarks.torch_distill`, which does not evaluate its teacher, as kdistill
does), and with PyTorch the notebook's way, of which steps spread over an epoch are timed and the rest is extrapolated
by padded tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kdistill as kd

from . import common

KIBIBYTES_PER_MEBIBYTE = 1024
KDISTILL, TORCH, NOTEBOOK = "kdistill", "PyTorch at its best", "PyTorch, the notebook's way"


class Finished(NamedTuple):
    """The cost of a finished process, and its output."""

    seconds: float
    mebibytes: float
    output: str


def run(command: Sequence[str], cache: Path) -> Finished:
    """Run a command to its end; measure its wall time and its largest resident set.

    The latter is read while the process runs (VmHWM), because ru_maxrss also counts the memory of the process that
    started it.
    """
    environment = {**os.environ, "KDISTILL_CACHE": str(cache)}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peaks: list[int] = []
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks))
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - started
    watcher.join()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Finished(seconds, max(peaks) / KIBIBYTES_PER_MEBIBYTE, output)


def _watch(process: int, peaks: list[int]) -> None:
    """Append a process's largest resident set so far, in KiB, to `peaks` ten times a second until it ends."""
    while True:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found is None:  # the process has ended and its memory is gone
            return
        peaks.append(int(found[1]))
        time.sleep(0.1)


def first_rows(source: Path, count: int, target: Path) -> Path:
    """Write the header and the first `count` rows of a TSV file to `target`; return `target`, or `source` if 0."""
    if not count:
        return source
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as kept:
        kept.writelines(line for _, line in zip(range(count + 1), lines, strict=False))
    return target


def write_models(options: argparse.Namespace, directory: Path) -> tuple[Path, Path]:
    """Write the initial student and, with --shape base, the teacher, with a tokenizer each; return both directories."""
    tokenizer = kd.AutoTokenizer.from_pretrained(options.teacher)
    shapes = {"student": common.student_config()}
    if options.shape == "base":
        shapes["teacher"] = kd.BertConfig()
    for name, config in shapes.items():
        kd.BertForSequenceClassification(config, seed=common.SEED).save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    return directory / "teacher" if options.shape == "base" else options.teacher, directory / "student"


def commands(options: argparse.Namespace, directory: Path) -> dict[str, list[str]]:
    """Return the command of each side; {side} and {turn} in the output directory stand for side and round."""
    train = first_rows(options.train, options.rows, directory / "train.tsv")
    teacher, student = write_models(options, directory)
    shared = ["--teacher", str(teacher), "--student", str(student), "--train", str(train), "--eval", str(options.eval)]
    shared += ["--threads", str(options.threads)]
    distill = ["--num-train-epochs", str(options.epochs), "--per-device-train-batch-size", "128"]
    distill += ["--recipe", "transformers"]
    distill += ["--learning-rate", "6e-5", "--temperature", "4", "--alpha", "0.5", "--json"]
    peer = [sys.executable, "-m", "benchmarks.torch_distill", *shared, "--epochs", str(options.epochs)]
    peer += ["--teacher-batch-size", str(options.teacher_batch_size)]
    notebook = ["--notebook-steps", str(options.notebook_steps)]
    output = ["--output-dir", str(directory / "{side}-{turn}")]
    sides = {
        KDISTILL: [sys.executable, "-m", "kdistill", "distill", *shared, *distill, *output],
        TORCH: [*peer, *output],
        NOTEBOOK: [*peer, *notebook, *output],
    }
    return {name: command for name, command in sides.items() if name != NOTEBOOK or options.notebook_steps}


def measure(options: argparse.Namespace) -> None:
    """Run all in alternation and report."""
    seconds: dict[str, list[float]] = {}
    mebibytes: dict[str, list[float]] = {}
    extrapolated: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for turn in range(options.rounds):
            for number, (name, command) in enumerate(commands(options, directory).items()):
                words = [word.replace("{side}", str(number)).replace("{turn}", str(turn)) for word in command]
                finished = run(words, directory / f"cache-{turn}")
                if name == NOTEBOOK:
                    extrapolated = json.loads(finished.output.splitlines()[-1])
                    finished = finished._replace(seconds=extrapolated["seconds"])
                seconds.setdefault(name, []).append(finished.seconds)
                mebibytes.setdefault(name, []).append(finished.mebibytes)
    _report(seconds, mebibytes, extrapolated, options)


def _report(
    seconds: dict[str, list[float]],
    mebibytes: dict[str, list[float]],
    extrapolated: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    times, peaks = common.medians(seconds), common.medians(mebibytes)
    lines = [
        (name, times[name], times[name] / times[KDISTILL], peaks[name], peaks[KDISTILL] / peaks[name]) for name in times
    ]
    header = ["whole process", "seconds", "times kdistill's", "peak MiB", "kdistill's peak in parts of it"]
    text = common.table(header, lines)
    text += f"\n\n{f'The first {options.rows:,}' if options.rows else 'All'} rows of {options.train.name}, "
    teacher = "BERT-base's shape" if options.shape == "base" else options.teacher.name
    text += f"{options.epochs} epochs of batch 128; teacher: {teacher}."
    if extrapolated:
        text += f" The notebook's way: {extrapolated['steps']} steps spread over an epoch took "
        text += (
            f"{extrapolated['timed_seconds']:.0f} s; extrapolated by padded tokens, without start-up and evaluation."
        )
    figures = {"seconds": seconds, "median_seconds": times, "mebibytes": mebibytes, "extrapolated": extrapolated}
    common.report("Whole job", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=1)
    common.add_data(options)
    common.add_shape(options)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--epochs", type=int, default=7, help="of training")
    options.add_argument("--teacher-batch-size", type=int, default=16, help="PyTorch's; see teacher_pass")
    options.add_argument("--notebook-steps", type=int, default=24, help="steps of the notebook's way to time (0: none)")
    options.set_defaults(shape="base")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
