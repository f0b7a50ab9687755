"""`pipeline(task, model)`, and the one that sorts texts: from texts to labels with scores, as in `transformers`."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..keywords import OF_PIPELINE, location, take_dtype, take_location
from ..metrics.classification import softmax
from ..metrics.prediction import Logits
from ..models.auto import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    head_of,
    only_trained_weights,
)
from ..models.config import check_config
from ..models.configuration import Config
from ..models.head_names import ENCODER, MASKED, SEQUENCE, SPAN, TOKEN
from ..models.heads import SequenceClassifier, check_head
from ..models.model import Model, check_model
from ..system.names import did_you_mean
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from . import single_label
from .counts import checked_count
from .feature_pipeline import FeatureExtractionPipeline
from .fill_mask_pipeline import FillMaskPipeline
from .inputs import CutTexts
from .question_pipeline import AnswerSettings, QuestionAnsweringPipeline
from .registry import task_for
from .token_pipeline import TokenClassificationPipeline

FUNCTIONS = ("sigmoid", "softmax", "none")
BATCH_SIZE = 32
_NOT_GIVEN: Any = ...  # one object, which pickle keeps
_TOKENIZER_SETTINGS = tuple(inspect.signature(PreTrainedTokenizerFast.__call__).parameters)[3:]


def pipeline(
    task: str | None = None,
    model: Model | str | os.PathLike[str] | None = None,
    tokenizer: PreTrainedTokenizerFast | str | os.PathLike[str] | None = None,
    *,
    device: Any = None,
    config: Config | None = None,
    dtype: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Return a function of texts.

    Args:
        task: "text-classification" or its other name "sentiment-analysis"; "token-classification" or "ner";
            "question-answering"; "fill-mask"; "feature-extraction". Default: that of the model.
        model: a model, or the directory or hub id of one.
        tokenizer: the same for the tokenizer; default: the one of `model`, when that is a directory or hub id.
        device: "cpu", -1 or None; there is no other here.
        config: as in `AutoModelForSequenceClassification.from_pretrained`.
        dtype: the compute type, as there; of a model that is loaded already, its own.
        model_kwargs: other arguments of `AutoModelForSequenceClassification.from_pretrained`.
        settings: `top_k`, `function_to_apply`, `batch_size`, and arguments of the tokenizer such as `max_length`, see
            `TextClassificationPipeline`; `aggregation_strategy`, `ignore_labels`, `stride` and others, see
            `TokenClassificationPipeline`; `top_k`, `doc_stride`, `max_seq_len`, `max_answer_len` and others, see
            `question_pipeline.AnswerSettings`; `top_k`, `targets` and others, see `FillMaskPipeline`; `pooling`,
            `normalize`, `return_tensors` and others, see `FeatureExtractionPipeline`; where the files are (`token`,
            `revision`, `cache_dir`, ...), see `hub.resolve`; those of transformers that are of no use here, see
            `kdistill.keywords`.

    Raises:
        ValueError: another task or device, a model without its tokenizer or without a trained head for the task, or
            what kdistill cannot do.
        TypeError: an unknown argument, or a model that is not one of kdistill.
    """
    if task not in (None, *_KINDS):
        known = ", ".join(map(repr, _KINDS))
        raise ValueError(f"task is {task!r}; expected one of {known}{did_you_mean(str(task), _KINDS)}")
    if str(device) not in ("cpu", "-1", "None"):
        raise ValueError(f"device is {device!r}; expected 'cpu', the only one kdistill computes on")
    if model is None:
        raise ValueError("model is None; expected a model, or the directory or hub id of one")
    kind = _kind_for(task, model, config, settings)
    own = [*inspect.signature(kind.pipeline).parameters, *kind.more_settings]
    chosen = {name: settings.pop(name) for name in [*settings] if name in own}
    if "top_k" in own and settings.pop("return_all_scores", None):  # an older name of top_k=None
        chosen.setdefault("top_k", None)
    compute = take_dtype(settings | {"dtype": dtype})
    where = location(settings, "pipeline", own, OF_PIPELINE)
    if tokenizer is None:
        if not isinstance(model, str | os.PathLike):
            check_model("model", model)
            raise ValueError("tokenizer is None; expected that of the model, as the model itself does not know it")
        tokenizer = model
    if isinstance(model, str | os.PathLike):
        keywords = {"config": config, "dtype": compute, **where, **(model_kwargs or {})}
        with nullcontext() if kind is _VECTORS else only_trained_weights():
            model = kind.load(model, **keywords).freeze()
        compute = None  # a model in int8 that fails its check is in float32, with a warning
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **where)
    check_model("model", model)
    if compute is not None and str(model.dtype) != compute:
        raise ValueError(f"dtype is {compute}, and the model computes in {model.dtype}; call its freeze({compute!r})")
    return kind.pipeline(model=model, tokenizer=tokenizer, **chosen)


