"""Millions of rows: peak of anonymous memory and rows a second of encoding, labelling and an epoch of distillation.

The rows are those of SST-2, each many times with another word put in that SST-2 does not have, so that all differ. The
teacher is a student of the first rows of SST-2 itself. Each stage is a command of its own:

    encode   `kdistill encode` of the rows, from TSV
    label    `kdistill distill --max-steps 1`: the teacher answers for all rows, into an empty teacher cache
    epoch    `kdistill distill --num-train-epochs 1` from the full cache

Anonymous memory is what a process cannot give back: RssAnon in /proc/PID/status, read 50 times a second. What has been
made of a number of rows is deleted before the next one begins; 10 million rows take 3 GB of disk. A stage that ended is
not repeated, so that a measurement of hours can be interrupted: its figures are kept in --directory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import common

SST2 = common.SHARED / "data" / "SST-2"
PAUSE_SECONDS = 0.02


def anonymous_mebibytes(process: int) -> float:
    """Return the anonymous memory of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


def run(words: Sequence[str], cache: Path) -> dict[str, Any]:
    """Run a command of kdistill to its end; return its figures, wall and CPU seconds, and its peak in MiB."""
    command = [sys.executable, "-m", "kdistill", *words, "--json"]
    with tempfile.TemporaryFile() as printed:
        started, process = (
            time.monotonic(),
            subprocess.Popen(command, stdout=printed, env={**os.environ, "KDISTILL_CACHE": str(cache)}),
        )
        peak, status = 0.0, 0
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, anonymous_mebibytes(process.pid))
            time.sleep(PAUSE_SECONDS)
        seconds, (_, status, use) = time.monotonic() - started, ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        printed.seek(0)
        figures = json.loads(printed.read().splitlines()[-1])
    return {"seconds": seconds, "cpu_seconds": use.ru_utime + use.ru_stime, "mebibytes": peak, "figures": figures}


def rows_of(source: Path) -> dict[str, str]:
    """Return the different texts of a TSV file of texts and labels, and the label of each."""
    lines = source.read_text(encoding="utf-8").splitlines()[1:]
    return {text.strip(): label for text, label in (line.split("\t") for line in lines)}


def new_words(vocabulary: Path, texts: Sequence[str]) -> list[str]:
    """Return the words of a vocabulary that no text has."""
    known = {word for text in texts for word in text.split()}
    words = vocabulary.read_text(encoding="utf-8").splitlines()
    return [word for word in words if word.isascii() and word.isalpha() and len(word) > 3 and word not in known]


def varied(rows: dict[str, str], words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield texts with labels without end: all rows with the first word put in, then with the second one, ...

    The word that no row has tells what a text was made of, so all are different.
    """
    for number, word in enumerate(words):
        for text, label in rows.items():
            parts = text.split(" ")
            place = number % (len(parts) + 1)
            yield " ".join((*parts[:place], word, *parts[place:])), label


def measure(options: argparse.Namespace, count: int, teacher: Path) -> dict[str, Any]:
    """Measure the stages on so many rows."""
    place = options.directory / str(count)
    place.mkdir(parents=True, exist_ok=True)
    cache, tokens, data = place / "cache", place / "tokens", place / "rows.tsv"
    threads = ["--threads", str(options.threads)]
    distill = ["distill", "--teacher", str(teacher), "--student", options.student, "--train", str(tokens)]
    distill += ["--eval", str(SST2 / "dev.tsv"), "--save-strategy", "no", "--overwrite-output-dir", *threads]
    distill += ["--per-device-train-batch-size", str(options.batch_size), "--learning-rate", "1e-3"]
    stages = {
        "encode": ["encode", "--data", str(data), "--tokenizer", str(teacher), "--output", str(tokens), *threads],
        "label": [*distill, "--output-dir", str(place / "one-step"), "--max-steps", "1"],
        "epoch": [*distill, "--output-dir", str(place / "student"), "--num-train-epochs", "1"],
    }
    measured = {}
    for name, words in stages.items():
        kept = options.directory / f"{count}-{name}.json"
        if not kept.is_file():
            if name == "encode":
                write_rows(data, teacher / "vocab.txt", count)
            found = run(words, cache) | {"bytes": {of.name: bytes_of(of) for of in (data, tokens, cache)}}
            kept.write_text(json.dumps(found), encoding="utf-8")
        measured[name] = json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(place)
    return measured


def write_rows(path: Path, vocabulary: Path, count: int) -> None:
    """Write so many different rows."""
    rows = rows_of(SST2 / "train.tsv")
    texts = varied(rows, new_words(vocabulary, list(rows)))
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence\tlabel\n")
        file.writelines(f"{text}\t{label}\n" for text, label in itertools.islice(texts, count))


def bytes_of(path: Path) -> int:
    """Return what a file or directory takes on disk, without the holes in files."""
    return sum(of.stat().st_blocks * 512 for of in (path, *path.rglob("*")) if of.is_file())


def made_teacher(options: argparse.Namespace) -> Path:
    """Return the small teacher, distilled from the large one."""
    directory = options.directory / "teacher"
    if not (directory / "model.safetensors").is_file():
        rows = options.directory / "teacher-rows.tsv"
        with (SST2 / "train.tsv").open(encoding="utf-8") as lines:
            rows.write_text("".join(itertools.islice(lines, options.teacher_rows + 1)), encoding="utf-8")
        words = ["--teacher", str(options.teacher), "--student", options.teacher_shape, "--train", str(rows)]
        words += ["--output-dir", str(directory), "--num-train-epochs", "1", "--threads", str(options.threads)]
        run(["distill", *words, "--overwrite-output-dir"], options.directory / "teacher-cache")
    return directory


def main() -> None:
    """Read the options, measure and report."""
    options = common.parser(__doc__)
    options.add_argument("--teacher", type=Path, default=common.SHARED / "models" / "minilm-l6-sst2", help="of teacher")
    options.add_argument("--teacher-shape", default="L2-H128-A2", help="the shape of the small teacher")
    options.add_argument("--teacher-rows", type=int, default=10_000, help="rows that the small teacher learns from")
    options.add_argument("--student", default="L2-H64-A2", help="the shape of the student")
    options.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="numbers of rows")
    options.add_argument("--batch-size", type=int, default=256, help="rows of a step")
    options.add_argument("--directory", type=Path, default=Path("build", "many-rows"), help="where to work")
    given = options.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    teacher = made_teacher(given)
    found = {count: measure(given, count, teacher) for count in given.rows}
    lines = [
        (count, name, of["mebibytes"], count / of["seconds"], count / of["cpu_seconds"])
        for count, measured in found.items()
        for name, of in measured.items()
    ]
    header = ["rows", "stage", "peak of anonymous memory, MiB", "rows a second", "rows a CPU second"]
    common.report("Many rows", common.table(header, lines), {str(count): of for count, of in found.items()}, given)


if __name__ == "__main__":
    main()
