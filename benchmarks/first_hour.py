"""Students on several data sets with no argument but their files, as tables in Markdown.

Runs `kdistill distill --teacher T --student S --train F --eval F --output-dir D` for each data set, student and number
of rows (the first of the training file, shuffled with a fixed seed), one after the other, and prints for each the
metric of the kept weights beside that of the teacher and of a constant answer, minutes, CPU minutes (which other work
on the machine changes little) and size.

    python -m benchmarks.first_hour --data DIR --set sst2=DIR/teacher [--set banking77=DIR/teacher ...]

DIR/NAME has train.csv and eval.csv, or train.jsonl and eval.jsonl. A run that ended is read again, not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import kdistill as kd

STUDENTS = ("L2-H128-A2", "L4-H256-A4")
ROWS = ("500", "2000", "8000", "all")
RESULTS = "first-hour.json"


def run(*words: str) -> dict[str, Any]:
    """Return the figures that a command of kdistill prints as JSON."""
    command = [sys.executable, "-m", "kdistill", *words, "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return figures


def file_of(data: Path, name: str, part: str) -> Path:
    return next(path for suffix in ("csv", "jsonl") if (path := data / name / f"{part}.{suffix}").is_file())


def take_rows(source: Path, count: str, target: Path, seed: int) -> Path:
    """Write `count` rows of a file, or return the file itself for "all" or more than it has."""
    table = kd.load_dataset(str(source.parent), data_files={"train": source.name})["train"]
    if count == "all" or int(count) >= len(table):
        return source
    path = target / f"{source.parent.name}-{count}.jsonl"
    chosen = table.shuffle(seed=seed).select(range(int(count)))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in chosen))
    return path


def constant_answer(evaluation: Path, metric: str) -> float | None:
    """Return the metric of the most frequent label for every row; None for a metric that it does not have."""
    if metric != "accuracy":
        return None
    labels = kd.load_dataset(str(evaluation.parent), data_files={"eval": evaluation.name})["eval"]["label"]
    return float(np.unique([str(label) for label in labels], return_counts=True)[1].max() / len(labels))


def measure(options: argparse.Namespace, name: str, teacher: Path, metric: str) -> list[dict[str, Any]]:
    """Distil every student from one teacher on each number of rows, and return a row of figures for each."""
    evaluation = file_of(options.data, name, "eval")
    results = options.output_dir / f"{name}-{RESULTS}"
    rows: list[dict[str, Any]] = json.loads(results.read_text()) if results.is_file() else []
    if not rows:
        figures = run("evaluate", "--model", str(teacher), "--data", str(evaluation))
        rows.append({"student": "teacher", "rows": "", "metric": figures[metric], "MB": megabytes(teacher)})
        rows.append({"student": "constant answer", "rows": "", "metric": constant_answer(evaluation, metric)})
    for student in options.students:
        for count in options.rows:
            train = take_rows(file_of(options.data, name, "train"), count, options.output_dir, options.seed)
            known = any(row["student"] == shown(student) and row["rows"] == count for row in rows)
            if known or (count != "all" and train == file_of(options.data, name, "train")):
                continue
            directory = options.output_dir / f"{name}-{shown(student)}-{count}"
            shutil.rmtree(directory, ignore_errors=True)
            files = ("--train", str(train), "--eval", str(evaluation), "--output-dir", str(directory))
            start, cpu = time.monotonic(), cpu_minutes()
            figures = run("distill", "--teacher", str(teacher), "--student", student, *files)
            minutes = (time.monotonic() - start) / 60
            row = {"student": shown(student), "rows": count, "metric": figures[f"eval_{metric}"], "minutes": minutes}
            rows.append(row | {"CPU minutes": cpu_minutes() - cpu, "MB": megabytes(directory)})
            results.write_text(json.dumps(rows, indent=1))
            print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def shown(student: str) -> str:
    return Path(student).name


def cpu_minutes() -> float:
    """Return the CPU time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def megabytes(model: Path) -> float:
    return sum(path.stat().st_size for path in model.glob("*.safetensors")) / 1e6


def table(rows: list[dict[str, Any]], metric: str) -> str:
    header = ("model", "rows", metric, "minutes", "CPU minutes", "MB")
    formats = ("{}", "{}", "{:.4f}", "{:.1f}", "{:.1f}", "{:.0f}")
    keys = ("student", "rows", "metric", "minutes", "CPU minutes", "MB")
    lines = [header, ("---",) * len(header)]
    lines += [
        tuple(
            "" if row.get(key) in (None, "") else form.format(row[key]) for key, form in zip(keys, formats, strict=True)
        )
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    options.add_argument(
        "--data", type=Path, required=True, help="directory with a directory of rows for each data set"
    )
    options.add_argument(
        "--set", action="append", required=True, dest="sets", metavar="NAME=TEACHER[=METRIC]", help="a data set"
    )
    options.add_argument("--students", nargs="+", default=STUDENTS, help="shapes or model directories")
    options.add_argument("--rows", nargs="+", default=ROWS, help="numbers of training rows, or all")
    options.add_argument("--output-dir", type=Path, default=Path("build/first-hour"), help="models and figures")
    options.add_argument("--seed", type=int, default=33, help="of the choice of rows")
    given = options.parse_args()
    given.output_dir.mkdir(parents=True, exist_ok=True)
    for each in given.sets:
        name, teacher, *metric = each.split("=")
        rows = measure(given, name, Path(teacher), metric[0] if metric else "accuracy")
        print(f"### {name}\n\n{table(rows, metric[0] if metric else 'accuracy')}\n", flush=True)


if __name__ == "__main__":
    main()