class TextClassificationPipeline:
    """Classifies texts.

    The settings may also be given in a call, for that call.

    Args:
        model: the classifier.
        tokenizer: the model's.
        top_k: how many labels to return for each text, the best first; None: all. When it is not given, the best label
            alone, without a list around it.
        function_to_apply: "softmax", "sigmoid" or "none" makes scores of the logits; default: none for regression,
            sigmoid for one label or for several that exclude nothing (multi-label), else softmax.
        batch_size: rows computed together.
        tokenizer_settings: arguments of the tokenizer. Unless `truncation` or `max_length` is among them, texts are cut
            to the length that the model was trained with, or can read, and the first cut is reported as a warning; in
            transformers longer texts than the model can read are an error.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        tokenizer: PreTrainedTokenizerFast,
        *,
        top_k: int | None = _NOT_GIVEN,
        function_to_apply: str | None = None,
        batch_size: int = BATCH_SIZE,
        **tokenizer_settings: Any,
    ) -> None:
        check_tokenizer("tokenizer", tokenizer)
        check_head(model, SEQUENCE)
        check_embeddings(tokenizer, model.config.vocab_size)
        self.model, self.tokenizer = model, tokenizer
        self.top_k = top_k
        self.function_to_apply = function_to_apply
        self.batch_size = checked_count("batch_size", batch_size)
        self.tokenizer_settings = tokenizer_settings
        self._cut = CutTexts()

    def __call__(
        self,
        inputs: Any,
        *,
        top_k: int | None = _NOT_GIVEN,
        function_to_apply: str | None = None,
        batch_size: int | None = None,
        **tokenizer_settings: Any,
    ) -> list[Any]:
        """Classify one text or many.

        Args:
            inputs: a text, a pair `{"text": ..., "text_pair": ...}`, or any iterable of one kind of them.
            top_k: as in the constructor, like the other settings.
            function_to_apply: likewise.
            batch_size: likewise.
            tokenizer_settings: likewise.

        Returns:
            For each text `{"label": str, "score": float}`; with `top_k` a list of these, the best first. For a single
            text there is a list around it, unless `top_k` is given in this call; for a single pair there is none.
        """
        called_with_top_k = top_k is not _NOT_GIVEN
        chosen = top_k if called_with_top_k else self.top_k
        if not isinstance(inputs, Iterable):
            raise TypeError(f"inputs is {inputs!r} of type {type(inputs).__name__}; expected a text or several")
        single = isinstance(inputs, (str, Mapping))
        rows = [inputs] if single else list(inputs)
        size = self.batch_size if batch_size is None else checked_count("batch_size", batch_size)
        logits = self._logits(rows, size, self.tokenizer_settings | tokenizer_settings)
        scores = apply_function(logits, function_to_apply or self.function_to_apply or self._default_function())
        results = [self._result(row, chosen) for row in scores]
        if not single:
            return results
        return results if isinstance(inputs, str) and not called_with_top_k else results[0]

    def _logits(self, rows: list[Any], batch_size: int, settings: dict[str, Any]) -> Logits:
        logits = np.empty((len(rows), self.model.config.num_labels), dtype=np.float32)
        longest, cut = self._longest(settings.get("max_length")), 0
        defaults = {"truncation": True, "max_length": longest}
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            encoded = self.tokenizer(*_texts(batch, start), **defaults | settings)
            cut += encoded.rows_cut
            logits[start : start + len(batch)] = self.model(**encoded).logits
        self._cut.warn(cut, len(rows), longest, settings, stacklevel=4)
        return logits

    def _longest(self, given: int | None) -> int:
        """Return the tokens that texts are cut to where nothing else is asked for: as in the training, if they fit."""
        config, trained = self.model.config, self.model.config.trained_with.max_length
        if given is not None and trained not in (None, given):
            warnings.warn(f"max_length is {given}; the model was trained with {trained}", stacklevel=5)
        limits = [config.max_tokens, self.tokenizer.model_max_length, trained]
        return min(limit for limit in limits if limit is not None)

    def _default_function(self) -> str:
        config = self.model.config
        # As in transformers, a regression is one only where the config states it: one output has a sigmoid.
        task = single_label.TASK if config.problem_type is None else task_for(config)
        one_of_one = task.one_label and config.num_labels == 1
        return "sigmoid" if one_of_one else task.score_function

    def _result(self, scores: NDArray[np.float64], top_k: int | None) -> Any:
        order = np.argsort(-scores, kind="stable")
        names = self.model.config.id2label
        kept = order[: 1 if top_k is _NOT_GIVEN else top_k]
        labels = [{"label": names[int(index)], "score": float(scores[index])} for index in kept]
        return labels[0] if top_k is _NOT_GIVEN else labels


class _Kind(NamedTuple):
    """A kind of pipeline: its class, the head of its models, what loads them, and settings not in its signature."""

    pipeline: Callable[..., Any]
    head: str
    load: Callable[..., Model]
    more_settings: tuple[str, ...] = ()


_TEXTS = _Kind(
    TextClassificationPipeline, SEQUENCE, AutoModelForSequenceClassification.from_pretrained, _TOKENIZER_SETTINGS
)
_TOKENS = _Kind(TokenClassificationPipeline, TOKEN, AutoModelForTokenClassification.from_pretrained)
_QUESTIONS = _Kind(
    QuestionAnsweringPipeline,
    SPAN,
    AutoModelForQuestionAnswering.from_pretrained,
    (*(field.name for field in fields(AnswerSettings)), "max_question_len"),
)
_VECTORS = _Kind(FeatureExtractionPipeline, ENCODER, AutoModel.from_pretrained)
_KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("text-classification", "sentiment-analysis"), _TEXTS),
    **dict.fromkeys(("token-classification", "ner"), _TOKENS),
    "question-answering": _QUESTIONS,
    "fill-mask": _Kind(FillMaskPipeline, MASKED, AutoModelForMaskedLM.from_pretrained),
    "feature-extraction": _VECTORS,
}


def _kind_for(
    task: str | None, model: Model | str | os.PathLike[str], config: Config | None, settings: Mapping[str, Any]
) -> _Kind:
    """Return the kind of pipeline of a task, or without one that of the model.

    Any model has vectors of tokens. Raises `ValueError` for the files of a model that answers for another task; one
    that is loaded already is for the pipeline to refuse.
    """
    own = None
    if not isinstance(model, str | os.PathLike):
        check_model("model", model)
        own = model.head
    elif config is not None:
        check_config("config", config)
    else:
        own = head_of(model, language_models=True, **take_location({**settings}))
    if task is None:
        head = own or (SEQUENCE if config is None else config.head)
        return next(kind for kind in _KINDS.values() if kind.head == head)
    kind = _KINDS[task]
    if isinstance(model, str | os.PathLike) and kind is not _VECTORS and own not in (None, kind.head):
        theirs = next(name for name, of in _KINDS.items() if of.head == own)
        raise ValueError(
            f"task is {task!r}, and {os.fspath(model)} is a model for {theirs!r}; leave task out, or give a model that "
            f"was fine-tuned for {task!r}"
        )
    return kind


def apply_function(logits: Logits, function: str) -> NDArray[np.float64]:
    """Return scores float64 (n, num_labels) of logits: "softmax" over the labels, "sigmoid" of each, or "none"."""
    if function == "softmax":
        return softmax(logits)
    if function == "none":
        return logits.astype(np.float64)
    if function == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64))))  # cannot overflow
    raise ValueError(f"function_to_apply is {function!r}; expected one of {', '.join(map(repr, FUNCTIONS))}")


def _texts(batch: list[Any], first: int) -> tuple[list[str], list[str] | None]:
    """Return the texts of a batch, whose first row is input `first`, and the second texts if it has pairs."""
    for index, row in enumerate(batch, first):
        if not isinstance(row, str) and not (isinstance(row, Mapping) and row.keys() <= {"text", "text_pair"}):
            raise ValueError(f'inputs[{index}] is {row!r}; expected a text or {{"text": ..., "text_pair": ...}}')
    texts = [row if isinstance(row, str) else row["text"] for row in batch]
    pairs = [row["text_pair"] for row in batch if isinstance(row, Mapping) and row.get("text_pair") is not None]
    if pairs and len(pairs) < len(batch):
        raise ValueError(f"inputs from {first} on are single texts and pairs; expected one kind of them")
    return texts, pairs or None
