"""An architecture as data: what checkpoints call the core's tensors, and what a configuration calls its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import BertConfig

_BIAS = ".bias"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture's names, beside the canonical ones that the core gives its tensors (csrc/model/kd_tensors.h).

    The core has a weight "layer.3.query" and its bias "layer.3.query.bias"; a checkpoint has a module with a ".weight"
    and a ".bias".

    Attributes:
        prefix: what the encoder's names begin with in a checkpoint with a head; one of the encoder alone lacks it.
        modules: canonical name of a weight -> the module's name in a checkpoint; "*" stands for a layer's number.
        fields: what the core calls a part of the encoder's shape -> the field of the configuration.
        heads: name of a head -> the head as `_core.layout` takes it, without its sizes and rates.
    """

    prefix: str
    modules: Mapping[str, str]
    fields: Mapping[str, str]
    heads: Mapping[str, Mapping[str, Any]]

    def stored_name(self, canonical: str) -> str:
        """Return what a checkpoint calls the tensor of this canonical name."""
        name, layer = canonical.removesuffix(_BIAS), ""
        if name.startswith("layer."):
            _, layer, rest = name.split(".", 2)
            name = f"layer.*.{rest}"
        return self.modules[name].replace("*", layer) + (_BIAS if canonical.endswith(_BIAS) else ".weight")

    def stored_prefixes(self, beginning: str) -> tuple[str, ...]:
        """Return what the names of tensors begin with in a checkpoint whose canonical names have this `beginning`."""
        modules = (module for name, module in self.modules.items() if name.startswith(beginning))
        return tuple(dict.fromkeys(f"{module}.".partition("*")[0] for module in modules))

    def encoder(self, config: BertConfig) -> dict[str, Any]:
        """Return the shape of the encoder as `_core.layout` takes it."""
        shape = {name: getattr(config, field) for name, field in self.fields.items()}
        layer = (shape.pop("heads"), shape.pop("feed_forward"))
        layers = (layer,) * shape["layers"]
        return shape | {"layers": layers, "head_width": shape["hidden"] // layer[0], "first_position": 0}

    def head(self, name: str, config: BertConfig) -> dict[str, Any]:
        """Return the head of this name as `_core.layout` takes it."""
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        return {**self.heads[name], "dropout_before": 0.0, "dropout_after": dropout, "outputs": config.num_labels}

    def logit_fields(self) -> tuple[str, ...]:
        """Return the fields of a configuration that change the logits which given weights and ids have."""
        return tuple(field for name, field in self.fields.items() if "dropout" not in name)
