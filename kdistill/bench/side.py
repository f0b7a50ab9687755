"""`Side`: one program that evaluates a model's rows, in batches and one at a time, and how long that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .other_runtimes import Forward, bucketed, forward_pass, padded

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..models.model import Model
    from .outputs import KeptOutputs

Logits = NDArray[np.float32]


class Side:
    """One variant of one program, with its measurements so far."""

    def __init__(self, run: Callable[[], Logits], calls: Sequence[Callable[[], object]]) -> None:
        self.run, self.calls = run, calls
        self.pass_seconds: list[float] = []
        self.call_seconds: list[float] = []
        self.logits: Logits = run()
        for call in calls:  # warm up: runtimes prepare for shapes that they see for the first time
            call()

    @classmethod
    def of_kdistill(
        cls, model: Model, dataset: Dataset, batch_size: int, singles: NDArray[np.int64], *, kept: KeptOutputs
    ) -> Side:
        def run() -> Logits:
            order = np.arange(len(dataset))
            cuts = range(batch_size, len(dataset), batch_size)
            return np.concatenate([kept(model.forward(dataset.batch(rows)[0])) for rows in np.split(order, cuts)])

        sentences = [dataset.ids[dataset.starts[row] : dataset.starts[row + 1]].tolist() for row in singles]
        return cls(run, [partial(model.forward, [ids]) for ids in sentences])

    @classmethod
    def of_peer(
        cls,
        forward: Forward,
        dataset: Dataset,
        batch_size: int,
        singles: NDArray[np.int64],
        *,
        kept: KeptOutputs,
    ) -> Side:
        batches = bucketed(dataset, batch_size)
        sentences = [padded(dataset, singles[i : i + 1]) for i in range(len(singles))]
        starts = dataset.starts if kept.per_token else None

        def run() -> Logits:
            return forward_pass(lambda batch: kept(forward(batch)), batches, kept.width, starts)

        return cls(run, [partial(forward, sentence) for sentence in sentences])

    def measure(self) -> None:
        started = time.perf_counter()
        self.logits = self.run()
        self.pass_seconds.append(time.perf_counter() - started)
        for call in self.calls:
            started = time.perf_counter()
            call()
            self.call_seconds.append(time.perf_counter() - started)
