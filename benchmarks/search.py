"""A hyperparameter search over the notebook's space on all of SST-2: its time and the accuracy of its winner.

`kdistill search` begins with an empty teacher cache; epochs 2-10, learning rate 1e-5..1e-3 (log), alpha 0..1,
temperature 2..30, batch 128, Optuna's TPE and median pruner; the objective is the last epoch's accuracy on the dev
rows. The winner is then trained again with fresh seeds, and so is the notebook's recipe. The notebook in PyTorch runs
the teacher in every step of every trial: steps spread over an epoch are timed (`benchmarks.torch_distill`), and the
rest is extrapolated by padded tokens and by the epochs of the same trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from kdistill.search.study import JOURNAL_FILE, open_journal
from kdistill.search.trials import BACKENDS

from . import accuracy, common, whole_job

BATCH = ("--per-device-train-batch-size", "128")
STUDENT = ("--student", "L2-H128-A2", "--recipe", "transformers")  # the notebook's space has no warm-up
DEFAULT_RECIPE = ("--num-train-epochs", "7", "--learning-rate", "6e-5", "--alpha", "0.5", "--temperature", "4")


def search(options: argparse.Namespace, directory: Path) -> tuple[whole_job.Finished, list[optuna.trial.FrozenTrial]]:
    """Run `kdistill search`; return its cost and its trials."""
    command = [
        sys.executable, "-m", "kdistill", "search", "--teacher", str(options.teacher), *STUDENT,
        "--train", str(options.train), "--eval", str(options.eval), "--output-dir", str(directory),
        "--n-trials", str(options.trials), "--n-jobs", str(options.jobs), "--threads", str(options.threads),
        "--backend", options.backend,
        "--seed", str(common.SEED), "--no-load-best-model-at-end", "--json", *BATCH,
    ]  # fmt: skip
    finished = whole_job.run(command, directory.with_name("cache"))
    study = optuna.load_study(study_name="search", storage=open_journal(directory / JOURNAL_FILE))
    return finished, study.trials


def retrain(options: argparse.Namespace, directory: Path) -> dict[str, list[float]]:
    """Train with the winner's hyperparameters and with the default recipe; return the last accuracy of each seed."""
    recipes = {
        "winner": ("--config", str(directory / "best_run.toml")),
        "default recipe": DEFAULT_RECIPE,
    }
    accuracies: dict[str, list[float]] = {}
    for seed in options.seeds:
        for name, recipe in recipes.items():
            run = directory.with_name(f"{name.replace(' ', '-')}-{seed}")
            figures = accuracy.distill(options, [*STUDENT, *BATCH, *recipe], run, seed)
            accuracies.setdefault(name, []).append(figures["eval_accuracy"])
            print(f"seed {seed}, {name}: {figures['eval_accuracy']:.4f}", file=sys.stderr)
    return accuracies


def torch_epoch(options: argparse.Namespace, directory: Path) -> dict[str, float]:
    """Measure an epoch of the notebook's way in PyTorch, from a sample of its steps."""
    start = accuracy.random_student(options, directory / "start", common.SEED)
    command = [
        sys.executable, "-m", "benchmarks.torch_distill", "--teacher", str(options.teacher), "--student", str(start),
        "--train", str(options.train), "--eval", str(options.eval), "--output-dir", str(directory / "torch"),
        "--threads", str(options.threads), "--notebook-steps", str(options.torch_steps),
    ]  # fmt: skip
    figures: dict[str, float] = json.loads(whole_job.run(command, directory / "cache").output.splitlines()[-1])
    return figures


def measure(options: argparse.Namespace) -> None:
    """Search, retrain, time the notebook's way, and report."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        options.train = whole_job.first_rows(options.train, options.rows, directory / "train.tsv")
        finished, trials = search(options, directory / "search")
        accuracies = retrain(options, directory / "search")
        torch = torch_epoch(options, directory)
    found = json.loads(finished.output.splitlines()[-1])
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    figures = {
        "seconds": finished.seconds,
        "mebibytes": finished.mebibytes,
        "states": Counter(trial.state.name.lower() for trial in trials),
        "best": found,
        "epochs": sum(len(trial.intermediate_values) for trial in trials),
        "epochs_of_a_complete_trial": statistics.fmean(len(trial.intermediate_values) for trial in complete),
        "median_seconds_of_a_complete_trial": statistics.median(
            (trial.datetime_complete - trial.datetime_start).total_seconds() for trial in complete
        ),
        "accuracies": accuracies,
        "torch": torch,
        "trials": [
            {"params": trial.params, "state": trial.state.name, "reports": trial.intermediate_values}
            for trial in trials
        ],
    }
    common.report("Hyperparameter search", text_of(figures, options), figures, options)


def text_of(figures: dict[str, Any], options: argparse.Namespace) -> str:
    """Return the tables of the report, with the circumstances in words."""
    epochs, torch = figures["epochs_of_a_complete_trial"], figures["torch"]
    per_epoch = torch["seconds_an_epoch"]
    times = common.table(
        ["", "kdistill, s", "PyTorch, teacher in every step, s", "times kdistill's"],
        [
            (name, ours, theirs, theirs / ours)
            for name, ours, theirs in (
                (f"the search, {options.trials} trials", figures["seconds"], per_epoch * figures["epochs"]),
                (
                    "its share for each complete trial, all in",
                    figures["seconds"] / figures["epochs"] * epochs,
                    per_epoch * epochs,
                ),
            )
        ],
    )
    seeds = [f"seed {seed}" for seed in options.seeds]
    lines = [(name, *values, statistics.fmean(values)) for name, values in figures["accuracies"].items()]
    best = ", ".join(f"{name} {value:.4g}" for name, value in figures["best"]["hyperparameters"].items())
    states = ", ".join(f"{count} {state}" for state, count in figures["states"].items())
    return "\n\n".join(
        [
            times,
            f"{states}; {figures['epochs']} epochs, {epochs:.1f} of a complete trial, which lasts "
            f"{figures['median_seconds_of_a_complete_trial']:.1f} s (median, {options.jobs} at once); peak "
            f"{figures['mebibytes']:.0f} MiB. PyTorch's seconds are extrapolated, without evaluation, from "
            f"{torch['steps']} steps that took {torch['timed_seconds']:.0f} s.",
            f"Best, trial {figures['best']['run_id']}: {best}; {figures['best']['objective']:.4f} on the dev rows, "
            "which chose it.",
            common.table(["trained anew", *seeds, "mean"], lines),
        ]
    )


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    common.add_data(options)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--trials", type=int, default=50, help="of the search")
    options.add_argument("--jobs", type=int, default=2, help="trials at once")
    options.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="threads, or processes of Ray")
    options.add_argument(
        "--seeds", type=int, nargs="+", default=[34, 35, 36], help="fixed beforehand, not the search's"
    )
    options.add_argument("--torch-steps", type=int, default=24, help="steps of PyTorch to time")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
