"""The job of `kdistill finetune` in PyTorch at its best: read rows, train, evaluate after each epoch, save.

Batches hold rows of similar length and come in random order; AdamW is the fused one. --stop-after-epochs ends before
the schedule does. With --steps it instead times that many steps, spread over an epoch, and prints the time of all
epochs, extrapolated by padded tokens. The last line is JSON.

`benchmarks.finetune` runs it as a separate process, so that its memory can be measured. Its options are those of
`kdistill finetune` that the recipe uses.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import transformers

from kdistill.bench.other_runtimes import PaddedBatch, bucketed, forward_pass, load_torch, torch_forward

from . import common, torch_peer
from .torch_distill import read


def training_of(given: argparse.Namespace, steps: int) -> torch_peer.Training:
    """Return the model in training, with its optimiser and a schedule for this many steps."""
    torch.manual_seed(given.seed)
    warmup = math.ceil(steps * given.warmup_ratio)

    def multiplier(step: int) -> float:
        return step / max(1, warmup) if step < warmup else (steps - step) / max(1, steps - warmup)

    return torch_peer.Training(
        load_torch(given.model),
        given.learning_rate,
        given.max_grad_norm,
        weight_decay=given.weight_decay,
        multiplier=multiplier,
        bf16=given.bf16,
    )


def train(given: argparse.Namespace, batches: list[PaddedBatch], labels: np.ndarray) -> dict[str, object]:
    """Train, evaluate after each epoch, save the best model and return the accuracies."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.model)
    dev = read(given.eval, tokenizer)
    dev_batches = bucketed(dev, given.per_device_train_batch_size)
    training = training_of(given, given.num_train_epochs * len(batches))
    rng = np.random.default_rng(given.seed)
    accuracies: list[float] = []
    for _ in range(given.stop_after_epochs or given.num_train_epochs):
        training.epoch(batches, rng.permutation(len(batches)), None, labels)
        logits = forward_pass(torch_forward(training.model.eval()), dev_batches, 2)
        accuracies.append(float((logits.argmax(1) == dev.labels).mean()))
        if accuracies[-1] == max(accuracies):
            training.model.save_pretrained(given.output_dir)
    tokenizer.save_pretrained(given.output_dir)
    return {"accuracies": accuracies}


def time_steps(given: argparse.Namespace, batches: list[PaddedBatch], labels: np.ndarray) -> dict[str, object]:
    """Time steps spread over an epoch's lengths, in random order; return the time of all epochs by padded tokens."""
    training = training_of(given, given.num_train_epochs * len(batches))
    chosen = np.linspace(0, len(batches) - 1, min(given.steps, len(batches))).astype(int)
    order = np.random.default_rng(given.seed).permutation(chosen)
    training.epoch(batches, order[:1], None, labels)  # warms up
    seconds = common.seconds(lambda: training.epoch(batches, order, None, labels))
    tokens = sum(batches[step].ids.size for step in order)
    epoch = seconds / tokens * sum(batch.ids.size for batch in batches)
    return {"seconds": epoch * given.num_train_epochs, "steps": len(order), "timed_seconds": seconds}


def main() -> None:
    """Read the options and run."""
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "train", "eval", "output-dir"):
        options.add_argument(f"--{name}", type=Path, required=True)
    for name in ("threads", "steps", "num-train-epochs", "per-device-train-batch-size", "seed"):
        options.add_argument(f"--{name}", type=int, required=True)
    for name in ("learning-rate", "warmup-ratio", "weight-decay", "max-grad-norm"):
        options.add_argument(f"--{name}", type=float, required=True)
    options.add_argument("--stop-after-epochs", type=int, default=0, help="so many of the schedule's (0: all)")
    options.add_argument("--bf16", action="store_true", help="train under autocast in bfloat16")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataset = read(given.train, transformers.AutoTokenizer.from_pretrained(given.model))
    batches = bucketed(dataset, given.per_device_train_batch_size)
    run = time_steps if given.steps else train
    print(json.dumps(run(given, batches, dataset.labels)))


if __name__ == "__main__":
    main()
