"""Classes and functions that choose the class of a model by the `model_type` of its configuration."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from ..hub import resolve
from ..keywords import take_location
from ..system.files import read_json_object
from .architecture import Architecture
from .checkpoint import WEIGHTS_FILES
from .classes import class_of
from .config import check_config
from .configuration import CONFIG_FILE, Config
from .head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN, named_head
from .heads import Encoder, MaskedLanguageModel, QuestionAnswerer, SequenceClassifier, TokenClassifier
from .loading import RandomWeights
from .model import Model
from .registry import ARCHITECTURES
from .sentence_files import OPTIONAL_FILES, config_in, head_in

_Kind = TypeVar("_Kind", bound=Model)


def architecture_of(model_type: Any) -> Architecture:
    """Return the architecture of this `model_type`; raise ValueError, which lists those there are, for another."""
    if isinstance(model_type, str) and model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    raise ValueError(
        f"model_type is {model_type!r}, which kdistill does not compute; expected a model of one of "
        f"{', '.join(ARCHITECTURES)}. A model of another kind teaches by its answers: a column teacher_logits of the "
        "rows, --teacher-logits FILE, or in Python a function as teacher_model"
    )


def model_class(content: Mapping[str, Any], head: str | None = None) -> type[Model]:
    """Return the class that a config.json, parsed, names among its `architectures`.

    Where that is one without a head for a task, such as an encoder or a language model, it is the architecture's
    sequence classifier, which begins with its weights. With a `head`, it is the class that has it instead.
    """
    return class_of(architecture_of(content.get("model_type")), head or named_head(content) or SEQUENCE)


def load_model(
    path_or_id: str | os.PathLike[str], *, head: str | None = None, language_models: bool = False, **settings: Any
) -> Model:
    """Load a checkpoint as the class that its config.json names. See `Model.from_pretrained`, also for the settings.

    A `head` in place of the named one makes a model for another task, whose last layer is new. A language model is
    loaded as a sequence classifier that is to be trained, or with `language_models` as what it is. A directory of
    sentence-transformers is loaded as an encoder that embeds texts.

    Raises `ValueError` also for a config.json without `model_type`, which only a class can open.
    """
    directory, content = _found(path_or_id, settings, (CONFIG_FILE,), WEIGHTS_FILES, optional=OPTIONAL_FILES)
    head = head or head_in(directory, content, language_models=language_models)
    return model_class(content, head).from_pretrained(directory, **settings)


def answering_class(directory: str | os.PathLike[str]) -> type[Model]:
    """Return the class as which `load_model` loads a directory whose model is to answer, language models included."""
    found, content = _found(directory, {}, (CONFIG_FILE,), optional=OPTIONAL_FILES)
    return model_class(content, head_in(found, content, language_models=True))


def head_of(path_or_id: str | os.PathLike[str], *, language_models: bool = False, **location: Any) -> str | None:
    """Return the head that the files of a checkpoint give it, embedding texts among them; None: none.

    Args:
        path_or_id: a directory or hub id.
        language_models: whether a language model counts as one, see `named_head`.
        location: where the files are, see `hub.resolve`.
    """
    directory, content = _found(path_or_id, location, (CONFIG_FILE,), optional=OPTIONAL_FILES)
    return head_in(directory, content, language_models=language_models)


def config_to_learn(path_or_id: str | os.PathLike[str], config: Config, head: str) -> Config:
    """Return the configuration of a checkpoint as that with which `load_model` begins a model with this head."""
    directory, _ = _found(path_or_id, {}, (CONFIG_FILE,), optional=OPTIONAL_FILES)
    return config_in(directory, config, head)


def load_trained(path_or_id: str | os.PathLike[str], **settings: Any) -> Model:
    """Load a checkpoint that is to answer, as `load_model` does.

    A language model predicts words. Raises `ValueError` also where weights would be initialised at random, as the head
    of an encoder: its answers would mean nothing.
    """
    with only_trained_weights():
        return load_model(path_or_id, language_models=True, **settings)


@contextmanager
def only_trained_weights() -> Iterator[None]:
    """Raise `ValueError` where a model that is to answer would be loaded with weights initialised at random."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomWeights)
        try:
            yield
        except RandomWeights as warning:
            raise ValueError(
                f"{warning.found}, so it has no trained head for the task; fine-tune it first, as `kdistill finetune` "
                "does, and give the model that comes of it, or embed texts with its encoder: --task feature-extraction "
                "where a command has it, in Python pipeline('feature-extraction', ...)"
            ) from None


