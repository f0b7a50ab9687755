"""The stages of `kdistill distill` and the time of each, when the teacher's logits are in the cache.

The stages run one after the other in one process, as in the command; the first two are separate processes, and so is
the whole command at the end, with the same rows, for one epoch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kdistill as kd
from kdistill.data.columns import read_rows
from kdistill.data.dataset import Dataset, encode
from kdistill.distill.cache import TeacherCache, cache_directory, row_keys, teacher_logits
from kdistill.system.progress import Progress
from kdistill.train.arguments import DistillationTrainingArguments
from kdistill.train.checkpoint import save_checkpoint, save_model
from kdistill.train.evaluate import predict
from kdistill.train.loop import training_step
from kdistill.train.objective import BatchLoss
from kdistill.train.plan import EpochPlan
from kdistill.train.state import TrainerState

from . import common
from .whole_job import first_rows

BATCH_SIZE = 128
IMPORTS = "from kdistill.cli import commands, main; import tokenizers, safetensors.numpy"


class Run:
    """The stages of one run; attributes hold the results of a stage for later ones."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.args = DistillationTrainingArguments(output_dir=str(directory), learning_rate=6e-5, disable_tqdm=True)

    def stages(self) -> dict[str, Callable[[], object]]:
        """Return the stages by name, in the order of the command."""
        return {
            "interpreter alone": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            "interpreter and imports": lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True),
            "teacher: load, check, freeze": self.load_teacher,
            "tokenizer: load": self.load_tokenizer,
            "rows: read": self.read,
            "rows: tokenise": self.tokenise,
            "student: from the teacher": self.make_student,
            "teacher's logits: hash of the weights": lambda: self.teacher.weights_hash(),
            "teacher's logits: look up": self.look_up,
            "order and packing of an epoch's batches": self.pack,
            "training, one epoch (packing included)": self.train,
            "evaluation": self.evaluate,
            "checkpoint: save": self.checkpoint,
            "model: save": lambda: save_model(self.directory / "model", self.student, self.tokenizer),
        }

    def load_teacher(self) -> None:
        self.teacher = kd.BertForSequenceClassification.from_pretrained(self.options.teacher).freeze()

    def load_tokenizer(self) -> None:
        self.tokenizer = kd.AutoTokenizer.from_pretrained(self.options.teacher)

    def read(self) -> None:
        self.rows = read_rows(self.options.train)

    def tokenise(self) -> None:
        self.dataset = encode(self.rows, self.tokenizer)

    def make_student(self) -> None:
        counts = np.bincount(self.dataset.ids, minlength=self.teacher.config.vocab_size)
        config = self.teacher.config.replace(**common.STUDENT_SHAPE)
        self.student = kd.BertForSequenceClassification.from_teacher(self.teacher, config, token_counts=counts)
        self.optimizer = kd.AdamW(self.student, lr=6e-5)

    def look_up(self) -> None:
        self.soft = teacher_logits(self.teacher, self.dataset)

    def pack(self) -> None:
        for rows in self._steps():
            self.dataset.batch(rows)

    def train(self) -> None:
        for rows in self._steps():
            training_step(
                self.optimizer, self.dataset, rows, batch_size=BATCH_SIZE, max_grad_norm=1.0,
                loss=lambda logits, labels, micro: BatchLoss(
                    *kd.distillation_loss(logits, self.soft[micro], labels, alpha=0.5, temperature=4.0), []
                ),
                on_event=lambda event: None,
            )  # fmt: skip

    def evaluate(self) -> None:
        dev: Dataset = encode(read_rows(self.options.eval), self.tokenizer)
        quiet = Progress("evaluate", unit="rows", quiet=True)
        predict(self.student, dev, batch_size=BATCH_SIZE, prefix="eval", progress=quiet)

    def checkpoint(self) -> None:
        path = self.directory / "checkpoint"
        path.mkdir(exist_ok=True)
        save_checkpoint(path, self.student, self.tokenizer, self.optimizer, TrainerState(), self.args)

    def _steps(self) -> list[np.ndarray]:
        plan = EpochPlan(len(self.dataset), batch_size=BATCH_SIZE, accumulation=1, drop_last=False, seed=33)
        return list(plan.rows_of_epoch(0, 0))


def fill_cache(options: argparse.Namespace) -> None:
    """Fill the cache with random logits for every row; the time of a look-up does not depend on their values."""
    teacher = kd.BertForSequenceClassification.from_pretrained(options.teacher).freeze()
    tokenizer = kd.AutoTokenizer.from_pretrained(options.teacher)
    datasets = [encode(read_rows(source), tokenizer) for source in (options.train, options.eval)]
    keys = np.unique(np.concatenate([row_keys(dataset) for dataset in datasets]))
    logits = np.random.default_rng(0).standard_normal((len(keys), teacher.config.num_labels), np.float32)
    TeacherCache(cache_directory(), teacher.weights_hash(), teacher.config.num_labels).append(keys, logits)


def whole_command(options: argparse.Namespace, output: Path) -> list[str]:
    """Return the command that does all stages."""
    return [
        sys.executable, "-m", "kdistill", "distill", "--teacher", str(options.teacher), "--student", "L2-H128-A2",
        "--train", str(options.train), "--eval", str(options.eval), "--output-dir", str(output), "--json",
        "--num-train-epochs", "1", "--learning-rate", "6e-5", "--recipe", "transformers",
        "--threads", str(options.threads),
    ]  # fmt: skip


def measure(options: argparse.Namespace) -> None:
    """Run all stages several times and report."""
    times: dict[str, list[float]] = {}
    kd.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["KDISTILL_CACHE"] = str(Path(temporary, "cache"))
        options.train = first_rows(options.train, options.rows, Path(temporary, "train.tsv"))
        fill_cache(options)
        for turn in range(options.rounds):
            directory = Path(temporary, str(turn))
            directory.mkdir()
            stages = Run(options, directory).stages()
            command = whole_command(options, directory / "whole")
            stages["the whole command"] = lambda command=command: subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL
            )
            for name, stage in stages.items():
                times.setdefault(name, []).append(common.seconds(stage))
    seconds = common.medians(times)
    text = common.table(["stage", "seconds"], list(seconds.items()))
    text += f"\n\n{f'The first {options.rows:,}' if options.rows else 'All'} training rows, one epoch of batch 128."
    common.report("Stages of the whole command", text, {"seconds": times, "median_seconds": seconds}, options)


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=5)
    common.add_data(options)
    options.add_argument("--eval", type=Path, default=common.SHARED / "data" / "SST-2" / "dev.tsv", help="rows")
    measure(options.parse_args())


if __name__ == "__main__":
    main()
