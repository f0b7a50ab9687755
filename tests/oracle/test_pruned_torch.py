"""Pruned models beside PyTorch: what heads and units matter, and which directories transformers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import kdistill as kd
from kdistill.compress.feed_forward import with_units
from kdistill.compress.heads import with_heads
from kdistill.compress.importance import importance
from kdistill.data.dataset import Dataset
from kdistill.train.objective import Supervised

CONFIG = kd.BertConfig(
    vocab_size=40,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=20,
    max_position_embeddings=16,
    initializer_range=0.3,
    num_labels=3,
)
ROWS = [[3, 9, 17, 4], [3, 22, 4], [3, 5, 6, 7, 8, 9, 4], [3, 30, 31, 4]]
LABELS = [0, 2, 1, 1]


def saved(directory: Path) -> tuple[kd.BertForSequenceClassification, Any]:
    model = kd.BertForSequenceClassification(CONFIG, seed=4)
    model.save_pretrained(directory)
    return model, transformers.BertForSequenceClassification.from_pretrained(directory).eval()


def test_importance_is_the_gradient_of_masks_in_pytorch(tmp_path: Path) -> None:
    """Each head's context and each unit is multiplied by a variable that is 1, whose gradient PyTorch knows."""
    ours, theirs = saved(tmp_path)
    heads = [torch.ones(4, requires_grad=True) for _ in range(3)]
    units = [torch.ones(20, requires_grad=True) for _ in range(3)]
    for layer, of_heads, of_units in zip(theirs.bert.encoder.layer, heads, units, strict=True):
        layer.attention.output.dense.register_forward_pre_hook(
            lambda _, given, mask=of_heads: (given[0] * mask.repeat_interleave(6),)
        )
        layer.output.dense.register_forward_pre_hook(lambda _, given, mask=of_units: (given[0] * mask,))
    expected = [np.zeros(len(mask)) for mask in (*heads, *units)]
    for ids, label in zip(ROWS, LABELS, strict=True):
        loss = theirs(torch.tensor([ids]), labels=torch.tensor([label])).loss
        for sums, gradient in zip(expected, torch.autograd.grad(loss, [*heads, *units]), strict=True):
            sums += np.abs(gradient.numpy()) / len(ROWS)
    batch = kd.pack(ROWS)
    found = importance(ours, Dataset(*batch, np.array(LABELS)), Supervised(), kd.TrainingArguments())
    for mine, sums in zip([*found.heads, *found.units], expected, strict=True):
        np.testing.assert_allclose(mine, sums, rtol=1e-4, atol=1e-6)


def test_transformers_opens_layers_with_as_many_units_each(tmp_path: Path) -> None:
    model, _ = saved(tmp_path / "whole")
    pruned = with_units(model, [np.arange(7), np.arange(3, 10), np.arange(13, 20)])
    pruned.save_pretrained(tmp_path / "pruned")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "pruned").eval()
    with torch.no_grad():
        logits = np.concatenate([theirs(torch.tensor([ids])).logits.numpy() for ids in ROWS])
    np.testing.assert_allclose(pruned.forward(kd.pack(ROWS)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["heads", "units"])
def test_transformers_refuses_layers_that_differ(tmp_path: Path, part: str) -> None:
    """The versions that know no pruned heads must not read the weights as those of another model."""
    model, _ = saved(tmp_path / "whole")
    if part == "heads":
        pruned = with_heads(model, [np.array([0, 3]), np.arange(4), np.arange(4)])
    else:
        pruned = with_units(model, [np.arange(7), np.arange(20), np.arange(20)])
    pruned.save_pretrained(tmp_path / "pruned")
    if part == "heads" and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 prunes as the configuration says")
    for opened in (transformers.AutoModelForSequenceClassification, transformers.AutoModel):
        with pytest.raises(RuntimeError, match=r"size mismatch|ignore_mismatched_sizes"):
            opened.from_pretrained(tmp_path / "pruned")
