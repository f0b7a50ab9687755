"""Leave out attention heads, so that the others alone are computed."""

from __future__ import annotations

import numpy as np

from ..models.model import Model
from .choice import Kept


def with_heads(model: Model, kept: Kept) -> Model:
    """Return a model with these heads alone, which computes what `model` does where the others give zeros.

    Queries, keys and values lose the rows of the other heads, and the product behind attention their columns.

    Args:
        model: a model in float32.
        kept: for each layer that has weights of its own, places among the heads that it has.
    """
    config, tensors = model.config, dict(model.tensors)
    width = config.head_width
    pruned = {layer: [*heads] for layer, heads in (config.pruned_heads or {}).items()}
    for layer, heads in enumerate(kept):
        lacking = pruned.get(layer, [])
        present = np.setdiff1d(np.arange(config.num_attention_heads), lacking)
        pruned[layer] = np.setdiff1d(np.arange(config.num_attention_heads), present[heads]).tolist()
        rows = (heads[:, None] * width + np.arange(width)).ravel()
        for name in ("query", "key", "value"):
            for of in (f"layer.{layer}.{name}", f"layer.{layer}.{name}.bias"):
                tensors[of] = tensors[of][rows]
        tensors[f"layer.{layer}.output"] = tensors[f"layer.{layer}.output"][:, rows]
    return type(model).from_tensors(config.replace(pruned_heads=pruned), tensors)
