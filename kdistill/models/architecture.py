"""An architecture as data: what checkpoints call the tensors, and what the core is told of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .configuration import Config
from .head_names import ENCODER, MASKED, SPAN
from .layer_shapes import FIELDS
from .pooling import PICKS

_BIAS = ".bias"
_DECODER = "head.output"
# What the core calls a part of the encoder's shape -> the field of `BertConfig`.
_FIELDS = {
    "hidden": "hidden_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
# Those that follow from `Config.layer_shapes` and the width of a head.
_OF_LAYERS = ("num_hidden_layers", "num_attention_heads", "intermediate_size")
_NO_DROPOUT = 0.0


@dataclass(frozen=True, kw_only=True)
class Head:
    """One architecture's head for one use, as transformers has it.

    rows of the encoder -> dropout -> dense product, activation, LayerNorm -> dropout -> product

    Attributes:
        modules: canonical name -> the module's name in a checkpoint, see `Architecture.modules`.
        pick: which rows: "first" of each sequence, "all", their "mean", or those that are "listed" for a pass.
        dense: the activation behind a dense product, or the field of `BertConfig` that names it; None: no product.
        dropout_before: the field with the rate, None: no dropout. Where its value is None, the encoder's rate is meant.
        dropout_after: likewise.
        norm: a LayerNorm stands behind the activation.
        dense_width: the field with the width of the dense product's result; None: as wide as the encoder.
        tied: the last product's weight is the word table, unless the configuration has `tie_word_embeddings` False.
        unit: what would go into the last product, which is not there, is divided by its length.
        copies: names of a checkpoint for what is there under another: tied weights. The first is the name of the last
            product's weight where it is not tied.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    pick: str = "all"
    dense: str | None = None
    dropout_before: str | None = None
    dropout_after: str | None = None
    norm: bool = False
    dense_width: str | None = None
    tied: bool = False
    unit: bool = False
    copies: tuple[str, ...] = ()

    def described(self, config: Config, outputs: int) -> dict[str, Any]:
        """Return the head as `_core.layout` takes it; what is as in BERT's classifier is left to the core's defaults.

        Args:
            config: has the rates and widths.
            outputs: of a row; 0: no last product.
        """
        fields = {"hidden_act": config.hidden_act}
        head = {
            "pick": self.pick,
            "dense": fields.get(self.dense, self.dense) if self.dense else None,
            "dropout_before": _rate(self.dropout_before, config),
            "dropout_after": _rate(self.dropout_after, config),
            "outputs": outputs,
        }
        further = {"norm": self.norm, "tied": self.tied and config.extra.get("tie_word_embeddings") is not False}
        further["unit"] = self.unit
        if self.dense_width is not None and getattr(config, self.dense_width) != config.hidden_size:
            further["dense_width"] = getattr(config, self.dense_width)
        return head | {name: value for name, value in further.items() if value}


def _rate(name: str | None, config: Config) -> float:
    if name is None:
        return _NO_DROPOUT
    rate = getattr(config, name)
    return float(config.hidden_dropout_prob if rate is None else rate)


