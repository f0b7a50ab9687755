"""What `--recipe auto` gives for students made from a shape, beside recipes tuned by hand on each data set.

`--task NAME TEACHER TRAIN EVAL` names the rows and may be repeated; the teacher is a fine-tuned model, and the names
decide which hand-tuned recipe is compared (`TUNED`). `--grid` runs trials with one seed instead, each a line of options
of `kdistill distill` in a file, which is how the recipes of `TUNED` were found. Every run keeps the weights of its last
epoch. The metric is accuracy; for several labels at once the F1 (micro), for regression Spearman's rho.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import common
from .accuracy import LAST_EPOCH

AUTO, TRANSFORMERS, HAND = "recipe auto", "defaults of transformers", "tuned by hand"
TUNED = {
    "sst2": "--learning-rate 2e-3 --num-train-epochs 8 --per-device-train-batch-size 64 --warmup-ratio 0.1",
    "banking77": "--learning-rate 2e-3 --num-train-epochs 22 --per-device-train-batch-size 64 --warmup-ratio 0.1",
    "clinc150": "--learning-rate 1e-3 --num-train-epochs 26 --per-device-train-batch-size 32 --warmup-ratio 0.1",
    "goemotions": "--learning-rate 1e-3 --num-train-epochs 5 --per-device-train-batch-size 32 --warmup-ratio 0.1 "
    "--alpha 1",
}
METRICS = ("eval_accuracy", "eval_spearmanr")


class Task(NamedTuple):
    """A data set with its teacher, as `--task` gives it."""

    name: str
    teacher: str
    train: str
    eval: str


def distill(options: argparse.Namespace, task: Task, recipe: Sequence[str], seed: int) -> dict[str, Any]:
    """Run `kdistill distill` with the options of a recipe and return its figures, and its wall time as "minutes"."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable, "-m", "kdistill", "distill", "--student", options.student, "--teacher", task.teacher,
            "--train", task.train, "--eval", task.eval, "--output-dir", str(Path(directory, "out")),
            "--seed", str(seed), "--threads", str(options.threads), "--max-length", str(options.max_length), "--json",
            *LAST_EPOCH, *recipe,
        ]  # fmt: skip
        started = time.monotonic()
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
        return figures | {"minutes": (time.monotonic() - started) / 60}


def recipes_for(task: Task) -> dict[str, list[str]]:
    """Return the options of each recipe that is compared on a task."""
    recipes = {AUTO: ["--recipe", "auto"], TRANSFORMERS: ["--recipe", "transformers"]}
    return recipes | ({HAND: shlex.split(TUNED[task.name])} if task.name in TUNED else {})


def score(figures: dict[str, Any]) -> float:
    """Return the metric of a run's task."""
    name = "eval_f1" if "eval_f1" in figures else next(name for name in METRICS if name in figures)
    return float(figures[name])


def compare(options: argparse.Namespace) -> None:
    """Train each recipe with each seed on each task, and report."""
    lines, figures = [], []
    for task in options.tasks:
        for name, recipe in recipes_for(task).items():
            seeds = options.seeds[:1] if name == TRANSFORMERS else options.seeds
            runs = [distill(options, task, recipe, seed) for seed in seeds]
            scores = [score(run) for run in runs]
            minutes = statistics.fmean(run["minutes"] for run in runs)
            each = [f"{value:.4f}" for value in scores]
            lines.append((task.name, name, ", ".join(each), statistics.fmean(scores), minutes))
            figures.append({"task": task.name, "recipe": name, "options": recipe, "runs": runs})
            print(*lines[-1], sep="\t", file=sys.stderr, flush=True)
    text = common.table(["data", "recipe", "metric of each seed", "mean", "minutes"], lines)
    common.report("Recipe for students made from a shape", text, {"runs": figures}, options)


def search(options: argparse.Namespace) -> None:
    """Run the trials of `--grid` on each task, and report."""
    lines = []
    for task in options.tasks:
        for recipe in options.grid.read_text(encoding="utf-8").splitlines():
            run = distill(options, task, shlex.split(recipe), options.seeds[0])
            lines.append((task.name, recipe, score(run), run["minutes"]))
            print(*lines[-1], sep="\t", file=sys.stderr, flush=True)
    text = common.table(["data", "options", "metric", "minutes"], lines)
    common.report("Trials for students made from a shape", text, {"trials": lines}, options)


def main() -> None:
    """Read the options."""
    parser = common.parser(__doc__)
    parser.add_argument("--task", nargs=4, action="append", required=True, metavar=("NAME", "TEACHER", "TRAIN", "EVAL"))
    parser.add_argument("--student", default="L2-H128-A2", help="a shape")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[33, 34, 35], help="fixed beforehand")
    parser.add_argument("--grid", type=Path, help="a file with a trial's options of kdistill distill on each line")
    options = parser.parse_args()
    options.tasks = [Task(*words) for words in options.task]
    (search if options.grid else compare)(options)


if __name__ == "__main__":
    main()
