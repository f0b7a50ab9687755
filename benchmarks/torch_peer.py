"""The same work in PyTorch at its best settings: batches of similar length, padded before the clock starts.

Attention is PyTorch's fused `scaled_dot_product_attention`, AdamW the fused one, and the teacher's logits are kept
from one epoch to the next, as kdistill keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.mkldnn
import transformers
from numpy.typing import NDArray

from kdistill.data import Dataset


class PaddedBatch(NamedTuple):
    """Rows of similar length, padded to the longest; `rows` says which they are."""

    rows: NDArray[np.int64]
    ids: torch.Tensor
    mask: torch.Tensor | None  # None where no row is shorter


def bucketed(dataset: Dataset, batch_size: int) -> list[PaddedBatch]:
    """All rows, sorted by length and cut into batches."""
    order = np.argsort(dataset.lengths, kind="stable")
    batches = []
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        lengths = dataset.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = dataset.batch(rows)[0].ids
        padded = bool((~mask).any())
        batches.append(PaddedBatch(rows, torch.tensor(ids), torch.tensor(mask.astype(np.int64)) if padded else None))
    return batches


def load(directory: Path) -> Any:
    """A model directory in evaluation mode."""
    model = transformers.BertForSequenceClassification.from_pretrained(directory, attn_implementation="sdpa")
    return model.eval()


def load_onednn(directory: Path) -> Any:
    """The same for inference alone, its linear layers packed for oneDNN's products.

    PyTorch's f32 products otherwise go through MKL, which is the slower of the two on CPUs that are not Intel's.
    """
    return torch.utils.mkldnn.to_mkldnn(load(directory))


def fresh(**config: Any) -> Any:
    """A model with new weights."""
    return transformers.BertForSequenceClassification(transformers.BertConfig(**config, attn_implementation="sdpa"))


def forward_pass(model: Any, batches: Sequence[PaddedBatch], labels: int) -> NDArray[np.float32]:
    """Logits of all rows, in the order of the data set."""
    logits = np.empty((sum(len(batch.rows) for batch in batches), labels), np.float32)
    with torch.inference_mode():
        for batch in batches:
            logits[batch.rows] = model(batch.ids, attention_mask=batch.mask).logits.float().numpy()
    return logits


class Training:
    """A student in training: what lives from one epoch to the next."""

    def __init__(self, model: Any, learning_rate: float, max_grad_norm: float) -> None:
        self.model, self.max_grad_norm = model, max_grad_norm
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)

    def epoch(
        self,
        batches: Sequence[PaddedBatch],
        order: NDArray[np.int64],
        teacher_logits: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        alpha: float,
        temperature: float,
    ) -> float:
        """One pass over the batches in the order given; returns the mean loss."""
        self.model.train()
        total = torch.zeros(())
        for batch in (batches[i] for i in order):
            logits = self.model(batch.ids, attention_mask=batch.mask).logits
            soft = torch.nn.functional.kl_div(
                torch.log_softmax(logits / temperature, dim=1),
                torch.log_softmax(torch.from_numpy(teacher_logits[batch.rows]) / temperature, dim=1),
                reduction="batchmean",
                log_target=True,
            )
            hard = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[batch.rows]))
            loss = alpha * hard + (1.0 - alpha) * temperature**2 * soft
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        return float(total) / len(batches)