def _no_facts(config: Config) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture's names, beside the canonical ones that the core gives its tensors (csrc/model/kd_tensors.h).

    The core has a weight "layer.3.query" and its bias "layer.3.query.bias"; a checkpoint has a module with a ".weight"
    and a ".bias".

    Attributes:
        name: what its classes begin with.
        config: the class of its configurations.
        paper: where it is described.
        prefix: what the encoder's names begin with in a checkpoint with a head; one of the encoder alone lacks it.
        modules: canonical name of a weight -> the module's name in a checkpoint; "*" stands for a layer's number.
        heads: name of a head -> the head.
        facts: (config) -> what its encoder has beside what BERT's has, as `_core.layout` takes it.
    """

    name: str
    config: type[Config]
    paper: str
    prefix: str
    modules: Mapping[str, str]
    heads: Mapping[str, Head]
    facts: Callable[[Any], dict[str, Any]] = _no_facts

    @property
    def model_type(self) -> str:
        """Its name in config.json."""
        return self.config.model_type

    def names(self, head: str) -> Names:
        """Return what a model with this head calls its tensors; one without any head does without the prefix."""
        modules = {**self.modules, **self.heads[head].modules}
        pooler = self.heads[ENCODER].modules.get("head.dense")
        return Names("" if head == ENCODER else self.prefix, self.prefix, modules, self.heads[head].copies, pooler)

    def encoder(self, config: Config) -> dict[str, Any]:
        """Return the shape of the encoder as `_core.layout` takes it."""
        shape = {name: getattr(config, field) for name, field in _FIELDS.items()}
        places = {"head_width": config.head_width, "first_position": config.first_position}
        layers = tuple(map(tuple, config.layer_shapes()))
        return shape | {"layers": layers, **places} | self.facts(config)

    def head(self, name: str, config: Config) -> dict[str, Any]:
        """Return the head of this name as `_core.layout` takes it."""
        outputs = {MASKED: config.vocab_size, ENCODER: 0}.get(name, config.num_labels)
        if name == SPAN and outputs != 2:
            raise ValueError(
                f"num_labels is {outputs}; expected 2 for question answering, the logits of a token as the answer's "
                "first and as its last: pass num_labels=2"
            )
        return self.head_of(name, config).described(config, outputs)

    def head_of(self, name: str, config: Config) -> Head:
        """Return the head of this name; of an encoder that embeds texts, one without any product."""
        if name != ENCODER or config.pooling is None:
            return self.heads[name]
        return Head(pick=PICKS[config.pooling.mode], unit=config.pooling.normalize)

    def logit_fields(self, config: Config) -> dict[str, Any]:
        """Return what changes the logits that given weights and ids have, by the names that `BertConfig` has."""
        names = [name for key, name in _FIELDS.items() if "dropout" not in key]
        return {name: getattr(config, name) for name in (*_OF_LAYERS, *names)}

    def differences(self, head: str, config: Config) -> dict[str, Any]:
        """Return what changes them beside, of a model that computes otherwise than BERT's classifier; else nothing."""
        described = {"first_position": config.first_position} | self.facts(config) | self.head(head, config)
        stated = {name: getattr(config, name) for name in FIELDS}
        described |= {name: value for name, value in stated.items() if value is not None}
        usual = {"first_position": 0, "pick": "first", "dense": "tanh", "outputs": config.num_labels}
        return {
            name: value
            for name, value in described.items()
            if "dropout" not in name and (name not in usual or usual[name] != value)
        }


@dataclass(frozen=True)
class Names:
    """What the checkpoints of one class of models call the core's tensors.

    Attributes:
        prefix: what the encoder's names begin with here, ...
        other_prefix: ... and in checkpoints of the encoder with a head.
        modules: canonical name of a weight -> the module's name, with `other_prefix`.
        copies: see `Head`.
        pooler: the module that an encoder without a head ends with, with `other_prefix`; None where it has none.
    """

    prefix: str
    other_prefix: str
    modules: Mapping[str, str]
    copies: tuple[str, ...] = ()
    pooler: str | None = None

    def stored(self, canonical: str) -> str:
        """Return what a checkpoint calls the tensor of this canonical name."""
        if canonical == _DECODER and self.copies:
            return self.copies[0]
        name, layer = canonical.removesuffix(_BIAS), ""
        if name.startswith("layer."):
            _, layer, rest = name.split(".", 2)
            name = f"layer.*.{rest}"
        module = self._here(self.modules[name]).replace("*", layer)
        return module + (_BIAS if canonical.endswith(_BIAS) else ".weight")

    def prefixes(self, beginning: str) -> tuple[str, ...]:
        """Return what the names of tensors begin with in a checkpoint whose canonical names have this `beginning`."""
        modules = (self._here(module) for name, module in self.modules.items() if name.startswith(beginning))
        return tuple(dict.fromkeys(f"{module}.".partition("*")[0] for module in modules))

    def candidates(self, name: str) -> tuple[str, ...]:
        """Return the names here that one of a checkpoint with or without a head can stand for."""
        bare = name.removeprefix(self.other_prefix)
        return (name, bare) if not self.prefix else (name, self.prefix + name)

    def is_of_pooler(self, name: str) -> bool:
        """Return whether a tensor of this name in a checkpoint belongs to the encoder's pooler."""
        if self.pooler is None:
            return False
        return any(each.startswith(f"{self._here(self.pooler)}.") for each in self.candidates(name))

    def _here(self, module: str) -> str:
        return module if self.prefix else module.removeprefix(self.other_prefix)
