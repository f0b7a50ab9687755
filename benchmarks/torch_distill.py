"""The job of `kdistill distill` in PyTorch at its best: read rows, run the teacher once, train the student, save it.

The teacher uses oneDNN's products and batches of similar length; with --teacher-bf16 its weights and activations are
bfloat16, and with --compile-teacher it is compiled, which is part of the time. With --bf16 the student trains under
autocast. Training uses such batches too, with fused AdamW and
the teacher's logits kept; the student is evaluated after each epoch and saved at the end. With --notebook-steps it
instead times that many steps of the notebook's way (the teacher in every step, random batches padded to their longest
row), spread over an epoch, and prints the time of all epochs, extrapolated by padded tokens.

`benchmarks.whole_job` runs it as a separate process, so that its memory can be measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.mkldnn
import transformers

from kdistill.bench.other_runtimes import bucketed, forward_pass, load_torch, padded, torch_forward
from kdistill.data.dataset import Dataset

from . import torch_peer
from .peers import compile_frozen

ALPHA, TEMPERATURE, LEARNING_RATE, SEED = 0.5, 4.0, 6e-5, 33


def read(rows: Path, tokenizer: Any) -> Dataset:
    """Tokenise a TSV file with transformers' tokenizer."""
    with rows.open(encoding="utf-8") as file:
        records = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    ids = tokenizer([record["sentence"] for record in records])["input_ids"]
    flat = np.concatenate([np.array(row, np.int32) for row in ids])
    starts = np.cumsum([0, *map(len, ids)])
    return Dataset(flat, np.zeros_like(flat), starts, np.array([int(record["label"]) for record in records]))


def train_and_save(given: argparse.Namespace, dataset: Dataset, dev: Dataset) -> None:
    """Do the whole job from tokenised rows on."""
    teacher = load_torch(given.teacher)
    teacher = teacher.to(torch.bfloat16) if given.teacher_bf16 else torch.utils.mkldnn.to_mkldnn(teacher)
    if given.compile_teacher:
        teacher = compile_frozen(teacher)
    forward = torch_forward(teacher, mask=given.compile_teacher)
    soft = forward_pass(forward, bucketed(dataset, given.teacher_batch_size), 2)
    del teacher, forward
    student = load_torch(given.student)
    training = torch_peer.Training(student, LEARNING_RATE, max_grad_norm=1.0, bf16=given.bf16)
    batches, dev_batches = bucketed(dataset, given.batch_size), bucketed(dev, given.batch_size)
    rng = np.random.default_rng(SEED)
    for _ in range(given.epochs):
        order = rng.permutation(len(batches))
        training.epoch(batches, order, soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)
        logits = forward_pass(torch_forward(student.eval()), dev_batches, 2)
        print(f"accuracy {(logits.argmax(1) == dev.labels).mean():.4f}")
    student.save_pretrained(given.output_dir)


def time_steps(given: argparse.Namespace, dataset: Dataset) -> None:
    """Time steps of the notebook's way, spread over an epoch; print the time of all epochs by their padded tokens."""
    teacher, student = load_torch(given.teacher), load_torch(given.student)
    training = torch_peer.Training(student, LEARNING_RATE, max_grad_norm=1.0)
    order = np.random.default_rng(SEED).permutation(len(dataset))
    steps = [order[first : first + given.batch_size] for first in range(0, len(order), given.batch_size)]
    all_tokens = sum(len(rows) * int(dataset.lengths[rows].max()) for rows in steps)
    chosen = np.linspace(0, len(steps) - 1, min(given.notebook_steps + 1, len(steps))).astype(int)
    seconds, tokens = [], []
    for step in chosen:
        started = time.perf_counter()
        batch = padded(dataset, steps[step])
        soft = np.zeros((len(dataset), 2), np.float32)
        soft[batch.rows] = torch_forward(teacher)(batch)
        training.epoch([batch], np.zeros(1, int), soft, dataset.labels, alpha=ALPHA, temperature=TEMPERATURE)
        seconds.append(time.perf_counter() - started)
        tokens.append(batch.ids.size)
    # The first step warms up and is left out.
    epoch = sum(seconds[1:]) / sum(tokens[1:]) * all_tokens
    figures = {"seconds": epoch * given.epochs, "seconds_an_epoch": epoch, "steps": len(seconds) - 1,
               "timed_seconds": sum(seconds[1:]), "padded_tokens_an_epoch": all_tokens}  # fmt: skip
    print(json.dumps(figures))


def main() -> None:
    """Read the options and run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--teacher", type=Path, required=True)
    options.add_argument("--student", type=Path, required=True)
    options.add_argument("--train", type=Path, required=True)
    options.add_argument("--eval", type=Path, required=True)
    options.add_argument("--output-dir", type=Path, required=True)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--epochs", type=int, default=7)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--teacher-batch-size", type=int, default=16)
    options.add_argument("--teacher-bf16", action="store_true")
    options.add_argument("--compile-teacher", action="store_true", help="with --teacher-bf16")
    options.add_argument("--bf16", action="store_true")
    options.add_argument("--notebook-steps", type=int, default=0)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.teacher)
    dataset = read(given.train, tokenizer)
    if given.notebook_steps:
        time_steps(given, dataset)
    else:
        train_and_save(given, dataset, read(given.eval, tokenizer))
        tokenizer.save_pretrained(given.output_dir)


if __name__ == "__main__":
    main()
