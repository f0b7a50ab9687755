"""All measurements, or those named on the command line, each in a separate process.

Each writes build/benchmarks/<name>.json; when all have run, docs/speed.svg is drawn from these files. Measurements that
depend on threads run with 2 threads and, as <name>-1.json, with 1.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

BASE = ("--shape", "base", "--sample-rows", "256", "--rows", "4000", "--no-compiled")
# Name of the file -> module and options.
MEASUREMENTS: Mapping[str, Sequence[str]] = {
    "import_time": ("import_time",),
    "peaks": ("peaks",),
    "profile": ("profile",),
    "stages": ("stages",),
    "latency": ("latency",),
    "latency-1": ("latency", "--threads", "1"),
    "exported": ("exported",),
    "exported-1": ("exported", "--threads", "1"),
    "openvino_int8-1": ("openvino_int8", "--threads", "1"),
    "serving": ("serving",),
    "inference": ("inference",),
    "inference-1": ("inference", "--threads", "1"),
    "student_step": ("student_step",),
    "student_epoch": ("student_epoch",),
    "student_epoch-1": ("student_epoch", "--threads", "1", "--rounds", "3"),
    "intermediate_losses": ("intermediate_losses",),
    "intermediate_losses-1": ("intermediate_losses", "--threads", "1"),
    "teacher_pass": ("teacher_pass",),
    "teacher_pass-1": ("teacher_pass", "--threads", "1", "--rows", "8000"),
    "teacher_pass-base": ("teacher_pass", *BASE),
    "teacher_pass-base-1": ("teacher_pass", *BASE, "--threads", "1"),
    "compute_types": ("compute_types",),
    "threads": ("threads",),
    "whole_job": ("whole_job",),
    "accuracy": ("accuracy",),
    "search": ("search",),
    "finetune": ("finetune",),
    "task_accuracy": ("task_accuracy",),
    "task_speed": ("task_speed",),
    "taught_students": ("taught_students",),
    "mpnet_teacher": ("mpnet_teacher", "--torch-epochs", "1"),
    "interrupts": ("interrupts",),
    "interrupts-1": ("interrupts", "--threads", "1"),
}


def main() -> int:
    """Run the measurements named on the command line, or all; return the exit status, 1 if any failed."""
    directory = Path("build", "benchmarks")
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in sys.argv[1:] or MEASUREMENTS:
        module, *options = MEASUREMENTS[name]
        output = ["--output", str(directory / f"{name}.json")]
        if subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *options, *output], check=False).returncode:
            failed.append(name)
        print(flush=True)
    if not sys.argv[1:] and subprocess.run([sys.executable, "-m", "benchmarks.plot"], check=False).returncode:
        failed.append("plot")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
