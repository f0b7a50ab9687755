"""The classes of models, each an architecture with a head, and those that choose one by a config's `model_type`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.batch import Batch, pack
from ..data.labels import NO_LABEL
from ..data.ragged import Ragged
from ..hub import resolve
from ..keywords import take_location
from ..losses.labels import label_loss
from ..losses.problem_types import SINGLE_LABEL
from ..losses.spans import loss_of_spans
from ..system.files import read_json_object
from ..system.names import check_others
from .architectures.bert import BERT
from .checkpoint import WEIGHTS_FILES
from .config import CONFIG_FILE, BertConfig, named_head
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


@dataclass(frozen=True, eq=False)
class TokenClassifierOutput(ModelOutput):
    """The result of a call: the logits of each token, and the mean loss if labels were given.

    Logits of lists are a list of float32 (tokens, num_labels), those of a padded array float32 (B, S, num_labels), zero
    where there is padding.
    """

    loss: float | None
    logits: Any


class BertForTokenClassification(Model):
    """A BERT encoder with a classifier of each token (Devlin et al., arXiv:1810.04805).

    Its arguments, attributes and methods are those of `Model`. A call classifies tokens.
    """

    architecture = BERT
    head = "token-classification"

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        **others: Any,
    ) -> TokenClassifierOutput:
        """Return the logits of each token of padded arrays or ragged lists of token ids, without dropout.

        Args:
            input_ids: as in `BertForSequenceClassification`.
            attention_mask: likewise.
            token_type_ids: likewise.
            labels: like input_ids, whole numbers, -100 where a token has none; then `loss` is the mean loss of those
                that have one.
            others: likewise.

        Raises:
            TypeError: an unknown argument; the message names the nearest one.
            ValueError: an id, a length, a mask or a label out of range; names argument and position.
        """
        if others:
            check_others(type(self).__name__, others, inspect.signature(type(self).__call__).parameters, CALL)
        given = input_ids["input_ids"] if isinstance(input_ids, Mapping) else input_ids
        batch = _packed(input_ids, attention_mask, token_type_ids)
        rows = Ragged(self.forward(batch), batch.starts)
        loss = None
        if labels is not None:
            loss = _loss_of_tokens(rows, labels)
        if getattr(given, "ndim", 1) == 2:
            padded = np.zeros((len(rows), given.shape[1], self.num_labels), np.float32)
            padded[np.arange(given.shape[1]) < rows.lengths[:, None]] = rows.values
            return TokenClassifierOutput(loss, padded)
        return TokenClassifierOutput(loss, list(rows))


@dataclass(frozen=True, eq=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """The result of a call: the logits of each token as first and as last of the answer, and the loss if asked for.

    Logits of lists are a list of float32 (tokens,), those of padded arrays float32 (B, S), zero where there is padding.
    """

    loss: float | None
    start_logits: Any
    end_logits: Any


class BertForQuestionAnswering(Model):
    """A BERT encoder that finds the answer to a question in a text (Devlin et al., arXiv:1810.04805).

    Its arguments, attributes and methods are those of `Model`.
    """

    architecture = replace(BERT, modules={**BERT.modules, "head.output": "qa_outputs"})
    head = "question-answering"

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        start_positions: ArrayLike | None = None,
        end_positions: ArrayLike | None = None,
        **others: Any,
    ) -> QuestionAnsweringModelOutput:
        """Return the logits of each token of padded arrays or ragged lists of token ids, without dropout.

        Args:
            input_ids: as in `BertForSequenceClassification`.
            attention_mask: likewise.
            token_type_ids: likewise.
            start_positions: (B,) whole numbers, the first token of each answer. One behind the end of its row is
                ignored, and so is -100. With `end_positions`, `loss` is the mean of the mean losses of both.
            end_positions: likewise, the last token.
            others: likewise.

        Raises:
            TypeError: an unknown argument; the message names the nearest one.
            ValueError: an id, a length or a mask out of range; names argument and position.
        """
        if others:
            check_others(type(self).__name__, others, inspect.signature(type(self).__call__).parameters, CALL)
        given = input_ids["input_ids"] if isinstance(input_ids, Mapping) else input_ids
        batch = _packed(input_ids, attention_mask, token_type_ids)
        logits = self.forward(batch)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = loss_of_spans(logits, batch.starts, start_positions, end_positions)
        columns = [Ragged(np.ascontiguousarray(column), batch.starts) for column in logits.T]
        if getattr(given, "ndim", 1) == 2:
            padded = np.zeros((2, *given.shape), np.float32)
            for array, rows in zip(padded, columns, strict=True):
                array[np.arange(given.shape[1]) < rows.lengths[:, None]] = rows.values
            return QuestionAnsweringModelOutput(loss, *padded)
        return QuestionAnsweringModelOutput(loss, *map(list, columns))


def _loss_of_tokens(rows: Ragged, labels: Any) -> float:
    """Return the mean loss of the tokens whose label is not -100, given labels that may be padded."""
    given = [np.asarray(of) for of in labels]
    for row, (of, length) in enumerate(zip(given, rows.lengths, strict=False)):
        if len(given) != len(rows) or of.ndim != 1 or len(of) < length:
            raise ValueError(
                f"labels[{row}] has shape {of.shape}, in {len(given)} rows; expected a label for each of the {length} "
                f"tokens of {len(rows)} rows"
            )
    flat = np.concatenate([of[:length] for of, length in zip(given, rows.lengths, strict=True)])
    labelled = flat != NO_LABEL
    return label_loss(rows.values[labelled], flat[labelled], SINGLE_LABEL)[0]


def _packed(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Batch:
    """Return the first arguments of a call as a Batch."""
    beside = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
    beside = {name: value for name, value in beside.items() if value is not None}
    if not isinstance(input_ids, Mapping | Batch):
        input_ids = {"input_ids": input_ids, **beside}
    elif beside:
        raise TypeError(f"input_ids is a {type(input_ids).__name__}, which already contains {min(beside)}")
    return pack(input_ids)


CLASSES: tuple[type[Model], ...] = (
    BertForSequenceClassification,
    BertForTokenClassification,
    BertForQuestionAnswering,
)
"""Every class of models. A checkpoint that names none of them, such as one of an encoder alone, is of the first."""


def model_class(config: Mapping[str, Any], head: str | None = None) -> type[Model]:
    """Return the class that a config.json, parsed, names among its `architectures`; by default the first.

    With a `head`, the class that has it instead.
    """
    wanted = head or named_head(config) or CLASSES[0].head
    return next(cls for cls in CLASSES if cls.head == wanted)


def load_model(path_or_id: str | os.PathLike[str], *, head: str | None = None, **settings: Any) -> Model:
    """Load a checkpoint as the class that its config.json names. See `Model.from_pretrained`, also for the settings.

    A `head` in place of the named one makes a model for another task of it.

    Raises `ValueError` also for a config.json without `model_type`, which only a class can open.
    """
    directory, content = _found(path_or_id, settings, (CONFIG_FILE,), WEIGHTS_FILES)
    return model_class(content, head).from_pretrained(directory, **settings)


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


class AutoModelForTokenClassification:
    """The tagger by model type: `BertForTokenClassification`. Another `model_type` raises `ValueError`."""

    @staticmethod
    def from_pretrained(path_or_id: str | os.PathLike[str], **keywords: Any) -> BertForTokenClassification:
        """Load a checkpoint as `AutoModelForSequenceClassification.from_pretrained` does."""
        cls = BertForTokenClassification
        if keywords.get("config") is None:
            path_or_id, _ = _found(path_or_id, keywords, (CONFIG_FILE,), WEIGHTS_FILES)
        return cls.from_pretrained(path_or_id, **keywords)

    @staticmethod
    def from_config(config: BertConfig, seed: int | None = None) -> BertForTokenClassification:
        """Return a model of this shape with new weights, drawn from `seed`."""
        return BertForTokenClassification(config, seed=seed)


class AutoModelForQuestionAnswering:
    """The model for question answering by model type. Another `model_type` raises `ValueError`."""

    @staticmethod
    def from_pretrained(path_or_id: str | os.PathLike[str], **keywords: Any) -> BertForQuestionAnswering:
        """Load a checkpoint as `AutoModelForSequenceClassification.from_pretrained` does."""
        cls = BertForQuestionAnswering
        if keywords.get("config") is None:
            path_or_id, _ = _found(path_or_id, keywords, (CONFIG_FILE,), WEIGHTS_FILES)
        return cls.from_pretrained(path_or_id, **keywords)

    @staticmethod
    def from_config(config: BertConfig, seed: int | None = None) -> BertForQuestionAnswering:
        """Return a model of this shape with new weights, drawn from `seed`."""
        return BertForQuestionAnswering(config, seed=seed)
