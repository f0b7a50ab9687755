"""An epoch of distilling a student with TinyBERT's and with MiniLMv2's losses, compared with PyTorch.

`tinybert` is the first stage of the preset of that name: embeddings, the hidden states and the attention scores of all
layers, no loss of the predictions. `minilm` is that preset: the relations of the last layers, beside the loss of the
predictions. On all sides the teacher computes in each step what is matched, and a step is forward, losses, backward,
clipping and AdamW with dropout 0.1.

kdistill runs `DistillationTrainer.train()`, its start and a pass of the teacher for its logits included; the teacher
computes in the type that a run chooses. PyTorch goes the way of the toolkits, with random batches padded to their
longest row, in float32, and a better one: batches of similar length, padded beforehand, with both models in bfloat16
(the student under autocast).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

import kdistill as kd
from kdistill.bench.other_runtimes import PaddedBatch, bucketed, padded
from kdistill.data.dataset import Dataset
from kdistill.train.stages import PRESETS

from . import common, torch_matches
from .common import SEED

LEARNING_RATE, MAX_GRAD_NORM, ALPHA, TEMPERATURE = 5e-4, 1.0, 0.5, 4.0
RELATION_HEADS = 24  # the most that divide 312 and 384 and leave 8 numbers to each
STUDENT_SHAPE = {
    "num_hidden_layers": 4,
    "hidden_size": 312,
    "num_attention_heads": 12,
    "intermediate_size": 1200,
}
"""TinyBERT-4's. Attention is matched head by head, so the teacher's number of them."""


def matches_of(preset: str) -> Sequence[Any]:
    """Return the first stage of a preset, which is then the whole run."""
    return [dataclasses.replace(PRESETS[preset][0], share=None)]


def kdistill_epoch(preset: str, dataset: Dataset, options: argparse.Namespace, *, bf16: bool) -> Callable[[], float]:
    """Return a function that trains a new student for an epoch and returns its mean loss."""
    tokenizer = kd.AutoTokenizer.from_pretrained(options.teacher)

    def epoch() -> float:
        student = kd.BertForSequenceClassification(kd.BertConfig(**STUDENT_SHAPE), seed=SEED)
        teacher = kd.BertForSequenceClassification.from_pretrained(options.teacher)
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an epoch of a student made from a shape learns
            args = kd.DistillationTrainingArguments(
                output_dir=directory, num_train_epochs=1, per_device_train_batch_size=options.batch_size,
                learning_rate=LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM, alpha=ALPHA, temperature=TEMPERATURE,
                matches=matches_of(preset), bf16=bf16, seed=SEED, eval_strategy="no", save_strategy="no",
                report_to="none", disable_tqdm=True, teacher_cache=False,
            )  # fmt: skip
            trainer = kd.DistillationTrainer(
                student, args, teacher_model=teacher, train_dataset=dataset, processing_class=tokenizer
            )
            return float(trainer.train().training_loss)

    return epoch


class TorchSide:
    """A student of PyTorch in training, beside its teacher.

    Args:
        preset: which losses.
        dataset: the rows.
        options: of the command line.
        bf16: batches of similar length and both models in bfloat16, in place of random batches in float32.
    """

    def __init__(self, preset: str, dataset: Dataset, options: argparse.Namespace, *, bf16: bool) -> None:
        implementation = torch_matches.RECORDING if preset == "tinybert" else "sdpa"
        self.preset, self.dataset, self.bf16, self.batch_size = preset, dataset, bf16, options.batch_size
        torch.manual_seed(SEED)
        self.student, self.teacher = torch_matches.models(STUDENT_SHAPE, options.teacher, implementation)
        if bf16:
            self.teacher.to(torch.bfloat16)
        width, wider = STUDENT_SHAPE["hidden_size"], self.teacher.config.hidden_size
        count = 2 if preset == "tinybert" else 0
        self.projections = torch.nn.ModuleList(torch.nn.Linear(width, wider, bias=False) for _ in range(count))
        self.parameters = [*self.student.parameters(), *self.projections.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        self.batches = bucketed(dataset, self.batch_size) if bf16 else []
        self.rng = np.random.default_rng(SEED)

    def epoch(self) -> float:
        """Train for one more epoch and return its mean loss."""
        self.student.train()
        losses = [self._step(batch) for batch in self._order()]
        return float(np.mean(losses))

    def _order(self) -> Sequence[PaddedBatch]:
        if self.bf16:
            return [self.batches[i] for i in self.rng.permutation(len(self.batches))]
        rows = self.rng.permutation(len(self.dataset))
        return [padded(self.dataset, part) for part in _parts(rows, self.batch_size)]

    def _step(self, batch: PaddedBatch) -> float:
        mask = torch.from_numpy(batch.mask)
        with torch.no_grad():
            theirs = torch_matches.look_inside(self.teacher, batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            ours = torch_matches.look_inside(self.student, batch)
            if self.preset == "tinybert":
                loss = torch_matches.tinybert_loss(ours, theirs, self.projections)
        if self.preset == "minilm":
            loss = torch_matches.minilm_loss(ours, theirs, mask, RELATION_HEADS) + self._prediction_loss(
                ours.logits.float(), theirs.logits.float(), batch
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _prediction_loss(self, logits: Any, teacher_logits: Any, batch: PaddedBatch) -> Any:
        hard = functional.cross_entropy(logits, torch.from_numpy(self.dataset.labels[batch.rows]))
        soft = functional.kl_div(
            torch.log_softmax(logits / TEMPERATURE, dim=1),
            torch.log_softmax(teacher_logits / TEMPERATURE, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return ALPHA * hard + (1 - ALPHA) * TEMPERATURE**2 * soft


def _parts(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def measure(options: argparse.Namespace) -> None:
    """Run all sides with each preset and report."""
    dataset = common.rows_of(options)
    lines: list[tuple[Any, ...]] = []
    figures: dict[str, Any] = {}
    for preset in options.presets:
        sides: dict[str, Callable[[], float]] = {
            "kdistill": kdistill_epoch(preset, dataset, options, bf16=False),
            "kdistill bf16": kdistill_epoch(preset, dataset, options, bf16=True),
            "PyTorch, random padded batches": TorchSide(preset, dataset, options, bf16=False).epoch,
            "PyTorch bf16, bucketed": TorchSide(preset, dataset, options, bf16=True).epoch,
        }
        losses: dict[str, list[float]] = {name: [] for name in sides}
        runs = {name: partial(_keep, losses[name], epoch) for name, epoch in sides.items()}
        times = common.alternate(runs, options.rounds)
        seconds = common.medians(times)
        for name, each in times.items():
            shown = " ".join(f"{one:.2f}" for one in each)
            ratio = seconds[name] / seconds["kdistill"]
            lines.append((preset, name, seconds[name], shown, len(dataset) / seconds[name], ratio, losses[name][-1]))
        figures[preset] = {"seconds": times, "losses": losses}
    header = ["losses", "", "seconds", "each round", "rows/s", "times kdistill's", "loss"]
    text = common.table(header, lines)
    text += f"\n\n{len(dataset):,} distinct rows, {int(dataset.starts[-1]):,} tokens, {options.batch_size} a step."
    common.report("Intermediate losses", text, {"rows": len(dataset), "of_preset": figures}, options)


def _keep(losses: list[float], epoch: Callable[[], float]) -> None:
    losses.append(epoch())


def main() -> None:
    """Read the options."""
    options = common.parser(__doc__, rounds=3)
    common.add_data(options)
    options.set_defaults(rows=6400)
    options.add_argument("--batch-size", type=int, default=32, help="rows of a step, all sides")
    options.add_argument("--presets", nargs="+", choices=("tinybert", "minilm"), default=["tinybert", "minilm"])
    measure(options.parse_args())


if __name__ == "__main__":
    main()
