"""Accuracy of a small student, distilled and without its teacher: the recipe, several seeds, weights of the last epoch.

All students have the same shape and see the same rows in the same order. The first two start from the same weights,
made by `from_teacher`; the second learns from the labels alone (`--alpha 1`), and so does the third, which starts from
random weights and owes nothing to the teacher. Options after `--` go to `kdistill distill`, after the recipe's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import kdistill as kd

from . import common

# No epoch is chosen by its accuracy on the evaluation rows: the last one's weights count.
LAST_EPOCH = ("--save-strategy", "no", "--no-load-best-model-at-end")
# Chosen on 1,500 sentences held out of the training rows together with all their phrases, not on the evaluation rows.
RECIPE = (
    "--student", "L2-H128-A2", "--num-train-epochs", "3", "--per-device-train-batch-size", "64",
    "--learning-rate", "1e-3", "--warmup-ratio", "0.1", "--alpha", "0.5", "--temperature", "4",
)  # fmt: skip
LABELS_ALONE = ("--alpha", "1")


def distill(options: argparse.Namespace, arguments: Sequence[str], directory: Path, seed: int) -> dict[str, float]:
    """Run the command and return its figures."""
    command = [
        sys.executable, "-m", "kdistill", "distill",
        "--teacher", str(options.teacher), "--train", str(options.train), "--eval", str(options.eval),
        "--output-dir", str(directory), "--threads", str(options.threads), "--seed", str(seed), "--json",
        *LAST_EPOCH, *arguments,
    ]  # fmt: skip
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def random_student(options: argparse.Namespace, directory: Path, seed: int) -> Path:
    """A model of the student's shape that has learnt nothing; returns its directory."""
    config = kd.BertConfig.from_pretrained(options.teacher).replace(**common.STUDENT_SHAPE)
    kd.BertForSequenceClassification(config, seed=seed).save_pretrained(directory)
    return directory


def measure(options: argparse.Namespace) -> None:
    """Train every variant with every seed and report."""
    recipe = [*RECIPE, *options.arguments]
    accuracies: dict[str, list[float]] = {}
    teacher = float("nan")
    with tempfile.TemporaryDirectory() as directory:
        for seed in options.seeds:
            start = random_student(options, Path(directory, f"start-{seed}"), seed)
            variants = {
                "distilled": (),
                "labels alone": LABELS_ALONE,
                "labels alone, random start": (*LABELS_ALONE, "--student", str(start)),
            }
            for number, (name, changes) in enumerate(variants.items()):
                figures = distill(options, [*recipe, *changes], Path(directory, f"{number}-{seed}"), seed)
                accuracies.setdefault(name, []).append(figures["eval_accuracy"])
                teacher = figures["teacher_accuracy"]
                print(f"seed {seed}, {name}: {figures['eval_accuracy']:.4f}", file=sys.stderr)
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    lines = [(name, *values, means[name]) for name, values in accuracies.items()]
    text = common.table(["", *(f"seed {seed}" for seed in options.seeds), "mean"], lines)
    text += f"\n\nTeacher: {teacher:.4f}. Recipe: `kdistill distill {' '.join([*recipe, *LAST_EPOCH])}`"
    common.report("Accuracy", text, {"accuracies": accuracies, "means": means, "teacher": teacher}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    common.add_data(options, sample=False)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--seeds", type=int, nargs="+", default=[33, 34, 35], help="fixed beforehand")
    options.add_argument("arguments", nargs="*", help="after --: further options of kdistill distill")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
