"""`pipeline("question-answering", model)`: from questions and contexts to answers, as in `transformers` 4.

transformers 5 has no such pipeline. The search here is that of version 4.57: another one than in `answer_spans`, which
evaluations use, so the two may give other answers where a model is not sure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.batch import pack
from ..models.head_names import SPAN
from ..models.heads import QuestionAnswerer, check_head
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from ..text.windows import DOC_STRIDE, MAX_LENGTH, UnfitError, Window, windows_of
from .counts import checked_count
from .inputs import refuse_unknown

_WITHOUT_EFFECT = ("max_question_len", "padding")  # in transformers with fast tokenizers, and without padding here
_MASKED = -10000.0  # the logit of what cannot be an answer


@dataclass(frozen=True)
class AnswerSettings:
    """How questions are answered, with the names of transformers.

    Attributes:
        top_k: how many answers to return; with 1, the answer without a list around it.
        doc_stride: tokens of the context that two windows have in common (default: 128, at most half a window).
        max_answer_len: tokens of the longest answer.
        max_seq_len: tokens of a window (default: as the model was trained, else 384, at most what it can read).
        handle_impossible_answer: whether no answer may be one.
        align_to_words: whether answers are whole words.
        batch_size: windows computed together.
    """

    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("top_k", "max_answer_len", "batch_size"):
            checked_count(name, getattr(self, name))
        if self.max_seq_len is not None:
            checked_count("max_seq_len", self.max_seq_len)
        if self.doc_stride is not None:
            checked_count("doc_stride", self.doc_stride, least=0)
        for name in ("handle_impossible_answer", "align_to_words"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected True or False")

    def changed(self, changes: Mapping[str, Any]) -> AnswerSettings:
        """Return the settings with those that are given and not None. Raises TypeError for an unknown name."""
        known = [field.name for field in fields(self)]
        refuse_unknown(SPAN, {name: changes[name] for name in changes if name not in (*known, *_WITHOUT_EFFECT)}, known)
        return replace(self, **{name: value for name, value in changes.items() if name in known and value is not None})


class _Span(NamedTuple):
    """Tokens of a window, the first and the last, and how probable they are."""

    start: int
    end: int
    score: float


class QuestionAnsweringPipeline:
    """Answers questions with parts of their contexts.

    The settings may also be given in a call, for that call.

    Args:
        model: the model, which gives each token a start and an end logit.
        tokenizer: the model's.
        settings: see `AnswerSettings`.
    """

    def __init__(self, model: QuestionAnswerer, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> None:
        check_tokenizer("tokenizer", tokenizer)
        check_head(model, SPAN)
        check_embeddings(tokenizer, model.config.vocab_size)
        self.model, self.tokenizer = model, tokenizer
        self.settings = AnswerSettings().changed(settings)

    def __call__(self, *inputs: Any, question: Any = None, context: Any = None, **settings: Any) -> Any:
        """Answer one question or many.

        Args:
            inputs: `{"question": ..., "context": ...}`, an iterable of them, or a question and a context.
            question: a question, or a list of them.
            context: its context; one for all questions, or a list with one for each.
            settings: see `AnswerSettings`.

        Returns:
            `{"score": float, "start": int, "end": int, "answer": str}` for one question, characters start:end of the
            context; a list of these, the best first, where `top_k` asks for several and there are several; for several
            questions a list with the result of each.

        Raises:
            ValueError: a question or context is missing or empty, or a question leaves no room for its context.
            TypeError: an unknown setting, or something else than texts.
        """
        chosen = self.settings.changed(settings)
        pairs = _pairs(inputs, question, context)
        windows = self._windows(pairs, chosen)
        logits = iter(self._logits(list(chain.from_iterable(windows)), chosen.batch_size))
        results = [self._result(pair[1], parts, logits, chosen) for pair, parts in zip(pairs, windows, strict=True)]
        return results[0] if len(results) == 1 else results

    def _windows(self, pairs: Sequence[tuple[str, str]], settings: AnswerSettings) -> list[list[Window]]:
        config = self.model.config
        asked = settings.max_seq_len or config.trained_with.max_length or MAX_LENGTH
        length = min(asked, config.max_tokens, self.tokenizer.model_max_length)
        stride = min(length // 2, DOC_STRIDE) if settings.doc_stride is None else settings.doc_stride
        try:
            return list(windows_of(self.tokenizer, pairs, length, stride))
        except UnfitError as error:
            raise ValueError(f"question {error.row}: {error}") from None

    def _result(
        self, context: str, windows: Sequence[Window], logits: Iterator[NDArray[np.float32]], settings: AnswerSettings
    ) -> Any:
        """Return the answer to one question, or the list of them; takes the logits of its windows."""
        answers: list[dict[str, Any]] = []
        none = 1.0
        for window in windows:
            spans, of_none = _spans(window, next(logits), self.tokenizer.cls_token_id, settings)
            none = min(none, of_none)
            for span in spans:
                start, end = _characters(window, span, settings.align_to_words)
                text = context[start:end]
                same = next((each for each in answers if each["answer"].lower() == text.lower()), None)
                if same is None:
                    answers.append({"score": span.score, "start": start, "end": end, "answer": text})
                else:
                    same["score"] += span.score
        if settings.handle_impossible_answer:
            answers.append({"score": none, "start": 0, "end": 0, "answer": ""})
        best = sorted(answers, key=lambda answer: -answer["score"])[: settings.top_k]
        return best[0] if len(best) == 1 else best

    def _logits(self, windows: Sequence[Window], batch_size: int) -> list[NDArray[np.float32]]:
        """Return the logits of each window, float32 (tokens, 2)."""
        logits: list[NDArray[np.float32]] = []
        for first in range(0, len(windows), batch_size):
            rows = windows[first : first + batch_size]
            types = {"token_type_ids": [row.type_ids for row in rows]} if self.tokenizer.has_token_types else {}
            batch = pack({"input_ids": [row.ids for row in rows], **types})
            logits += np.split(self.model.forward(batch), batch.starts[1:-1])
        return logits


def _pairs(inputs: Sequence[Any], question: Any, context: Any) -> list[tuple[str, str]]:
    """Return the questions and contexts of a call."""
    if inputs and (question is not None or context is not None):
        raise TypeError("questions are given by place and by name; expected one of the two")
    if len(inputs) == 2 and all(isinstance(each, str) for each in inputs):
        question, context = inputs
    elif len(inputs) == 1 and not isinstance(inputs[0], str) and isinstance(inputs[0], Iterable):
        rows = [inputs[0]] if isinstance(inputs[0], Mapping) else list(inputs[0])
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping) or row.keys() != {"question", "context"}:
                raise ValueError(f'inputs[{index}] is {row!r}; expected {{"question": ..., "context": ...}}')
        question, context = [row["question"] for row in rows], [row["context"] for row in rows]
    elif inputs:
        raise TypeError('expected question=..., context=..., or {"question": ..., "context": ...}, or a list of these')
    if question is None or context is None:
        raise ValueError(f"{'question' if question is None else 'context'} is None; expected texts for both")
    questions = [question] if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    if len(questions) != len(contexts):
        raise ValueError(f"there are {len(questions)} questions and {len(contexts)} contexts; expected as many, or one")
    for name, texts in (("question", questions), ("context", contexts)):
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{name} {index} is {text!r} of type {type(text).__name__}; expected text")
            if not text:
                raise ValueError(f"{name} {index} is empty; expected text")
    return list(zip(questions, contexts, strict=True))


def _spans(
    window: Window, logits: NDArray[np.float32], cls_token_id: int, settings: AnswerSettings
) -> tuple[list[_Span], float]:
    """Return the most probable spans of a window, the best first, and how probable it is that it has no answer.

    The probability of a span is that of its first token times that of its last, each from a softmax over the tokens of
    the context and [CLS], which stands for no answer.
    """
    allowed = np.zeros(len(window.ids), dtype=bool)
    allowed[window.begin : window.end] = True
    allowed |= np.array(window.ids) == cls_token_id
    values = np.where(allowed[:, None], logits, np.float32(_MASKED))
    shares = np.exp(values - values.max(axis=0))
    shares /= shares.sum(axis=0)
    none = float(shares[0].prod())
    shares[0] = 0
    candidates = np.tril(np.triu(np.outer(shares[:, 0], shares[:, 1])), settings.max_answer_len - 1)
    # Some are joined when they are made whole words, so more than top_k are looked at.
    order = _largest(candidates.ravel(), settings.top_k * 2 + 10 if settings.align_to_words else settings.top_k)
    places = zip(*np.unravel_index(order, candidates.shape), strict=True)
    return [_Span(int(a), int(b), float(candidates[a, b])) for a, b in places if allowed[a] and allowed[b]], none


def _largest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the `count` largest scores, in their order; of equal ones those that transformers takes."""
    if count == 1:
        return np.array([scores.argmax()])
    if len(scores) < count:
        return np.argsort(-scores)
    some = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    return np.asarray(some[np.argsort(-scores[some])])


def _characters(window: Window, span: _Span, whole_words: bool) -> tuple[int, int]:
    """Return the characters of a span: of the tokens, or of all of the words that they are parts of."""
    begin, end = window.offsets[span.start][0], window.offsets[span.end][1]
    words = window.words[span.start], window.words[span.end]
    if not whole_words or None in words:
        return begin, end
    context = range(window.begin, window.end)
    first = next(token for token in context if window.words[token] == words[0])
    last = next(token for token in reversed(context) if window.words[token] == words[1])
    return window.offsets[first][0], window.offsets[last][1]
