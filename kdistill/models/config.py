"""The configuration of a BERT classifier, with the names and defaults of `transformers.BertConfig`."""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .. import _core
from ..data.label_names import default_label_map
from ..hub import resolve
from ..keywords import KEYWORDS, location
from ..losses.problem_types import PROBLEM_TYPES
from ..system.files import read_json_object, write_json
from ..system.foreign import check_kind
from ..system.names import did_you_mean
from .trained_with import TrainedWith, checked_record

CONFIG_FILE = "config.json"
_SHAPE = re.compile(r"L(\d+)-H(\d+)-A(\d+)")
_SHAPE_BEGINS = re.compile(r"L\d+-")
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
"""The fields that shape the weights, without the number of labels."""
_MAX_SIZE = 2**31 - 1
_MAX_LABELS = 1 << 20
HEADS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
"""What the name of a class of transformers ends with -> the head of the model."""
_MOST_PADDED_TO = 128
# Settings of transformers that have only one value here, beside None: another one makes another model.
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": {},
}
# Settings that change what transformers does, but not the model -> (values that change nothing here, beside None; why
# another one is ignored, with a warning).
_WITHOUT_EFFECT: dict[str, tuple[tuple[Any, ...], str]] = {
    "output_attentions": ((False,), "a call returns logits and, with labels, the loss"),
    "output_hidden_states": ((False,), "a call returns logits and, with labels, the loss"),
    "return_dict": ((True,), "a call returns one object, whose to_tuple() is a tuple"),
    "use_return_dict": ((True,), "a call returns one object, whose to_tuple() is a tuple"),
    "torchscript": ((False,), "a call returns one object, whose to_tuple() is a tuple"),
    "auto_map": ((), "the code of a repository is never run; the model is computed as the BERT of transformers"),
}
# Settings of transformers that change nothing about a classifier's results, or that describe it.
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
class BertConfig:
    """Shape and constants of a BERT classifier. Immutable; `replace` returns a changed copy.

    All arguments are keywords, with the names and defaults of `transformers.BertConfig`.

    Args:
        num_labels: number of classes, named `LABEL_0`, `LABEL_1`, ... (default: 2, or as many as are named).
        values: any of the attributes.

    Attributes:
        id2label: id -> label, with ids from 0 without gaps. It follows from `label2id` if only that is given.
        label2id: label -> id. It follows from `id2label`.
        extra: the content of a config.json beyond the other attributes. It is written back and ignored in comparisons.
        head: the name of the model's head, among the values of `HEADS`. It follows from `architectures` in a
            config.json, or from the class of the model; it is no argument, and ignored in comparisons.

    Raises:
        TypeError: an unknown argument (the message suggests the nearest name) or a value of the wrong type.
        ValueError: a value that a BERT classifier cannot have, or that kdistill does not compute.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    problem_type: str | None = None
    id2label: dict[int, str]
    label2id: dict[str, int]
    extra: dict[str, Any] = field(compare=False)
    head = HEADS["ForSequenceClassification"]

    def __init__(self, *, num_labels: int | None = None, **values: Any) -> None:
        for name, only in _FIXED.items():
            if values.pop(name, only) not in (only, None):
                raise ValueError(f"{name} must be {only!r}; kdistill computes no other kind of BERT")
        unused = {name: values.pop(name) for name in [*values] if name in _WITHOUT_EFFECT or name in _HARMLESS}
        for name, value in unused.items():
            harmless, reason = _WITHOUT_EFFECT.get(name, ((value,), ""))
            if value is not None and value not in harmless:
                warnings.warn(f"{name} is {value!r} in the configuration, which is ignored: {reason}", stacklevel=3)
        names = [entry.name for entry in dataclasses.fields(self)]
        for name in values:
            if name not in names:
                raise TypeError(f"BertConfig has no argument {name!r}{did_you_mean(name, [*names, 'num_labels'])}")
        labels = _labels(num_labels, values.pop("id2label", None), values.pop("label2id", None))
        extra = {**checked_record(values.get("extra") or {}), **unused}
        values |= {"id2label": labels, "label2id": _invert(labels), "extra": extra}
        for name in names:
            self._set(name, values[name] if name in values else getattr(type(self), name))
        self._check()

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """Return the names of all arguments of the constructor, those without effect included.

        What `from_pretrained` knows as a keyword of its own is not among them.
        """
        names = [entry.name for entry in dataclasses.fields(cls)]
        return tuple(n for n in (*names, "num_labels", *_FIXED, *_WITHOUT_EFFECT, *_HARMLESS) if n not in KEYWORDS)

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
            ValueError: `model_type` is there and not "bert", or the constructor does not accept a value.
        """
        if values.get("model_type") not in ("bert", None):
            raise ValueError(
                f"model_type is {values['model_type']!r}; expected 'bert', the only architecture kdistill computes"
            )
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

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a config.json for a model with this head in float32, as `transformers` reads it."""
        fields = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.name != "extra"}
        fields |= {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}
        ending = next(ending for ending, head in HEADS.items() if head == self.head)
        written = {"architectures": [f"Bert{ending}"], "model_type": "bert", "dtype": "float32"}
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
        write_config(Path(directory), self.to_dict())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some arguments of the constructor changed; labels in any form replace the old ones."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        if changes.keys() & {"num_labels", "id2label", "label2id"}:
            del values["id2label"], values["label2id"]
        return type(self)(**(values | changes)).with_head(self.head)

    def __repr__(self) -> str:
        """Return the constructor's call for this configuration, without arguments at their defaults."""
        changed = [
            f"{entry.name}={getattr(self, entry.name)!r}"
            for entry in dataclasses.fields(self)
            if entry.name not in ("label2id", "extra") and getattr(self, entry.name) != getattr(_DEFAULT, entry.name)
        ]
        return f"BertConfig({', '.join(changed)})"

    def _check(self) -> None:
        for name in SIZES:
            most = _core.MAX_LAYERS if name == "num_hidden_layers" else _MAX_SIZE
            self._set(name, _integer(name, getattr(self, name), 1, most))
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.pad_token_id is not None:
            self._set("pad_token_id", _integer("pad_token_id", self.pad_token_id, 0, self.vocab_size - 1))
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if name != "classifier_dropout" or self.classifier_dropout is not None:
                self._set(name, _real(name, getattr(self, name)))
                if not 0 <= getattr(self, name) < 1:
                    raise ValueError(f"{name} is {getattr(self, name)}; expected 0 <= {name} < 1")
        self._set("initializer_range", _real("initializer_range", self.initializer_range))
        self._set("layer_norm_eps", _real("layer_norm_eps", self.layer_norm_eps))
        if self.initializer_range < 0:
            raise ValueError(f"initializer_range is {self.initializer_range}; expected a standard deviation >= 0")
        if self.layer_norm_eps <= 0:
            raise ValueError(f"layer_norm_eps is {self.layer_norm_eps}; expected a number > 0")
        if self.hidden_act not in _core.ACTIVATIONS:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; expected one of {', '.join(_core.ACTIVATIONS)}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type is {self.problem_type!r}; expected None or one of {', '.join(PROBLEM_TYPES)}"
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


