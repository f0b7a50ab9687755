"""Leave out whole layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.layer_shapes import FIELDS, of_layers
from ..models.model import Model


def checked_layers(layers: Sequence[int] | int, count: int, name: str = "layers") -> list[int]:
    """Return the layers to keep, from 0.

    Args:
        layers: numbers from 0; or how many of the first.
        count: how many there are.
        name: of the argument, for messages.

    Raises:
        ValueError: there is no such layer, none is named, or one twice.
    """
    if isinstance(layers, int):
        if not 1 <= layers <= count:
            raise ValueError(f"{name} is {layers}; expected the first 1 to {count} of {count} layers")
        return list(range(layers))
    if not layers or not all(0 <= layer < count for layer in layers):
        raise ValueError(f"{name} is {list(layers)}; expected numbers from 0 to {count - 1}")
    if len({*layers}) < len(layers):
        raise ValueError(f"{name} is {list(layers)}; expected each once")
    return list(layers)


def with_layers(model: Model, layers: Sequence[int]) -> Model:
    """Return a model with these layers alone, in this order; layers count from 0."""
    config, tensors = model.config, {}
    kept = [0] if config.one_layer else layers
    for name, values in model.tensors.items():
        if not name.startswith("layer."):
            tensors[name] = values
            continue
        _, layer, rest = name.split(".", 2)
        for place, own in enumerate(kept):
            if int(layer) == own:
                tensors[f"layer.{place}.{rest}"] = values
    shapes = of_layers({name: getattr(config, name) for name in FIELDS}, kept)
    return type(model).from_tensors(config.replace(num_hidden_layers=len(layers), **shapes), tensors)
