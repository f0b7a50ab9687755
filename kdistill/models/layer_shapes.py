"""Layers that differ in their heads and feed-forward: how a configuration states it, and what the layers then have."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FIELDS = ("pruned_heads", "intermediate_sizes")
"""The fields of a configuration that state it; None: all layers are alike."""


class LayerShape(NamedTuple):
    """The number of a layer's attention heads, and of its feed-forward units."""

    heads: int
    feed_forward: int


def in_words(shapes: Sequence[LayerShape]) -> tuple[str, str]:
    """Return how many heads and feed-forward units layers have: a number, or the least and the most, "6 to 8"."""

    def written(counts: set[int]) -> str:
        return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"

    return written({of.heads for of in shapes}), written({of.feed_forward for of in shapes})


def checked_heads(value: Any, layers: int, heads: int) -> dict[int, list[int]] | None:
    """Return the heads that layers lack, by layer, both ascending; None where no layer lacks any.

    Args:
        value: as `pruned_heads` has it, with layers as numbers, or as text as in JSON.
        layers: how many there are.
        heads: how many each has that lacks none.

    Raises:
        TypeError: it is no mapping of lists of whole numbers.
        ValueError: there is no such layer or head, or a layer lacks all of them.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"pruned_heads is a {type(value).__name__}; expected layer -> the heads that it lacks")
    found: dict[int, list[int]] = {}
    for key, lacking in value.items():
        if not isinstance(lacking, Sequence | set | frozenset) or isinstance(lacking, str):
            raise TypeError(f"pruned_heads[{key!r}] is {lacking!r}; expected a list of heads")
        layer = _whole("a layer of pruned_heads", int(key) if str(key).isdecimal() else key, layers)
        of_layer = sorted({_whole(f"a head of pruned_heads[{key!r}]", head, heads) for head in lacking})
        if len(of_layer) == heads:
            raise ValueError(f"pruned_heads leaves layer {layer} none of its {heads} heads; expected at least one")
        if of_layer:
            found[layer] = of_layer
    return dict(sorted(found.items())) or None


def checked_sizes(value: Any, layers: int, name: str) -> list[int] | None:
    """Return the feed-forward units of each layer, None where all have the usual number.

    Args:
        value: as `intermediate_sizes` has it.
        layers: how many there are.
        name: what the architecture calls the number for all layers.

    Raises:
        TypeError: it is no list of whole numbers.
        ValueError: it has another length, or a layer has no units.
    """
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"intermediate_sizes is {value!r}; expected a list with the {name} of each layer")
    sizes = [_whole("an entry of intermediate_sizes", size, 2**31) for size in value]
    if len(sizes) != layers or 0 in sizes:
        raise ValueError(f"intermediate_sizes is {sizes}; expected {layers} numbers of at least 1, one for each layer")
    return sizes


def evenly_spaced(count: int, available: int) -> list[int]:
    """Return which of `available` layers, from 0, a model of `count` layers takes: evenly spaced, the last included."""
    return [(place + 1) * available // count - 1 for place in range(count)]


def of_layers(values: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Return the fields that state the shapes of layers, of a model with these layers alone, in this order.

    Args:
        values: the fields of the whole model.
        layers: from 0.
    """
    heads, sizes = values["pruned_heads"] or {}, values["intermediate_sizes"]
    return {
        "pruned_heads": {place: heads[layer] for place, layer in enumerate(layers) if layer in heads} or None,
        "intermediate_sizes": sizes and [sizes[layer] for layer in layers],
    }


def without_other_layers(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that state the shapes of layers, as they are once the sizes of a configuration have changed.

    With fewer layers, those of the first ones. Where all layers get another number of heads or units, none is stated.

    Args:
        values: of the configuration, under the names that `BertConfig` has.
        changes: the changed ones, likewise.
    """
    heads, sizes = values["pruned_heads"], values["intermediate_sizes"]
    changed = {name for name, value in changes.items() if name in values and values[name] != value}
    layers = changes.get("num_hidden_layers", values["num_hidden_layers"])
    if "num_attention_heads" in changed or "hidden_size" in changed:
        heads = None
    if "intermediate_size" in changed or layers > values["num_hidden_layers"]:
        sizes = None
    return {
        "pruned_heads": heads and {layer: lacking for layer, lacking in heads.items() if layer < layers},
        "intermediate_sizes": sizes and sizes[:layers],
    }


def _whole(name: str, value: Any, below: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected a whole number") from None
    if isinstance(value, bool) or not 0 <= number < below:
        raise ValueError(f"{name} is {value}; expected 0 to {below - 1}")
    return number