def _found(
    path_or_id: str | os.PathLike[str],
    keywords: dict[str, Any],
    *needed: Sequence[str],
    optional: Sequence[str] = (),
) -> tuple[Path, dict[str, Any]]:
    """Return the directory of a model and its config.json, which must state a known `model_type`.

    Takes the keywords that `hub.resolve` has out of `keywords`.
    """
    directory = resolve(path_or_id, needed, optional, **take_location(keywords))
    content = read_json_object(directory / CONFIG_FILE)
    if content.get("model_type") is None:
        raise ValueError(
            f"{directory / CONFIG_FILE}: model_type is absent, so the class is unknown; open it with "
            'BertForSequenceClassification.from_pretrained, or add "model_type": "bert" if it is a BERT'
        )
    try:
        architecture_of(content["model_type"])
    except ValueError as error:
        raise ValueError(f"{directory / CONFIG_FILE}: {error}") from error
    return directory, content


class AutoConfig:
    """The configuration class by model type, such as `BertConfig`. An unknown `model_type` raises `ValueError`."""

    @staticmethod
    def from_pretrained(path_or_id: str | os.PathLike[str], **keywords: Any) -> Config:
        """Read the config.json of a model, which must state its `model_type`; see `Config.from_pretrained`."""
        directory, content = _found(path_or_id, keywords, (CONFIG_FILE,))
        return architecture_of(content["model_type"]).config.from_pretrained(directory, **keywords)

    @staticmethod
    def for_model(model_type: str, **values: Any) -> Config:
        """Return the configuration of a model type, such as "bert", with the arguments of its class."""
        return architecture_of(model_type).config(**values)


class _AutoModel(Generic[_Kind]):
    """The models with one kind of head, by model type."""

    head: ClassVar[str]

    @classmethod
    def from_pretrained(cls, path_or_id: str | os.PathLike[str], **keywords: Any) -> _Kind:
        """Load a checkpoint whose config.json states its `model_type`; see `Model.from_pretrained`.

        With a `config` there need be no config.json.
        """
        config = keywords.get("config")
        if config is None:
            optional = OPTIONAL_FILES if cls.head == ENCODER else ()
            path_or_id, content = _found(path_or_id, keywords, (CONFIG_FILE,), WEIGHTS_FILES, optional=optional)
            return cls._of(content["model_type"]).from_pretrained(path_or_id, **keywords)
        check_config("config", config)
        return cls._of(config.model_type).from_pretrained(path_or_id, **keywords)

    @classmethod
    def from_config(cls, config: Config, seed: int | None = None) -> _Kind:
        """Return a model of this shape with new weights, drawn from `seed`."""
        check_config("config", config)
        return cls._of(config.model_type)(config, seed=seed)

    @classmethod
    def _of(cls, model_type: str) -> type[_Kind]:
        return cast(type[_Kind], class_of(architecture_of(model_type), cls.head))


class AutoModelForSequenceClassification(_AutoModel[SequenceClassifier]):
    """The sequence classifier by model type, such as `BertForSequenceClassification`.

    A `model_type` that kdistill does not compute raises `ValueError`.
    """

    head = SEQUENCE


class AutoModelForTokenClassification(_AutoModel[TokenClassifier]):
    """The token classifier by model type, such as `BertForTokenClassification`, as for sequences."""

    head = TOKEN


class AutoModelForQuestionAnswering(_AutoModel[QuestionAnswerer]):
    """The model of question answering by model type, such as `BertForQuestionAnswering`, as for sequences."""

    head = SPAN


class AutoModelForMaskedLM(_AutoModel[MaskedLanguageModel]):
    """The model that predicts masked words by model type, such as `BertForMaskedLM`, as for sequences."""

    head = MASKED


class AutoModel(_AutoModel[Encoder]):
    """The encoder without a head for a task by model type, such as `BertModel`, as for sequences."""

    head = ENCODER
