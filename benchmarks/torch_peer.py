"""Training in PyTorch at its best settings: batches of similar length, padded before the clock starts.

Attention is PyTorch's fused `scaled_dot_product_attention`, AdamW the fused one, and the teacher's logits are kept
from one epoch to the next, as kdistill keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from kdistill.peers import PaddedBatch


def fresh(**config: Any) -> Any:
    """A model with new weights."""
    return transformers.BertForSequenceClassification(transformers.BertConfig(**config, attn_implementation="sdpa"))


class Training:
    """A student in training: what lives from one epoch to the next."""

    def __init__(self, model: Any, learning_rate: float, max_grad_norm: float, *, compiled: bool = False) -> None:
        self.model, self.max_grad_norm = model, max_grad_norm
        self.forward = torch.compile(model, dynamic=True) if compiled else model
        self.always_masked = compiled  # one kind of input, one compilation
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
            mask = None if batch.full and not self.always_masked else torch.from_numpy(batch.mask)
            logits = self.forward(torch.from_numpy(batch.ids), attention_mask=mask).logits
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
