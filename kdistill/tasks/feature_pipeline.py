"""`pipeline("feature-extraction", model)`: the vectors of tokens as in `transformers`, or the embeddings of texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..data.batch import pack
from ..models.head_names import ENCODER
from ..models.heads import Encoder, check_head
from ..models.pooling import PICKS
from ..system.names import did_you_mean
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from .counts import checked_count
from .inputs import CutTexts, refuse_unknown, texts_of_call, tokenizer_arguments

BATCH_SIZE = 32
OWN = "model"
"""The pooling that the files of the model state."""
_POOLINGS = (OWN, *PICKS)


class FeatureExtractionPipeline:
    """Returns what an encoder makes of texts.

    Args:
        model: the encoder.
        tokenizer: the model's.
        pooling: None: the vectors of all tokens, as in transformers. "model": the embedding of each text by the model's
            own pooling, as the files of sentence-transformers state it. "mean" or "cls": that by the mean of the
            tokens, or by the first one.
        normalize: divide embeddings by their length (default: as the model's own pooling does, else not).
        return_tensors: return arrays float32 instead of nested lists; embeddings are always arrays.
        batch_size: texts computed together.
        truncation: cut texts to `tokenize_kwargs["max_length"]`; default: to the tokens that the model was trained
            with, or can read, with a warning about the first cut. False: a longer text is an error, as in transformers.
        tokenize_kwargs: arguments of the tokenizer.

    Raises:
        ValueError: the tokenizer does not fit the model, or a model without a pooling is to use its own.
    """

    def __init__(
        self,
        model: Encoder,
        tokenizer: PreTrainedTokenizerFast,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        return_tensors: bool = False,
        batch_size: int = BATCH_SIZE,
        truncation: bool | None = None,
        tokenize_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(ENCODER, unknown, type(self))
        check_tokenizer("tokenizer", tokenizer)
        check_head(model, ENCODER)
        check_embeddings(tokenizer, model.config.vocab_size)
        self.model, self.tokenizer = _pooled(model, pooling, normalize), tokenizer
        self.pooling = pooling
        self.return_tensors = bool(return_tensors)
        self.batch_size = checked_count("batch_size", batch_size)
        self._settings = _settings_of(truncation, tokenize_kwargs)
        self._cut = CutTexts()

    def __call__(
        self,
        inputs: str | Iterable[str],
        *,
        return_tensors: bool | None = None,
        batch_size: int | None = None,
        truncation: bool | None = None,
        tokenize_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> Any:
        """Return the vectors of one text or many.

        Args:
            inputs: a text, or any iterable of them.
            return_tensors: as in the constructor, like the others.
            batch_size: likewise.
            truncation: likewise.
            tokenize_kwargs: likewise.

        Returns:
            Without a pooling, for each text its (1, n, hidden_size) numbers of n tokens, as nested lists or an array;
            for a single text not in a list. With a pooling the embeddings, float32 (texts, hidden_size), or
            (hidden_size,) of a single text.

        Raises:
            TypeError: an input is no text.
            ValueError: a text is longer than the model can read.
        """
        refuse_unknown(ENCODER, unknown, self.__call__)
        single, texts = isinstance(inputs, str), texts_of_call(inputs)
        size = self.batch_size if batch_size is None else checked_count("batch_size", batch_size)
        settings = self._settings | _settings_of(truncation, tokenize_kwargs)
        longest = [self.model.config.max_tokens, self.tokenizer.model_max_length]
        longest += [length for length in [self.model.config.trained_with.max_length] if length is not None]
        found: list[Any] = []
        cut = 0
        for start in range(0, len(texts), size):
            encoded = self.tokenizer(
                texts[start : start + size], **{"truncation": True, "max_length": min(longest), **settings}
            )
            packed, cut = pack(encoded), cut + encoded.rows_cut
            if self.pooling is not None:
                found.append(self.model.forward(packed))
            else:
                found += self.model(packed).last_hidden_state
        self._cut.warn(cut, len(texts), min(longest), settings)
        if self.pooling is not None:
            embeddings = np.concatenate(found) if found else np.zeros((0, self.model.config.hidden_size), np.float32)
            return embeddings[0] if single else embeddings
        arrays = self.return_tensors if return_tensors is None else return_tensors
        features = [row[None] if arrays else row[None].tolist() for row in found]
        return features[0] if single else features


def _settings_of(truncation: bool | None, tokenize_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    given = tokenizer_arguments("tokenize_kwargs", tokenize_kwargs)
    if truncation is not None and "truncation" in given:
        raise ValueError("truncation is given, and in tokenize_kwargs too; expected one of them")
    return given if truncation is None else given | {"truncation": truncation}


def _pooled(model: Encoder, pooling: str | None, normalize: bool | None) -> Encoder:
    """Return the model with this pooling, a copy where it has another."""
    if pooling is None:
        if normalize is not None:
            raise ValueError(f"normalize is {normalize} without a pooling; expected pooling={OWN!r}, 'mean' or 'cls'")
        return model
    if pooling not in _POOLINGS:
        known = ", ".join(map(repr, _POOLINGS))
        raise ValueError(f"pooling is {pooling!r}; expected None or one of {known}{did_you_mean(pooling, _POOLINGS)}")
    own = model.config.pooling
    if pooling == OWN and own is None:
        raise ValueError(
            f"pooling is {OWN!r}, and the model states none: its directory has no files of sentence-transformers; "
            "expected 'mean' or 'cls'"
        )
    mode = own.mode if pooling == OWN and own is not None else pooling
    unit = (own is not None and own.normalize) if normalize is None else normalize
    same = own is not None and (own.mode, own.normalize) == (mode, unit)
    return model if same else model.with_pooling(mode, unit)
