"""Losses on hidden states, attention and relations in PyTorch, as toolkits compute them, over padded batches.

TinyBERT's first stage: mean squared errors of embeddings, hidden states behind a projection that all layers share, and
attention scores before the softmax. MiniLMv2: the relations of queries, keys and values of the last layers, beside the
loss of the predictions. What lies inside a model comes from its own forward pass, nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch.nn import functional
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from kdistill.bench.other_runtimes import PaddedBatch

RECORDING = "recording"
_scores: list[Any] = []


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, dropout: float = 0.0, **_: Any
) -> tuple[Any, None]:
    """Compute attention as transformers' eager one does, and keep the scores before the mask and the softmax."""
    scores = query @ key.transpose(2, 3) * scaling
    _scores.append(scores)
    masked = scores if attention_mask is None else scores + attention_mask
    weights = functional.dropout(masked.softmax(-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register(RECORDING, _attention)
AttentionMaskInterface.register(RECORDING, eager_mask)


class Inside(NamedTuple):
    """What a pass leaves: logits, hidden states (layers + 1), scores by layer; query, key and value of the last one."""

    logits: Any
    hidden: Sequence[Any]
    scores: Sequence[Any]
    last: Sequence[Any]


@contextmanager
def _last_projections(model: Any) -> Iterator[list[Any]]:
    """Keep what the last layer's products of query, key and value give."""
    attention, kept = model.bert.encoder.layer[-1].attention.self, []
    hooks = [
        part.register_forward_hook(lambda *given: kept.append(given[-1]))
        for part in (attention.query, attention.key, attention.value)
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def models(student_shape: Mapping[str, int], teacher: Path, implementation: str) -> tuple[Any, Any]:
    """Return a student with new weights and the teacher of a directory, both with this kind of attention."""
    config = transformers.BertConfig(**student_shape, attn_implementation=implementation)
    kind = transformers.BertForSequenceClassification
    return kind(config), kind.from_pretrained(teacher, attn_implementation=implementation).eval()


def look_inside(model: Any, batch: PaddedBatch) -> Inside:
    """Return what lies inside a model of transformers in a pass over the batch."""
    _scores.clear()
    with _last_projections(model) as last:
        outputs = model(
            torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.mask), output_hidden_states=True
        )
    return Inside(outputs.logits, outputs.hidden_states, list(_scores), last)


def tinybert_loss(student: Inside, teacher: Inside, projections: Sequence[Any]) -> Any:
    """Return the first stage's loss, layer i of N beside layer (i + 1) * M // N - 1 of M."""
    layers, others = len(student.scores), len(teacher.scores)
    loss = functional.mse_loss(projections[0](student.hidden[0]), teacher.hidden[0])
    for i in range(layers):
        of = (i + 1) * others // layers - 1
        loss = loss + functional.mse_loss(projections[1](student.hidden[i + 1]), teacher.hidden[of + 1])
        loss = loss + functional.mse_loss(student.scores[i], teacher.scores[of])
    return loss


def minilm_loss(student: Inside, teacher: Inside, mask: Any, heads: int) -> Any:
    """Return the mean of the divergences of relations of queries, keys and values."""
    keys = torch.zeros(mask.shape).masked_fill(mask == 0, torch.finfo(torch.float32).min)[:, None, None]

    def logarithms(rows: Any) -> Any:
        split = rows.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        return (split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5 + keys).log_softmax(-1)

    total = 0.0
    for ours, theirs in zip(student.last, teacher.last, strict=True):
        divergence = functional.kl_div(logarithms(ours), logarithms(theirs), reduction="none", log_target=True).sum(-1)
        total = total + (divergence * mask[:, None]).sum() / (heads * mask.sum())
    return total / 3
