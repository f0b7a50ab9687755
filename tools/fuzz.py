"""Fuzzing: atheris, which is guided by coverage, looks for files on which a reader fails without a proper error.

Usage: python tools/fuzz.py [--seconds N] [READER...]; by default all readers of tests/support/readers.py. Each runs in
a separate process and starts from valid files; findings are written to build/fuzz/READER. The exit status is 1 if there
are any.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "build" / "fuzz"
sys.path.insert(0, str(ROOT / "tests"))


def fuzz_one(name: str, arguments: list[str]) -> None:
    """Fuzz one reader. Does not return: atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["kdistill"]):
        from support.readers import CLEAN, READERS
    warnings.simplefilter("ignore")
    reader = READERS[name]

    def target(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=_fast_directory()) as directory:
            try:
                reader(Path(directory), data)
            except CLEAN as error:
                if directory not in str(error):
                    raise AssertionError(f"the message does not name the file: {error!r}") from error

    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


def _fast_directory() -> str | None:
    """Return a directory in memory, where the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run(name: str, seconds: int) -> tuple[int, bool]:
    """Fuzz one reader in a separate process; return how many inputs were tried and whether one was a finding."""
    from support.readers import sound_files

    corpus = FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for index, data in enumerate(sound_files(Path(directory))[name]):
            (corpus / f"sound-{index}").write_bytes(data)
    limits = [
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    command = [sys.executable, __file__, "--one", name, str(corpus), f"-artifact_prefix={corpus.parent}/", *limits]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (corpus.parent / "log").write_text(done.stdout + done.stderr)
    executed = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    return int(executed[1]) if executed else 0, done.returncode != 0


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
    from support.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each reader (default: 30)")
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    options = parser.parse_args()
    total, findings = 0, 0
    for name in options.readers or READERS:
        count, found = run(name, options.seconds)
        total += count
        findings += found
        print(
            f"{name}: {count:,} inputs, {'FOUND something, see build/fuzz/' + name if found else 'clean'}", flush=True
        )
    print(f"{total:,} inputs, {findings} readers with findings")
    raise SystemExit(findings > 0)


if __name__ == "__main__":
    main()
