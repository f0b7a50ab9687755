"""Run every measurement, each in a process of its own, and write build/benchmarks/<name>.json."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MEASUREMENTS = ("import_time", "peak_memory", "student_epoch", "teacher_pass", "accuracy")


def main() -> int:
    """Run them in turn; the exit status is 1 if any failed."""
    directory = Path("build", "benchmarks")
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in MEASUREMENTS:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--output", str(directory / f"{name}.json")]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
