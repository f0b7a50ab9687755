"""`Config`: what the configurations of all architectures have in common, with the names of `transformers`.

More than 500 lines, since a class is whole in one file.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from .. import _core
from ..data.label_names import default_label_map
from ..hub import resolve
from ..keywords import KEYWORDS, location
from ..losses.problem_types import PROBLEM_TYPES
from ..system.files import read_json_object, write_json
from ..system.names import did_you_mean, listing
from ..system.output import given_path
from .head_names import ENCODER, ENDINGS, SEQUENCE, named_head
from .layer_shapes import FIELDS, LayerShape, checked_heads, checked_sizes, without_other_layers
from .pooling import Pooling
from .quantization import KEY, Quantization
from .trained_with import TrainedWith, checked_record

CONFIG_FILE = "config.json"
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
"""The fields that shape the weights of every architecture, without the number of labels."""
_MAX_SIZE = 2**31 - 1
_MAX_LABELS = 1 << 20
_NO_POOLING: Pooling | None = None
# Settings of transformers that have only one value here, beside None: another one makes another model.
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "quantization_config": {},
}
# Settings that change what transformers does, but not the model -> (values that change nothing here, beside None; why
# another one is ignored, with a warning).
_WITHOUT_EFFECT: dict[str, tuple[tuple[Any, ...], str]] = {
    "output_attentions": ((False,), "give it to a call"),
    "output_hidden_states": ((False,), "give it to a call"),
    "return_dict": ((True,), "a call returns one object, whose to_tuple() is a tuple"),
    "use_return_dict": ((True,), "a call returns one object, whose to_tuple() is a tuple"),
    "torchscript": ((False,), "a call returns one object, whose to_tuple() is a tuple"),
    "auto_map": ((), "the code of a repository is never run; the model is computed as the {kind} of transformers"),
}
# Settings of transformers that change nothing about a model's results, or that describe it.
_HARMLESS = (
    "chunk_size_feed_forward",
    "tie_word_embeddings",
    "use_cache",
    "gradient_checkpointing",
    "bos_token_id",
    "eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "finetuning_task",
    "task_specific_params",
    "transformers_version",
)
# Keys of a config.json that `to_dict` writes itself, or that describe the file it was read from.
_REWRITTEN = ("model_type", "architectures", "dtype", "torch_dtype", "_name_or_path", "num_labels", "_num_labels")


@dataclass(init=False, repr=False, kw_only=True)
class Config:
    """Shape and constants of a model. Immutable; `replace` returns a changed copy.

    An architecture's configuration has fields of the names and defaults that it has in transformers. Whatever these
    are, it can be asked for its values, made and changed under the names that `BertConfig` has.

    Attributes:
        model_type: the architecture's name, as config.json has it.
        kind: the same in a sentence.
        attribute_map: name of `BertConfig` -> the architecture's own name of the field.
        constants: name of `BertConfig` -> value, where the architecture has no such field.
        more_sizes: the fields that shape the weights beside `SIZES`.
        more_dropouts: the dropout rates beside those of `BertConfig`, None among their values.
        only: field -> the one value that is computed.
        head: the name of the model's head, among the keys of `ENDINGS`. It follows from `architectures` in a
            config.json, or from the class of the model; it is no argument, and ignored in comparisons.
        pooling: how an encoder embeds texts, see `Pooling`; None: it gives the rows of all tokens. It is kept like the
            head, and written as the files of sentence-transformers.
        after_padding: positions begin behind the padding token's id, as fairseq numbers them.
        one_layer: all layers have the weights of the first.
        pruned_heads: layer -> the heads that it lacks of `num_attention_heads`, counted from 0 as before they were
            pruned; None: no layer lacks any. Versions 4 of transformers prune as it says; version 5 refuses weights.
        intermediate_sizes: `intermediate_size` of each layer, where they differ; None: it is that of all.
    """

    model_type: ClassVar[str]
    kind: ClassVar[str]
    attribute_map: ClassVar[Mapping[str, str]] = {}
    constants: ClassVar[Mapping[str, Any]] = {}
    more_sizes: ClassVar[tuple[str, ...]] = ()
    more_dropouts: ClassVar[tuple[str, ...]] = ()
    only: ClassVar[Mapping[str, Any]] = {}
    after_padding: ClassVar[bool] = False
    one_layer: ClassVar[bool] = False
    head = SEQUENCE
    pooling = _NO_POOLING

    problem_type: str | None = None
    id2label: dict[int, str]
    label2id: dict[str, int]
    pruned_heads: Mapping[int, Sequence[int]] | None = None
    intermediate_sizes: Sequence[int] | None = None
    extra: dict[str, Any] = field(compare=False)

    if TYPE_CHECKING:  # of every architecture, under this or its own name, or as a constant

        @property
        def vocab_size(self) -> int: ...
        @property
        def hidden_size(self) -> int: ...
        @property
        def num_hidden_layers(self) -> int: ...
        @property
        def num_attention_heads(self) -> int: ...
        @property
        def intermediate_size(self) -> int: ...
        @property
        def hidden_act(self) -> str: ...
        @property
        def hidden_dropout_prob(self) -> float: ...
        @property
        def attention_probs_dropout_prob(self) -> float: ...
        @property
        def max_position_embeddings(self) -> int: ...
        @property
        def type_vocab_size(self) -> int: ...
        @property
        def initializer_range(self) -> float: ...
        @property
        def layer_norm_eps(self) -> float: ...
        @property
        def pad_token_id(self) -> int | None: ...

    else:

        def __getattr__(self, name: str) -> Any:
            """Return a field under the name that `BertConfig` has, or a constant."""
            if name in self.attribute_map:
                return getattr(self, self.attribute_map[name])
            if name in self.constants:
                return self.constants[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __init__(self, *, num_labels: int | None = None, **values: Any) -> None:
        values = self._under_own_names(values)
        for name, only in {**_FIXED, **self.only}.items():
            if values.pop(name, only) not in (only, None):
                raise ValueError(f"{name} must be {only!r}; kdistill computes no other kind of {self.kind}")
        names = [entry.name for entry in self.entries()]
        unused = {n: values.pop(n) for n in [*values] if n not in names and (n in _WITHOUT_EFFECT or n in _HARMLESS)}
        for name, value in unused.items():
            harmless, reason = _WITHOUT_EFFECT.get(name, ((value,), ""))
            if value is not None and value not in harmless:
                said = f"{name} is {value!r} in the configuration, which is ignored: {reason.format(kind=self.kind)}"
                warnings.warn(said, stacklevel=3)
        for name in values:
            if name not in names:
                nearest = did_you_mean(name, [*names, "num_labels"])
                raise TypeError(f"{type(self).__name__} has no argument {name!r}{nearest}")
        labels = _labels(num_labels, values.pop("id2label", None), values.pop("label2id", None))
        extra = {**checked_record(values.get("extra") or {}), **unused}
        values |= {"id2label": labels, "label2id": _invert(labels), "extra": extra}
        for name in names:
            self._set(name, values[name] if name in values else getattr(type(self), name))
        self._check()

    @classmethod
    def entries(cls) -> list[dataclasses.Field[Any]]:
        """Return the fields, those of every architecture last."""
        common = {entry.name for entry in dataclasses.fields(Config)}
        return sorted(dataclasses.fields(cls), key=lambda entry: entry.name in common)

    @classmethod
    def _under_own_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        for name, own in cls.attribute_map.items():
            if name in values and own in values:
                raise TypeError(f"{name} and {own} are one field of {cls.__name__}; expected one of the two")
        return {cls.own_name(name): value for name, value in values.items()}

    @classmethod
    def own_name(cls, name: str) -> str:
        """Return what the architecture calls a field of `BertConfig`."""
        return cls.attribute_map.get(name, name)

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """Return the names of all arguments of the constructor, those without effect included.

        What `from_pretrained` knows as a keyword of its own is not among them.
        """
        names = [entry.name for entry in cls.entries()]
        names += [name for name in cls.attribute_map if name not in names]
        known = (*names, "num_labels", *_FIXED, *_WITHOUT_EFFECT, *_HARMLESS)
        return tuple(name for name in dict.fromkeys(known) if name not in KEYWORDS)

    @property
    def num_labels(self) -> int:
        """The number of classes."""
        return len(self.id2label)

    @property
    def trained_with(self) -> TrainedWith:
        """How the rows were read that the model was trained on: what config.json holds under "kdistill"."""
        return TrainedWith.of(self.extra)

    def with_trained(self, trained_with: TrainedWith) -> Self:
        """Return a copy with another `trained_with`."""
        return self.replace(extra=trained_with.within(self.extra))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration that a parsed config.json describes; absent fields take their defaults.

        Args:
            values: the content of config.json.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: `model_type` is there and another, or the constructor does not accept a value.
        """
        if values.get("model_type") not in (cls.model_type, None):
            raise ValueError(cls._another_type(values["model_type"]))
        if Quantization.of(values) is not None:  # a model of its weights has none
            values = {name: value for name, value in values.items() if name != KEY}
        own = {*cls.arguments(), *_FIXED} - {"extra", "num_labels"}
        known = {key: value for key, value in values.items() if key in own}
        extra = {key: value for key, value in values.items() if key not in known and key not in _REWRITTEN}
        num_labels = values.get("num_labels", values.get("_num_labels"))
        return cls(num_labels=num_labels, extra=extra, **known).with_head(named_head(values) or cls.head)

    def with_head(self, head: str) -> Self:
        """Return the configuration of a model with this head."""
        if head == self.head:
            return self
        config = copy.copy(self)
        config._set("head", head)
        return config

    def with_pooling(self, pooling: Pooling | None) -> Self:
        """Return the configuration of an encoder that embeds texts so."""
        config = copy.copy(self)
        config._set("pooling", pooling)
        return config

    @property
    def embeds(self) -> bool:
        """Whether the model gives a text an embedding."""
        return self.head == ENCODER and self.pooling is not None

    @property
    def num_outputs(self) -> int:
        """How many numbers the model gives a row: its labels, or the width of an embedding."""
        return self.hidden_size if self.embeds else self.num_labels

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a config.json for a model with this head in float32, as `transformers` reads it."""
        fields = {entry.name: getattr(self, entry.name) for entry in self.entries() if entry.name != "extra"}
        fields = {name: value for name, value in fields.items() if value is not None or name not in FIELDS}
        fields |= {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}
        named = type(self).__name__.removesuffix("Config") + ENDINGS[self.head]
        written = {"architectures": [named], "model_type": self.model_type, "dtype": "float32"}
        return {**self.extra, **fields, **written}

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        **keywords: Any,
    ) -> Self:
        """Read the config.json of a model.

        Args:
            path_or_id: a model directory or a hub id.
            keywords: where the files are, see `hub.resolve`; arguments of the constructor that replace values of the
                file, see `replace`; those of transformers that are of no use here, see `kdistill.keywords`.

        Raises:
            FileNotFoundError: there is no config.json, see `hub.resolve`.
            TypeError, ValueError: the file is malformed or describes another architecture, or a keyword is unknown or
                asks for what kdistill cannot do.
        """
        changes = {name: keywords.pop(name) for name in [*keywords] if name in cls.arguments()}
        where = location(keywords, cls.__name__, cls.arguments())
        path = resolve(path_or_id, [[CONFIG_FILE]], **where) / CONFIG_FILE
        content = read_json_object(path)
        try:
            config = cls.from_dict(content)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from error
        return config.replace(**changes) if changes else config

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json into `directory`, which is created if missing."""
        write_config(given_path("directory", directory), self.to_dict())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some arguments of the constructor changed; labels in any form replace the old ones."""
        values = {entry.name: getattr(self, entry.name) for entry in self.entries()}
        changes = self._under_own_names(changes)
        sizes = (*SIZES, *FIELDS)
        layers = without_other_layers(
            {name: getattr(self, name) for name in sizes},
            {name: changes[self.own_name(name)] for name in sizes if self.own_name(name) in changes},
        )
        values |= layers
        if changes.keys() & {"num_labels", "id2label", "label2id"}:
            del values["id2label"], values["label2id"]
        return type(self)(**(values | changes)).with_head(self.head).with_pooling(self.pooling)

    def __repr__(self) -> str:
        """Return the constructor's call for this configuration, without arguments at their defaults."""
        default = type(self)()
        changed = [
            f"{entry.name}={getattr(self, entry.name)!r}"
            for entry in self.entries()
            if entry.name not in ("label2id", "extra") and getattr(self, entry.name) != getattr(default, entry.name)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def layer_shapes(self) -> tuple[LayerShape, ...]:
        """Return the number of heads and of feed-forward units of each layer."""
        heads, sizes = self.pruned_heads or {}, self.intermediate_sizes
        owners = [0 if self.one_layer else layer for layer in range(self.num_hidden_layers)]
        return tuple(
            LayerShape(
                self.num_attention_heads - len(heads.get(owner, ())),
                self.intermediate_size if sizes is None else sizes[owner],
            )
            for owner in owners
        )

    @property
    def head_width(self) -> int:
        """The numbers that one attention head has for each token; that of a layer's heads is in `layer_shapes`."""
        return self.hidden_size // self.num_attention_heads

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token of a text has."""
        return (self.pad_token_id or 0) + 1 if self.after_padding else 0

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def _another_type(cls, model_type: Any) -> str:
        """Return the error message about a `model_type` that is not this class's."""
        known = [other.model_type for other in Config.__subclasses__()]
        if model_type in known:
            remedy = "AutoConfig and the AutoModel classes open it"
        else:
            remedy = f"kdistill computes {listing(sorted(known))} and no other; use such a model instead"
        return f"model_type is {model_type!r}; expected {cls.model_type!r} for {cls.__name__}: {remedy}"

    def _check(self) -> None:
        for common in (*SIZES, *self.more_sizes):
            name = self.own_name(common)
            if name not in self.constants:
                most = _core.MAX_LAYERS if common == "num_hidden_layers" else _MAX_SIZE
                self._set(name, _integer(name, getattr(self, name), 1, most))
        if self.hidden_size % self.num_attention_heads:
            hidden, heads = self.own_name("hidden_size"), self.own_name("num_attention_heads")
            raise ValueError(f"{hidden} {self.hidden_size} is not a multiple of {heads} {self.num_attention_heads}")
        layers = 1 if self.one_layer else self.num_hidden_layers
        self._set("pruned_heads", checked_heads(self.pruned_heads, layers, self.num_attention_heads))
        sizes = checked_sizes(self.intermediate_sizes, layers, self.own_name("intermediate_size"))
        self._set("intermediate_sizes", sizes)
        self._check_positions()
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", *self.more_dropouts)
        for name in map(self.own_name, rates):
            if name not in self.more_dropouts or getattr(self, name) is not None:
                self._set(name, _real(name, getattr(self, name)))
                if not 0 <= getattr(self, name) < 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; expected 0 <= {name} < 1")
        for name in ("initializer_range", "layer_norm_eps"):
            if name not in self.constants:
                self._set(name, _real(name, getattr(self, name)))
        if self.initializer_range < 0:
            raise ValueError(f"initializer_range is {self.initializer_range}; expected a standard deviation >= 0")
        if self.layer_norm_eps <= 0:
            raise ValueError(f"layer_norm_eps is {self.layer_norm_eps}; expected a number > 0")
        if self.hidden_act not in _core.ACTIVATIONS:
            name, known = self.own_name("hidden_act"), ", ".join(_core.ACTIVATIONS)
            raise ValueError(f"{name} is {self.hidden_act!r}; expected one of {known}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type is {self.problem_type!r}; expected None or one of {', '.join(PROBLEM_TYPES)}"
            )

    def _check_positions(self) -> None:
        if self.after_padding and self.pad_token_id is None:
            raise ValueError("pad_token_id is None; expected the padding token's id, behind which positions begin")
        if self.pad_token_id is not None:
            self._set("pad_token_id", _integer("pad_token_id", self.pad_token_id, 0, self.vocab_size - 1))
        if self.max_tokens < 1:
            raise ValueError(
                f"max_position_embeddings is {self.max_position_embeddings}; expected more than "
                f"{self.first_position}, since the first token's position is pad_token_id + 1"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(
            f"{name} of a configuration cannot be assigned; give it when the model is made, from_pretrained(..., "
            f"{name}=...), or for labels afterwards: model.config = model.config.replace(id2label=...)"
        )

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"{name} of a configuration cannot be deleted")


def _labels(num_labels: int | None, id2label: Any, label2id: Any) -> dict[int, str]:
    """Return the label of each id, in the order of the ids, from those of the three arguments that are given."""
    if id2label is not None:
        labels = _pairs("id2label", id2label)
    elif label2id is not None:
        ids = {label: _id("label2id", index) for label, index in _items("label2id", label2id)}
        if len(set(ids.values())) != len(ids):
            raise ValueError(f"label2id gives one id to two labels: {ids}")
        labels = _pairs("label2id", {index: label for label, index in ids.items()})
    else:
        labels = default_label_map(2 if num_labels is None else _integer("num_labels", num_labels, 1, _MAX_LABELS))
    if len(set(labels.values())) != len(labels):
        raise ValueError(f"id2label gives one label to two ids: {labels}")
    if num_labels is not None and num_labels != len(labels):
        raise ValueError(f"num_labels is {num_labels}, but {len(labels)} labels are named: {list(labels.values())}")
    if id2label is not None and label2id is not None:
        _warn_of_another_order(label2id, labels)
    return labels


def _warn_of_another_order(label2id: Any, labels: Mapping[int, str]) -> None:
    """Warn of the first label to which `label2id` does not give the id that `labels` has for it."""
    theirs = dict(_items("label2id", label2id))
    for index, label in labels.items():
        found = theirs.pop(label, None)
        if str(found) != str(index):
            warnings.warn(
                f"label2id gives {label!r} the id {found!r} and id2label {index}; id2label takes precedence",
                stacklevel=5,
            )
            return
    if theirs:
        warnings.warn(
            f"label2id has {next(iter(theirs))!r}, which id2label lacks; id2label takes precedence", stacklevel=5
        )


def _pairs(name: str, mapping: Any) -> dict[int, str]:
    """Return `{id: label}`, sorted by id, after checking that the ids are 0..n-1."""
    found: dict[int, str] = {}
    for key, label in _items(name, mapping):
        if not isinstance(label, str):
            raise TypeError(f"{name} holds the label {label!r}; expected a str")
        found[_id(name, key)] = label
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError(f"{name} has the ids {sorted(found)}; expected 0, 1, ... without gaps")
    return dict(sorted(found.items()))


def _id(name: str, value: Any) -> int:
    """Return an id of a label map as an int: JSON turns keys into strings, and many files have such ids in label2id."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    return _integer(f"an id in {name}", value, 0, _MAX_LABELS - 1)


def _items(name: str, mapping: Any) -> list[tuple[Any, Any]]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name} is a {type(mapping).__name__}; expected a dict")
    return list(mapping.items())


def _invert(labels: Mapping[int, str]) -> dict[str, int]:
    return {label: index for index, label in labels.items()}


def _integer(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int in [low, high]; a bool or a float does not count as an integer."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected an int") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}; expected {low} to {high}")
    return number


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; expected a finite number")
    return number


def write_config(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the content of a config.json into `directory`, which is created if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / CONFIG_FILE, content, sort_keys=True, ensure_ascii=False)


def read_config(path_or_id: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of the config.json of a model directory or hub id. Errors as in `hub.resolve`."""
    return read_json_object(resolve(path_or_id, [[CONFIG_FILE]]) / CONFIG_FILE)
