"""Leave out feed-forward units, so that the others alone are computed."""

from __future__ import annotations

from ..models.model import Model
from .choice import Kept


def with_units(model: Model, kept: Kept) -> Model:
    """Return a model with these feed-forward units alone, which computes what `model` does where the others are zero.

    The configuration states one `intermediate_size` where all layers keep as many, else `intermediate_sizes`.

    Args:
        model: a model in float32.
        kept: for each layer that has weights of its own, places among the units that it has.
    """
    tensors = dict(model.tensors)
    for layer, units in enumerate(kept):
        for name in ("up", "up.bias"):
            tensors[f"layer.{layer}.{name}"] = tensors[f"layer.{layer}.{name}"][units]
        tensors[f"layer.{layer}.down"] = tensors[f"layer.{layer}.down"][:, units]
    sizes = [len(units) for units in kept]
    differ = sizes if len({*sizes}) > 1 else None
    config = model.config.replace(intermediate_size=max(sizes), intermediate_sizes=differ)
    return type(model).from_tensors(config, tensors)
