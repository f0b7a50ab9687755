"""Peak memory of the whole `kdistill distill` command beside the same work in PyTorch (ru_maxrss of each process).

Both read the rows, run the teacher over them, train the 2-layer student for one epoch and save it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import common

KIBIBYTES_PER_MEBIBYTE = 1024


def peak_mebibytes(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a command to its end and return the largest resident set it had."""
    process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so Popen need not wait for it
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss / KIBIBYTES_PER_MEBIBYTE


def first_rows(source: Path, count: int, target: Path) -> Path:
    """The header and the first `count` rows of a TSV file (0: the file itself)."""
    if not count:
        return source
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as kept:
        kept.writelines(line for _, line in zip(range(count + 1), lines, strict=False))
    return target


def commands(options: argparse.Namespace, directory: Path, turn: int) -> dict[str, list[str]]:
    """Both commands, each with an output directory of its own."""
    train = first_rows(options.train, options.rows, directory / "train.tsv")
    shared = ["--teacher", str(options.teacher), "--train", str(train), "--threads", str(options.threads)]
    distill = ["--student", "L2-H128-A2", "--eval-strategy", "no", "--num-train-epochs", "1", "--learning-rate", "5e-4"]
    output = ["--output-dir", str(directory / f"kdistill-{turn}")]
    peer_output = ["--output-dir", str(directory / f"torch-{turn}")]
    return {
        "kdistill": [sys.executable, "-m", "kdistill", "distill", *shared, *distill, *output],
        "PyTorch": [sys.executable, "-m", "benchmarks.torch_distill", *shared, *peer_output],
    }


def measure(options: argparse.Namespace) -> None:
    """Run both in turn and report."""
    peaks: dict[str, list[float]] = {"kdistill": [], "PyTorch": []}
    with tempfile.TemporaryDirectory() as directory:
        for turn in range(options.rounds):
            environment = {**os.environ, "KDISTILL_CACHE": str(Path(directory, f"cache-{turn}"))}
            for name, command in commands(options, Path(directory), turn).items():
                peaks[name].append(peak_mebibytes(command, environment))
    mebibytes = common.medians(peaks)
    lines = [(name, mebibytes[name], mebibytes[name] / mebibytes["kdistill"]) for name in peaks]
    text = common.table(["", "peak MiB", "times kdistill's"], lines)
    text += f"\n\n{f'The first {options.rows:,}' if options.rows else 'All'} rows of {options.train.name}."
    common.report("Peak memory", text, {"mebibytes": peaks, "median_mebibytes": mebibytes}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=1)
    common.add_data(options)
    measure(options.parse_args())


if __name__ == "__main__":
    main()
