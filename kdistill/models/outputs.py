"""Results of calls, with the names of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

PerToken = NDArray[np.float32] | list[NDArray[np.float32]]
"""Values of tokens: an array (B, S, ...) that is zero at padding, or for each row of a list an array (n, ...)."""


class ModelOutput(Mapping[str, Any]):
    """The result of a call: by attribute, by name or by place, as in transformers.

    `outputs.logits`, `outputs["logits"]` and, where no loss comes first, `outputs[0]` are the same. It iterates over
    the names of what is there; `to_tuple()` has the values.

    Where a call asks for them, every result also has `hidden_states`, the first layer's input and each layer's output,
    (B, S, hidden_size) or lists of (n, hidden_size), and `attentions`, each layer's probabilities, (B, heads, S, S) or
    lists of (heads, n, n).
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
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class TokenClassifierOutput(ModelOutput):
    """The result of a call: logits float32 (B, S, num_labels), or a list of (n, num_labels), and the mean loss."""

    loss: float | None
    logits: PerToken
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """The result of a call: logits float32 (B, S), or lists of (n,), of each token as the answer's first and last."""

    loss: float | None
    start_logits: PerToken
    end_logits: PerToken
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class MaskedLMOutput(ModelOutput):
    """The result of a call: logits float32 (B, S, vocab_size), or a list of (n, vocab_size); or the mean loss alone."""

    loss: float | None
    logits: PerToken | None
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class BaseModelOutput(ModelOutput):
    """The result of a call: the last layer's output, float32 (B, S, hidden_size) or a list of (n, hidden_size)."""

    last_hidden_state: PerToken
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class SentenceEmbeddingOutput(ModelOutput):
    """The result of a call: that of `BaseModelOutput`, and the embedding of each text, float32 (B, hidden_size)."""

    last_hidden_state: PerToken
    sentence_embedding: NDArray[np.float32]
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None


@dataclass(frozen=True, eq=False)
class BaseModelOutputWithPooling(ModelOutput):
    """The result of a call: that of `BaseModelOutput`, and the pooler's output, float32 (B, hidden_size)."""

    last_hidden_state: PerToken
    pooler_output: NDArray[np.float32]
    hidden_states: tuple[PerToken, ...] | None = None
    attentions: tuple[PerToken, ...] | None = None