_DEFAULT = BertConfig()


def read_config(path_or_id: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of the config.json of a model directory or hub id. Errors as in `hub.resolve`."""
    return read_json_object(resolve(path_or_id, [[CONFIG_FILE]]) / CONFIG_FILE)


def named_head(content: Mapping[str, Any]) -> str | None:
    """Return the head of the model that a config.json, parsed, names among its `architectures`; None for no known."""
    named = content.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return next((head for name in names for ending, head in HEADS.items() if name.endswith(ending)), None)


def check_config(name: str, value: object) -> None:
    """Raise TypeError, which names the remedy, for an argument that is not a configuration of kdistill."""
    expected = "a BertConfig, such as BertConfig.from_pretrained(...)"
    check_kind(name, value, BertConfig, expected, of_foreign=f"BertConfig.from_dict({name}.to_dict())")


def write_config(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the content of a config.json into `directory`, which is created if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / CONFIG_FILE, content, sort_keys=True, ensure_ascii=False)


def shape_of(name: str) -> dict[str, int] | None:
    """Return the config fields of a shape such as L2-H128-A2, or None for another name or a directory.

    Args:
        name: `L<layers>-H<hidden size>-A<heads>`; the intermediate size is four times the hidden size.

    Raises:
        ValueError: the name begins like a shape but is not one.
    """
    if Path(name).is_dir() or not _SHAPE_BEGINS.match(name):
        return None
    match = _SHAPE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is neither a directory nor a shape; expected one such as L2-H128-A2")
    layers, hidden, heads = map(int, match.groups())
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return sizes | {"intermediate_size": 4 * hidden}


def same_but_for_padding(vocab_size: int, other: int) -> bool:
    """Return whether two word tables can be of one vocabulary, the larger one padded to a multiple of 8 to 128."""
    larger = max(vocab_size, other)
    return vocab_size == other or (larger % 8 == 0 and larger - min(vocab_size, other) < _MOST_PADDED_TO)
