"""Configurations of all architectures: what is asked of them, and those of a shape's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system.foreign import check_kind
from .architectures.albert import AlbertConfig
from .architectures.bert import BertConfig
from .architectures.camembert import CamembertConfig
from .architectures.distilbert import DistilBertConfig
from .architectures.electra import ElectraConfig
from .architectures.mpnet import MPNetConfig
from .architectures.roberta import RobertaConfig
from .architectures.xlm_roberta import XLMRobertaConfig
from .configuration import Config
from .layer_shapes import FIELDS, evenly_spaced, of_layers
from .registry import ARCHITECTURES

__all__ = [
    "AlbertConfig",
    "BertConfig",
    "CamembertConfig",
    "DistilBertConfig",
    "ElectraConfig",
    "MPNetConfig",
    "RobertaConfig",
    "XLMRobertaConfig",
    "check_config",
    "named_shape",
    "same_but_for_padding",
    "shape_name",
    "shape_of",
    "student_config",
]
_SHAPE = re.compile(r"L(\d+)-H(\d+)-A(\d+)")
_SHAPE_BEGINS = re.compile(r"L\d+-")
_MOST_PADDED_TO = 128
# What a student of another architecture has as its teacher has it, beside the number of positions.
_OF_STUDENT = (
    "vocab_size",
    "type_vocab_size",
    "pad_token_id",
    "hidden_act",
    "layer_norm_eps",
    "initializer_range",
    "problem_type",
    "id2label",
)


def check_config(name: str, value: object) -> None:
    """Raise TypeError, which names the remedy, for an argument that is not a configuration of kdistill."""
    expected = "a configuration of kdistill, such as BertConfig(...) or AutoConfig.from_pretrained(...)"
    named = type(value).__name__
    ours = named if named in [each.config.__name__ for each in ARCHITECTURES.values()] else "BertConfig"
    check_kind(name, value, Config, expected, of_foreign=f"{ours}.from_dict({name}.to_dict())")


OWN, HALF = "self", "half"
"""Names of shapes that a student has from its teacher: all of it, and with every second layer alone."""
_SIZES_OF_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


def shape_of(name: str) -> dict[str, int] | None:
    """Return the config fields of a shape such as L2-H128-A2, or None for another name or a directory.

    Raises `ValueError` as `named_shape`.
    """
    return None if Path(name).is_dir() else named_shape(name)


def shape_of_student(name: str, teacher: Config) -> dict[str, Any] | None:
    """Return the config fields of a student's shape, or None for another name or a directory; see `named_shape`.

    Raises `ValueError` as `named_shape`.
    """
    return None if Path(name).is_dir() else named_shape(name, teacher)


def named_shape(name: str, teacher: Config | None = None) -> dict[str, Any] | None:
    """Return the config fields of a shape, or None for another name.

    Args:
        name: `L<layers>-H<hidden size>-A<heads>`, whose intermediate size is four times the hidden size; of a student
            also `self` for the shape of the teacher, or `half` for that with half of its layers (of an odd number the
            smaller half, but at least one), those that the student then copies.
        teacher: the configuration of a student's teacher.

    Raises:
        ValueError: the name begins like a shape but is not one.
    """
    if teacher is not None and name in (OWN, HALF):
        return _shape_of_teacher(teacher, half=name == HALF)
    if not _SHAPE_BEGINS.match(name):
        return None
    match = _SHAPE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is neither a directory nor a shape; expected one such as L2-H128-A2")
    layers, hidden, heads = map(int, match.groups())
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return sizes | {"intermediate_size": 4 * hidden}


def _shape_of_teacher(teacher: Config, *, half: bool) -> dict[str, Any]:
    shape = {field: getattr(teacher, field) for field in (*_SIZES_OF_SHAPE, *FIELDS)}
    if not half:
        return shape
    count = max(1, teacher.num_hidden_layers // 2)
    copied = [0] if teacher.one_layer else evenly_spaced(count, teacher.num_hidden_layers)
    return shape | of_layers(shape, copied) | {"num_hidden_layers": count}


def shape_name(config: Config) -> str:
    """Return the name of a model's shape, which says nothing of its intermediate size; see `shape_of`."""
    return f"L{config.num_hidden_layers}-H{config.hidden_size}-A{config.num_attention_heads}"


def is_own_shape(name: str) -> bool:
    """Return whether a student is to have the shape of its teacher, with all of its layers or half of them."""
    return name in (OWN, HALF) and not Path(name).is_dir()


def student_config(
    teacher: Config, shape: Mapping[str, Any], vocabulary: Mapping[str, int] | None = None, **dropout: Any
) -> Config:
    """Return the configuration of a student of this shape, which reads what its teacher does.

    It is of the teacher's architecture. A BERT is made where a product stands behind the teacher's tables (ALBERT, most
    of ELECTRA), since tables so narrow cannot be taken from it, and where the student has a vocabulary of its own; its
    dropout is then the usual one of BERT.

    Args:
        teacher: the teacher's configuration.
        shape: see `shape_of`.
        vocabulary: `vocab_size` and `pad_token_id` of a student with another tokenizer; None: it has the teacher's.
        dropout: the rates that are given.
    """
    shape = {**dict.fromkeys(FIELDS), **shape}  # a shape says nothing of layers that differ
    narrow = ARCHITECTURES[teacher.model_type].encoder(teacher).get("embedding_width")
    if not narrow and vocabulary is None:
        tables = {name: shape["hidden_size"] for name in teacher.more_sizes if name == "embedding_size"}
        return teacher.replace(**shape, **tables, **dropout)
    alike: dict[str, Any] = {name: getattr(teacher, name) for name in _OF_STUDENT}
    if vocabulary is not None:  # the tokenizer may mark the second text of a pair, though the teacher's does not
        alike |= {"type_vocab_size": BertConfig.type_vocab_size, **vocabulary}
    config = BertConfig(**alike, max_position_embeddings=teacher.max_tokens, **shape, **dropout)
    return config.with_trained(teacher.trained_with).with_head(teacher.head).with_pooling(teacher.pooling)


def same_but_for_padding(vocab_size: int, other: int) -> bool:
    """Return whether two word tables can be of one vocabulary, the larger one padded to a multiple of 8 to 128."""
    larger = max(vocab_size, other)
    return vocab_size == other or (larger % 8 == 0 and larger - min(vocab_size, other) < _MOST_PADDED_TO)
