"""Pairs of models with the same weights, kdistill's and PyTorch's, and rows for both.

PyTorch computes rows of the same length together, so its side knows neither padding nor masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from support import reference

import kdistill as kd

torch.set_num_threads(2)

Rows = Sequence[Sequence[int]]

BERT_BASE: Mapping[str, Any] = {}
BERT_TINY: Mapping[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}
ODD: Mapping[str, Any] = {
    "num_hidden_layers": 3,
    "hidden_size": 60,
    "num_attention_heads": 5,
    "intermediate_size": 84,
    "num_labels": 3,
    "vocab_size": 1013,
}
NO_DROPOUT: Mapping[str, float] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def torch_model(config: Mapping[str, Any], std: float, seed: int) -> Any:
    """A PyTorch model in evaluation mode, all its parameters drawn around 0 (LayerNorm weights: 1)."""
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**config, attn_implementation="eager"))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    drawn = reference.random_parameters(shapes, std, seed)
    model.load_state_dict(
        {name: torch.tensor(value, dtype=torch.float32) for name, value in drawn.items()}, strict=False
    )
    return model.eval()


def torch_arrays(model: Any) -> dict[str, NDArray[np.float32]]:
    """Name -> copy of every parameter."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def pair(config: Mapping[str, Any], std: float, seed: int) -> tuple[kd.BertForSequenceClassification, Any]:
    """The same random model twice: kdistill's and PyTorch's."""
    theirs = torch_model(config, std, seed)
    ours = kd.BertForSequenceClassification(kd.BertConfig(**config), seed=seed)
    arrays = torch_arrays(theirs)
    assert set(ours.parameters) == set(arrays)
    for name, value in arrays.items():
        ours.parameters[name][...] = value
    return ours, theirs


def random_rows(
    lengths: Sequence[int], config: Mapping[str, Any], seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and token types of the given lengths; types are zeros, then ones.

    No id is 0: that is [PAD], whose embedding PyTorch never trains (`padding_idx`), and a row holds no padding.
    """
    rng = np.random.default_rng(seed)
    vocabulary = config.get("vocab_size", 30522)
    ids = [rng.integers(1, vocabulary, size=length).tolist() for length in lengths]
    types = [[0] * (length - length // 3) + [1] * (length // 3) for length in lengths]
    return ids, types


def encodings(ids: Rows, types: Rows) -> dict[str, Rows]:
    """Rows in the form kdistill's `pack` takes."""
    return {"input_ids": ids, "token_type_ids": types}


def torch_logits(model: Any, ids: Rows, types: Rows | None = None) -> torch.Tensor:
    """Logits (rows, labels), rows of the same length together."""
    lengths = np.array([len(row) for row in ids])
    order, logits = np.argsort(lengths, kind="stable"), []
    for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        token_types = None if types is None else torch.tensor([types[row] for row in rows])
        logits.append(model(torch.tensor([ids[row] for row in rows]), token_type_ids=token_types).logits)
    return torch.cat(logits)[np.argsort(order)]


def torch_distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor, alpha: float, temperature: float
) -> torch.Tensor:
    """The loss in PyTorch's own functions, in the dtype of `logits`."""
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(logits / temperature, dim=1),
        torch.softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
    )
    return alpha * torch.nn.functional.cross_entropy(logits, labels) + (1.0 - alpha) * temperature**2 * soft
