"""The classes of models, each an architecture with a head, and those that choose one by a config's `model_type`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.batch import Batch, pack
from ..hub import resolve
from ..keywords import take_location
from ..losses.labels import label_loss
from ..system.files import read_json_object
from ..system.names import check_others
from .architectures.bert import BERT
from .checkpoint import WEIGHTS_FILES
from .config import CONFIG_FILE, BertConfig
from .model import Model
from .transformers_names import CALL


class ModelOutput(Mapping[str, Any]):
    """The result of a call: by attribute, by name or by place, as in transformers.

    `outputs.logits`, `outputs["logits"]` and, where no loss comes first, `outputs[0]` are the same. It iterates over
    the names of what is there; `to_tuple()` has the values.
    """

    def _present(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def to_tuple(self) -> tuple[Any, ...]:
        """Return what is there, in order: the loss first, if labels were given."""
        return tuple(self._present().values())

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._present()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    __eq__, __hash__ = object.__eq__, object.__hash__  # two arrays have no single answer


@dataclass(frozen=True, eq=False)
class SequenceClassifierOutput(ModelOutput):
    """The result of a call: logits float32 (B, num_labels), and the mean loss if labels were given."""

    loss: float | None
    logits: NDArray[np.float32]


class BertForSequenceClassification(Model):
    """A BERT encoder with pooler and classifier (Devlin et al., arXiv:1810.04805).

    Its arguments, attributes and methods are those of `Model`. A call classifies sequences.
    """

    architecture = BERT
    head = "sequence-classification"

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: ArrayLike | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        """Return the logits of padded arrays or ragged lists of token ids, without dropout.

        Args:
            input_ids: (B, S) or B lists of ids; or all three at once, as a tokenizer returns them or `pack` does.
            attention_mask: like input_ids, ones then zeros; tokens under a zero are left out.
            token_type_ids: like input_ids; default zeros.
            labels: (B,) whole numbers, or floating-point numbers (B, num_labels); then `loss` is the mean loss of
                `config.problem_type`, see `losses.labels.label_loss`. One output takes (B,) numbers.
            others: arguments of transformers, accepted where they change nothing, such as `return_dict=True`.

        Raises:
            TypeError: an unknown argument; the message names the nearest one.
            ValueError: an id, a length or a mask out of range; names argument and position.
        """
        if others:
            check_others(type(self).__name__, others, inspect.signature(type(self).__call__).parameters, CALL)
        logits = self.forward(_packed(input_ids, attention_mask, token_type_ids))
        if labels is None:
            return SequenceClassifierOutput(None, logits)
        loss, _ = label_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(loss, logits)


def _packed(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Batch:
    """Return the first arguments of a call as a Batch."""
    beside = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
    beside = {name: value for name, value in beside.items() if value is not None}
    if not isinstance(input_ids, Mapping | Batch):
        input_ids = {"input_ids": input_ids, **beside}
    elif beside:
        raise TypeError(f"input_ids is a {type(input_ids).__name__}, which already contains {min(beside)}")
    return pack(input_ids)


CLASSES: tuple[type[Model], ...] = (BertForSequenceClassification,)
"""Every class of models. A checkpoint that names none of them, such as one of an encoder alone, is of the first."""


def model_class(config: Mapping[str, Any]) -> type[Model]:
    """Return the class that a config.json, parsed, names among its `architectures`; by default the first."""
    named = config.get("architectures")
    return next((cls for cls in CLASSES if isinstance(named, list) and cls.__name__ in named), CLASSES[0])


def load_model(path_or_id: str | os.PathLike[str], **settings: Any) -> Model:
    """Load a checkpoint as the class that its config.json names. See `Model.from_pretrained`, also for the settings.

    Raises `ValueError` also for a config.json without `model_type`, which only a class can open.
    """
    directory, content = _found(path_or_id, settings, (CONFIG_FILE,), WEIGHTS_FILES)
    return model_class(content).from_pretrained(directory, **settings)


def _found(
    path_or_id: str | os.PathLike[str], keywords: dict[str, Any], *needed: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    """Return the directory of a model and its config.json, which must state the `model_type`.

    Takes the keywords that `hub.resolve` has out of `keywords`.
    """
    directory = resolve(path_or_id, needed, **take_location(keywords))
    content = read_json_object(directory / CONFIG_FILE)
    if content.get("model_type") is None:
        raise ValueError(
            f"{directory / CONFIG_FILE}: model_type is absent, so the class is unknown; open it with "
            'BertForSequenceClassification.from_pretrained, or add "model_type": "bert" if it is a BERT'
        )
    return directory, content


class AutoConfig:
    """The configuration class by model type: `BertConfig`. Another `model_type` raises `ValueError`."""

    @staticmethod
    def from_pretrained(path_or_id: str | os.PathLike[str], **keywords: Any) -> BertConfig:
        """Read the config.json of a model, which must state its `model_type`; see `BertConfig.from_pretrained`."""
        directory, _ = _found(path_or_id, keywords, (CONFIG_FILE,))
        return BertConfig.from_pretrained(directory, **keywords)

    @staticmethod
    def for_model(model_type: str, **values: Any) -> BertConfig:
        """Return the configuration of a model type: "bert", with the arguments of `BertConfig`."""
        return BertConfig.from_dict({"model_type": model_type}).replace(**values)


class AutoModelForSequenceClassification:
    """The classifier by model type: `BertForSequenceClassification`. Another `model_type` raises `ValueError`."""

    @staticmethod
    def from_pretrained(path_or_id: str | os.PathLike[str], **keywords: Any) -> BertForSequenceClassification:
        """Load a checkpoint whose config.json states its `model_type`; see `Model.from_pretrained`.

        With a `config` there need be no config.json.
        """
        cls = BertForSequenceClassification
        if keywords.get("config") is None:
            path_or_id, _ = _found(path_or_id, keywords, (CONFIG_FILE,), WEIGHTS_FILES)
        return cls.from_pretrained(path_or_id, **keywords)

    @staticmethod
    def from_config(config: BertConfig, seed: int | None = None) -> BertForSequenceClassification:
        """Return a model of this shape with new weights, drawn from `seed`."""
        return BertForSequenceClassification(config, seed=seed)
