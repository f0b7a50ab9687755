"""The demo of `make demo`: distil a small BERT from a real teacher on real sentences.

1. Take a pretrained BERT (all-MiniLM-L6-v2, from a package on PyPI) and fine-tune it on a few labelled sentences.
2. Distil: a student of 2 layers starts from the teacher's embeddings and learns from the teacher's probabilities for
   these and many more sentences.
3. For comparison, train a student of the same shape without a teacher, on the labelled sentences alone: once from
   random weights, once from the teacher's embeddings, as the distilled one.

Everything is done by kdistill's commands, which are shown as they run. A second call continues where the first was
interrupted, and only shows the table when nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from pretrained import fetch_pretrained

import kdistill as kd

SST2 = Path(os.path.relpath(Path(__file__).resolve().parent / "SST-2"))
DEV = SST2 / "dev.tsv.xz"
STUDENT = "L2-H128-A2"

SEED = 33
LABELLED = 3_000
UNLABELLED = 24_000  # used without their label; more would take an old CPU beyond five minutes
MIN_WORDS = 8  # most of SST-2's training rows are short phrases of its sentences; these are left out

# The weights are those of the last epoch, not of the best one, so nothing is chosen on the development rows.
COMMON = shlex.split("--warmup-ratio 0.1 --weight-decay 0.01 --save-strategy no --resume")
TEACHER_RUN = shlex.split(
    "--label-names negative,positive --num-train-epochs 3 --per-device-train-batch-size 32 --learning-rate 1e-4"
)
# The batch of the runs without a teacher, so that nothing but the teacher differs.
DISTILLED_RUN = shlex.split(
    "--num-train-epochs 8 --per-device-train-batch-size 128 --learning-rate 5e-4 --alpha 0.5 --temperature 4"
)
ALONE_RUN = shlex.split("--num-train-epochs 8 --learning-rate 5e-4")


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a small BERT from a real teacher on real sentences.")
    parser.add_argument("--output-dir", type=Path, default=Path("build/demo"), help="where everything is written")
    directory: Path = parser.parse_args().output_dir
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["KDISTILL_CACHE"] = str(directory / "cache")
    teacher, student = directory / "teacher", directory / "student"
    alone, from_words = directory / "student-without-teacher", directory / "student-from-embeddings"
    started = time.monotonic()

    labelled, everything = write_rows(directory)
    say(f"The teacher: a pretrained BERT, fine-tuned on {count(labelled):,} labelled sentences")
    pretrained = fetch_pretrained(directory / "all-MiniLM-L6-v2")
    finetune(teacher, "--model", pretrained, "--train", labelled, *TEACHER_RUN)

    say(f"The student: distilled on {count(everything):,} sentences, most of which only the teacher labels")
    train("distill", student, "--teacher", teacher, "--student", STUDENT, "--train", everything, *DISTILLED_RUN)

    say(f"For comparison: the same student, trained on the {count(labelled):,} labelled sentences without a teacher")
    config = kd.BertConfig.from_pretrained(student)
    start = save_start(kd.BertForSequenceClassification(config, seed=SEED), student, directory / "start-random")
    finetune(alone, "--model", start, "--train", labelled, *ALONE_RUN)
    frozen = kd.BertForSequenceClassification.from_pretrained(teacher).freeze()
    start = save_start(
        kd.BertForSequenceClassification.from_teacher(frozen, config, seed=SEED),
        student,
        directory / "start-embeddings",
    )
    finetune(from_words, "--model", start, "--train", labelled, *ALONE_RUN)

    say(f"On the {count(DEV):,} development sentences")
    print_table(
        {
            "teacher": teacher,
            "student, distilled": student,
            "student, without a teacher": alone,
            "the same, teacher's embeddings": from_words,
        }
    )
    print(f"\nThe distilled student, a model directory that transformers opens too: {student}")
    print(f"Time: {time.monotonic() - started:.0f} s")


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def finetune(output: Path, *arguments: str | Path) -> None:
    train("finetune", output, *arguments)


def train(command: str, output: Path, *arguments: str | Path) -> None:
    """Run one of kdistill's training commands, and print it as one would type it."""
    words = [*map(str, arguments), "--eval", str(DEV), "--output-dir", str(output), "--seed", str(SEED), *COMMON]
    print("$ kdistill", command, shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "kdistill", command, *words], check=True)


def read_tsv(path: Path) -> list[list[str]]:
    """Return the rows of a table without its header."""
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [line.split("\t") for line in content.decode().split("\n")[1:] if line]


def count(path: Path) -> int:
    return len(read_tsv(path))


def write_rows(directory: Path) -> tuple[Path, Path]:
    """Write two tables: labelled rows, drawn with a fixed seed, and the same rows with others whose label is empty."""
    rows = [row for row in read_tsv(SST2 / "train.tsv.xz") if len(row[0].split()) >= MIN_WORDS]
    order = np.random.default_rng(SEED).permutation(len(rows))
    labelled = [rows[index] for index in order[:LABELLED]]
    unlabelled = [[rows[index][0], ""] for index in order[LABELLED:][:UNLABELLED]]
    tables = {"labelled.tsv": labelled, "labelled-and-not.tsv": labelled + unlabelled}
    for name, table in tables.items():
        lines = ["\t".join(row) + "\n" for row in [["sentence", "label"], *table]]
        (directory / name).write_text("".join(lines))
    return directory / "labelled.tsv", directory / "labelled-and-not.tsv"


def save_start(model: kd.BertForSequenceClassification, student: Path, path: Path) -> Path:
    """Write the model that a comparison starts from, with the student's tokenizer, and return its directory."""
    model.save_pretrained(path)
    kd.AutoTokenizer.from_pretrained(student).save_pretrained(path)
    return path


def print_table(models: dict[str, Path]) -> None:
    print(f"{'':<32}{'accuracy':>10}{'parameters':>14}{'sentences/s':>14}")
    for name, path in models.items():
        model = kd.BertForSequenceClassification.from_pretrained(path).freeze()
        speed = sentences_per_second(model, kd.AutoTokenizer.from_pretrained(path))
        print(f"{name:<32}{accuracy(path):>10.4f}{model.num_parameters():>14,}{speed:>14,.0f}", flush=True)


def accuracy(model: Path) -> float:
    """Return the accuracy that `kdistill evaluate` prints."""
    command = [sys.executable, "-m", "kdistill", "evaluate", "--model", str(model), "--data", str(DEV), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["accuracy"])


def sentences_per_second(model: kd.BertForSequenceClassification, tokenizer: kd.BertTokenizer) -> float:
    """Measure the speed on tokenised development rows: the median of five passes in batches of 128, after a warm-up."""
    ids = tokenizer([row[0] for row in read_tsv(DEV)])["input_ids"]
    batches = [kd.pack(ids[start : start + 128]) for start in range(0, len(ids), 128)]
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        for batch in batches:
            model.forward(batch)
        seconds.append(time.perf_counter() - began)
    return len(ids) / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
