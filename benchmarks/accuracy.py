"""Accuracy of a small student: the recipe and its parts, with several seeds and the weights of the last epoch.

Each line of the table is the recipe with the changes in its name. `--held-out 1500` measures on sentences split off the
training rows instead of the evaluation rows; the recipe was chosen on them (docs/accuracy.md). Options after `--` go to
`kdistill distill`, after those of the recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import kdistill as kd

from . import common
from .held_out import split

# Keeps the weights of the last epoch, so that no epoch is chosen by its accuracy on the evaluation rows.
LAST_EPOCH = ("--save-strategy", "no", "--no-load-best-model-at-end")


def dropout(p: str) -> tuple[str, ...]:
    """Return the options that set all dropout of the student to p."""
    return ("--hidden-dropout-prob", p, "--attention-probs-dropout-prob", p)


# Chosen on 1,500 sentences held out of the training rows together with all their phrases, not on the evaluation rows.
RECIPE = (
    "--student", "L2-H128-A2", "--augment", "24", "--num-train-epochs", "6", "--per-device-train-batch-size", "64",
    "--learning-rate", "1e-3", "--warmup-ratio", "0.1", "--alpha", "0.5", "--temperature", "4", *dropout("0"),
)  # fmt: skip
FOUR_COPIES = ("--augment", "4", "--num-train-epochs", "3")
# Dropout and epochs that suit training without augmented copies.
NO_COPIES = ("--augment", "0", "--num-train-epochs", "3", *dropout("0.1"))
RANDOM_START = "labels alone, random start"
VARIANTS: Mapping[str, Sequence[str]] = {
    "recipe": (),
    "recipe, 3 epochs": ("--num-train-epochs", "3"),
    "4 copies, 3 epochs": FOUR_COPIES,
    "4 copies, 3 epochs, average of the weights": (*FOUR_COPIES, "--ema-decay", "0.999"),
    "4 copies, 3 epochs, dropout 0.1": (*FOUR_COPIES, *dropout("0.1")),
    "no copies, 3 epochs, dropout 0.1": NO_COPIES,
    "no copies, 12 epochs, dropout 0.1": (*NO_COPIES, "--num-train-epochs", "12"),
    "labels alone": (*NO_COPIES, "--alpha", "1"),
    RANDOM_START: (*NO_COPIES, "--alpha", "1"),
}


def distill(options: argparse.Namespace, arguments: Sequence[str], directory: Path, seed: int) -> dict[str, float]:
    """Run `kdistill distill` and return its figures."""
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
    """Write a model of the student's shape with random weights; return its directory."""
    config = kd.BertConfig.from_pretrained(options.teacher).replace(**common.STUDENT_SHAPE)
    kd.BertForSequenceClassification(config, seed=seed).save_pretrained(directory)
    return directory


def measure(options: argparse.Namespace, directory: Path) -> None:
    """Train every variant with every seed and report."""
    accuracies: dict[str, list[float]] = {name: [] for name in options.variants}
    teacher = float("nan")
    for seed in options.seeds:
        for number, name in enumerate(options.variants):
            changes = [*RECIPE, *options.arguments, *VARIANTS[name]]
            if name == RANDOM_START:
                changes += ["--student", str(random_student(options, directory / f"start-{seed}", seed))]
            figures = distill(options, changes, directory / f"{number}-{seed}", seed)
            accuracies[name].append(figures["eval_accuracy"])
            teacher = figures["teacher_accuracy"]
            print(f"seed {seed}, {name}: {figures['eval_accuracy']:.4f}", file=sys.stderr)
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    lines = [(name, *values, means[name]) for name, values in accuracies.items()]
    text = common.table(["", *(f"seed {seed}" for seed in options.seeds), "mean"], lines)
    command = " ".join([*RECIPE, *options.arguments, *LAST_EPOCH])
    text += f"\n\nTeacher: {teacher:.4f}. Recipe: `kdistill distill {command}`"
    common.report("Accuracy", text, {"accuracies": accuracies, "means": means, "teacher": teacher}, options)


def main() -> None:
    """Read the options."""
    parser = common.parser(__doc__)
    common.add_data(parser, sample=False)
    parser.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    parser.add_argument("--held-out", type=int, default=0, help="measure on so many sentences of --train instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[33, 34, 35], help="fixed beforehand")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="lines of the table")
    parser.add_argument("arguments", nargs="*", help="after --: further options of kdistill distill")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if options.held_out:
            options.train, options.eval = split(options.train, options.held_out, Path(directory))
        measure(options, Path(directory))


if __name__ == "__main__":
    main()
