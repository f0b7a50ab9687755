"""The notebook's whole job, from a TSV file to a saved model: time and peak memory of the whole process.

The teacher has BERT-base's shape and random weights, on which speed does not depend; the student has BERT-Tiny's shape.
It is trained for 7 epochs of batch 128 and evaluated after each. `kdistill distill` starts with an empty teacher cache.
It runs in float32, with the teacher's type chosen by `--teacher-dtype auto`, and with `--bf16` too. It is compared with
PyTorch at its best (`benchmarks.torch_distill`, which does not evaluate its teacher, as kdistill does), in float32 and
in every way of bfloat16, and with PyTorch the notebook's way, of which steps spread over an epoch are timed and the
rest is extrapolated by padded tokens.
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
# Low precision, by the options of `kdistill distill` and of `benchmarks.torch_distill`. Compiling and autocast do not
# pay on every CPU and for every number of rows, so PyTorch has each combination.
OWN_LOW = {
    f"{KDISTILL}, teacher auto": ("--teacher-dtype", "auto"),
    f"{KDISTILL}, teacher int8": ("--teacher-dtype", "int8"),
    f"{KDISTILL}, teacher auto, --bf16": ("--teacher-dtype", "auto", "--bf16"),
}
TORCH_LOW = {
    f"{TORCH}, teacher {way}{cast}": ("--teacher-way", way, *bf16)
    for way in ("bfloat16", "bfloat16-onednn", "bfloat16-compiled")
    for cast, bf16 in (("", ()), (", autocast", ("--bf16",)))
}


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
    distill += ["--recipe", "transformers", "--lr-scheduler-type", "constant"]  # as benchmarks.torch_distill
    distill += ["--learning-rate", "6e-5", "--temperature", "4", "--alpha", "0.5", "--json"]
    peer = [sys.executable, "-m", "benchmarks.torch_distill", *shared, "--epochs", str(options.epochs)]
    notebook = ["--notebook-steps", str(options.notebook_steps)]
    output = ["--output-dir", str(directory / "{side}-{turn}")]
    own = [sys.executable, "-m", "kdistill", "distill", *shared, *distill]
    sides = {KDISTILL: [*own, "--teacher-dtype", "float32", *output]}
    if options.low_precision:
        sides |= {name: [*own, *more, *output] for name, more in OWN_LOW.items()}
    sides[TORCH] = [*peer, "--teacher-batch-size", str(options.teacher_batch_size), *output]
    if options.low_precision:
        peer += ["--teacher-batch-size", str(options.bf16_teacher_batch_size)]
        ways = {name: more for name, more in TORCH_LOW.items() if options.compiled or "bfloat16-compiled" not in more}
        sides |= {name: [*peer, *more, *output] for name, more in ways.items()}
    if options.notebook_steps:
        sides[NOTEBOOK] = [*peer, *notebook, *output]
    return sides


def measure(options: argparse.Namespace) -> None:
    """Run all in alternation and report."""
    seconds: dict[str, list[float]] = {}
    mebibytes: dict[str, list[float]] = {}
    accuracies: dict[str, float] = {}
    types: dict[str, str] = {}
    extrapolated: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for turn in range(options.rounds):
            for number, (name, command) in enumerate(commands(options, directory).items()):
                words = [word.replace("{side}", str(number)).replace("{turn}", str(turn)) for word in command]
                finished = run(words, directory / f"cache-{turn}-{number}")
                if name == NOTEBOOK:
                    extrapolated = json.loads(finished.output.splitlines()[-1])
                    finished = finished._replace(seconds=extrapolated["seconds"])
                else:
                    accuracies[name] = accuracy_of(finished.output)
                if name.startswith(KDISTILL):
                    types[name] = json.loads(finished.output.splitlines()[-1])["summary"]["teacher"]["dtype"]
                print(f"round {turn + 1}, {name}: {finished.seconds:.1f} s", file=sys.stderr, flush=True)
                seconds.setdefault(name, []).append(finished.seconds)
                mebibytes.setdefault(name, []).append(finished.mebibytes)
    _report(seconds, mebibytes, accuracies, types, extrapolated, options)


def accuracy_of(output: str) -> float:
    """Return the last accuracy on the evaluation rows that either side printed; the same for every round."""
    return float(re.findall(r'(?:^|"eval_)accuracy"?:? ([0-9.]+)', output, re.MULTILINE)[-1])


def _report(
    seconds: dict[str, list[float]],
    mebibytes: dict[str, list[float]],
    accuracies: dict[str, float],
    types: dict[str, str],
    extrapolated: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    times, peaks = common.medians(seconds), common.medians(mebibytes)
    lines = [
        (name, times[name], times[name] / times[KDISTILL], accuracies.get(name, "-"), peaks[name],
         peaks[KDISTILL] / peaks[name])
        for name in times
    ]  # fmt: skip
    header = ["whole process", "seconds", "times kdistill's", "dev accuracy", "peak MiB",
              "kdistill's peak in parts of it"]  # fmt: skip
    text = common.table(header, lines)
    text += f"\n\n{f'The first {options.rows:,}' if options.rows else 'All'} rows of {options.train.name}, "
    teacher = "BERT-base's shape" if options.shape == "base" else options.teacher.name
    text += f"{options.epochs} epochs of batch 128; teacher: {teacher}."
    own, peer = (min((name for name in times if name.startswith(side)), key=times.__getitem__)
                 for side in (KDISTILL, TORCH))  # fmt: skip
    text += f" The fastest: {own}, {times[peer] / times[own]:.2f} times as fast as {peer}."
    text += "".join(f" {name} took {dtype}." for name, dtype in types.items() if "auto" in name)
    if extrapolated:
        text += f" {times[NOTEBOOK] / times[own]:.0f} times as fast as the notebook's way."
        text += f" The notebook's way: {extrapolated['steps']} steps spread over an epoch took "
        text += (
            f"{extrapolated['timed_seconds']:.0f} s; extrapolated by padded tokens, without start-up and evaluation."
        )
    figures = {"seconds": seconds, "median_seconds": times, "mebibytes": mebibytes, "accuracies": accuracies,
               "teacher_types": types,
               "low_precision": [name for name in times if name in OWN_LOW or name in TORCH_LOW],
               "extrapolated": extrapolated}  # fmt: skip
    common.report("Whole job", text, figures, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=1)
    common.add_data(options)
    common.add_shape(options)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--epochs", type=int, default=7, help="of training")
    options.add_argument("--teacher-batch-size", type=int, default=16, help="PyTorch's; see teacher_pass")
    options.add_argument(
        "--bf16-teacher-batch-size", type=int, default=16, help="PyTorch's in bfloat16; see compute_types"
    )
    options.add_argument(
        "--notebook-steps", type=int, default=200, help="steps of the notebook's way to time (0: none)"
    )
    options.add_argument("--float32", dest="low_precision", action="store_false", help="leave out bfloat16 and int8")
    options.add_argument("--no-compiled", dest="compiled", action="store_false", help="leave out compiled PyTorch")
    options.set_defaults(shape="base")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
