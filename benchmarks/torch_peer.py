"""Training in PyTorch at its best settings: batches of similar length, padded before the clock starts.

Attention is PyTorch's fused `scaled_dot_product_attention`, AdamW the fused one, and the teacher's logits are kept
from one epoch to the next, as in kdistill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from kdistill.bench.other_runtimes import PaddedBatch


def fresh(**config: Any) -> Any:
    """Return a model with new weights."""
    return transformers.BertForSequenceClassification(transformers.BertConfig(**config, attn_implementation="sdpa"))


class Training:
    """A model in training, with its optimiser and schedule.

    Args:
        model: of transformers.
        learning_rate: of AdamW.
        max_grad_norm: for clipping.
        weight_decay: not applied to biases and LayerNorm, as in transformers.
        multiplier: of the learning rate, as a function of the step.
        compiled: whether to compile the model.
        bf16: whether to run the forward pass under autocast in bfloat16, as `--bf16` does in transformers.
    """

    def __init__(
        self,
        model: Any,
        learning_rate: float,
        max_grad_norm: float,
        *,
        weight_decay: float = 0.0,
        multiplier: Callable[[int], float] = lambda step: 1.0,
        compiled: bool = False,
        bf16: bool = False,
    ) -> None:
        self.model, self.max_grad_norm, self.bf16 = model, max_grad_norm, bf16
        self.forward = torch.compile(model, dynamic=True) if compiled else model
        self.always_masked = compiled  # one kind of input, one compilation
        spared = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
        decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, multiplier)

    def epoch(
        self,
        batches: Sequence[PaddedBatch],
        order: NDArray[np.int64],
        teacher_logits: NDArray[np.float32] | None,
        labels: NDArray[np.int64],
        *,
        alpha: float = 1.0,
        temperature: float = 1.0,
    ) -> float:
        """Train on the batches in the given order, with or without teacher logits; return the mean loss."""
        self.model.train()
        total = torch.zeros(())
        for batch in (batches[i] for i in order):
            mask = None if batch.full and not self.always_masked else torch.from_numpy(batch.mask)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = self.forward(torch.from_numpy(batch.ids), attention_mask=mask).logits.float()
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[batch.rows]))
            if teacher_logits is not None:
                soft = torch.nn.functional.kl_div(
                    torch.log_softmax(logits / temperature, dim=1),
                    torch.log_softmax(torch.from_numpy(teacher_logits[batch.rows]) / temperature, dim=1),
                    reduction="batchmean",
                    log_target=True,
                )
                loss = alpha * loss + (1.0 - alpha) * temperature**2 * soft
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        return float(total) / len(batches)
