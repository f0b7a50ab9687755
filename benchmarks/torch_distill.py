"""What `kdistill distill` does, in PyTorch: read rows, run the teacher once, train the student, save it.

The peer of `benchmarks.peak_memory`; a program of its own, so that its process holds nothing else.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import transformers

from kdistill.data import Dataset
from kdistill.peers import bucketed, forward_pass, load_torch, torch_forward

from . import common, torch_peer


def read(rows: Path, teacher: Path) -> Dataset:
    """Tokenise a TSV file with transformers' tokenizer."""
    with rows.open(encoding="utf-8") as file:
        records = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    ids = tokenizer([record["sentence"] for record in records])["input_ids"]
    flat = np.concatenate([np.array(row, np.int32) for row in ids])
    starts = np.cumsum([0, *map(len, ids)])
    return Dataset(flat, np.zeros_like(flat), starts, np.array([int(record["label"]) for record in records]))


def main() -> None:
    """Read the options and run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--teacher", type=Path, required=True)
    options.add_argument("--train", type=Path, required=True)
    options.add_argument("--output-dir", type=Path, required=True)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--batch-size", type=int, default=128)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataset = read(given.train, given.teacher)
    batches = bucketed(dataset, given.batch_size)
    soft = forward_pass(torch_forward(load_torch(given.teacher)), batches, 2)
    student = torch_peer.fresh(**common.STUDENT_SHAPE)
    training = torch_peer.Training(student, learning_rate=5e-4, max_grad_norm=1.0)
    for _ in range(given.epochs):
        order = np.random.default_rng(33).permutation(len(batches))
        training.epoch(batches, order, soft, dataset.labels, alpha=0.5, temperature=4.0)
    student.save_pretrained(given.output_dir)


if __name__ == "__main__":
    main()
