"""`pipeline("fill-mask", model)`: the words that a model expects under a mask, as in `transformers`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch, pack
from ..metrics.classification import softmax
from ..models.head_names import MASKED
from ..models.heads import MaskedLanguageModel, check_head
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from .counts import checked_count
from .inputs import CutTexts, refuse_unknown, texts_of_call, tokenizer_arguments

TOP_K = 5
BATCH_SIZE = 32


class FillMaskPipeline:
    """Fills the masks of texts.

    The settings may also be given in a call, for that call.

    Args:
        model: the language model.
        tokenizer: the model's, with a `mask_token`.
        top_k: how many words to return for a mask, the most probable first; None: all.
        targets: a word or several; only these are compared. One that is not in the vocabulary counts as its first
            token, with a warning.
        batch_size: texts computed together.
        tokenizer_kwargs: arguments of the tokenizer. Unless `truncation` or `max_length` is among them, texts are cut
            to what the model can read, and the first cut is reported as a warning; in transformers longer texts are
            an error.

    Raises:
        ValueError: the tokenizer has no mask token, or does not fit the model.
    """

    def __init__(
        self,
        model: MaskedLanguageModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        top_k: int | None = TOP_K,
        targets: str | Iterable[str] | None = None,
        batch_size: int = BATCH_SIZE,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown("fill-mask", unknown, type(self))
        check_tokenizer("tokenizer", tokenizer)
        check_head(model, MASKED)
        check_embeddings(tokenizer, model.config.vocab_size)
        if getattr(tokenizer, "mask_token_id", None) is None:
            raise ValueError("the tokenizer has no mask_token; expected that of a model which predicts masked words")
        self.model, self.tokenizer = model, tokenizer
        self.top_k, self.batch_size = top_k, checked_count("batch_size", batch_size)
        self.targets = targets
        self.tokenizer_kwargs = tokenizer_arguments("tokenizer_kwargs", tokenizer_kwargs)
        self._cut = CutTexts()

    def __call__(
        self,
        inputs: str | Iterable[str],
        *,
        top_k: int | None = None,
        targets: str | Iterable[str] | None = None,
        batch_size: int | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> list[Any]:
        """Fill the masks of one text or many.

        Args:
            inputs: a text, or any iterable of them; each has a mask, `tokenizer.mask_token`.
            top_k: as in the constructor, like the other settings.
            targets: likewise.
            batch_size: likewise.
            tokenizer_kwargs: likewise; they come after those of the constructor.

        Returns:
            For each text, or alone for one text or a list of one, the words `{"score": float, "token": int,
            "token_str": str, "sequence": str}`, the most probable first; for a text of several masks a list of these
            for each mask.

        Raises:
            TypeError: an input is no text.
            ValueError: a text without a mask, with its place.
        """
        refuse_unknown("fill-mask", unknown, self.__call__)
        texts = texts_of_call(inputs)
        settings = self.tokenizer_kwargs | tokenizer_arguments("tokenizer_kwargs", tokenizer_kwargs)
        wanted = self._target_ids(self.targets if targets is None else targets)
        most = self.top_k if top_k is None else top_k
        size = self.batch_size if batch_size is None else checked_count("batch_size", batch_size)
        if most is not None:
            checked_count("top_k", most)
        results: list[Any] = []
        for start in range(0, len(texts), size):
            batch = self._packed(texts[start : start + size], start, settings)
            rows = np.flatnonzero(batch.ids == self.tokenizer.mask_token_id)
            logits = self.model.forward(batch, rows=rows)
            for first, end in zip(batch.starts, batch.starts[1:], strict=False):
                own = (rows >= first) & (rows < end)
                results.append(self._filled(batch.ids[first:end], rows[own] - first, logits[own], most, wanted))
        return results[0] if len(texts) == 1 else results

    def _packed(self, texts: list[str], start: int, settings: Mapping[str, Any]) -> Batch:
        longest = min(self.model.config.max_tokens, self.tokenizer.model_max_length)
        encoded = self.tokenizer(texts, **{"truncation": True, "max_length": longest, **settings})
        batch = pack(encoded)
        masked = np.add.reduceat(batch.ids == self.tokenizer.mask_token_id, batch.starts[:-1])
        if not masked.all():
            index = int(np.flatnonzero(masked == 0)[0])
            raise ValueError(
                f"inputs[{start + index}] has no {self.tokenizer.mask_token} among its first "
                f"{settings.get('max_length', longest)} tokens; "
                "expected one where a word is to be filled in"
            )
        self._cut.warn(encoded.rows_cut, len(texts), longest, settings, stacklevel=4)
        return batch

    def _filled(
        self,
        ids: NDArray[np.int32],
        places: NDArray[np.int64],
        logits: NDArray[np.float32],
        top_k: int | None,
        wanted: NDArray[np.int64] | None,
    ) -> list[Any]:
        """Return the words of each mask of a text, or of its only one."""
        words = np.arange(logits.shape[1]) if wanted is None else wanted
        scores = softmax(logits)[:, words]
        results = []
        for place, row in zip(places, scores, strict=True):
            best = np.argsort(-row, kind="stable")[:top_k]
            results.append([self._word(ids, int(place), int(words[i]), float(row[i]), len(places) == 1) for i in best])
        return results[0] if len(places) == 1 else results

    def _word(self, ids: NDArray[np.int32], place: int, word: int, score: float, alone: bool) -> dict[str, Any]:
        filled = ids.copy()
        filled[place] = word
        sequence = self.tokenizer.decode(filled, skip_special_tokens=alone)  # other masks stay visible
        return {"score": score, "token": word, "token_str": self.tokenizer.decode([word]), "sequence": sequence}

    def _target_ids(self, targets: str | Iterable[str] | None) -> NDArray[np.int64] | None:
        if targets is None:
            return None
        vocabulary, ids = self.tokenizer.get_vocab(), []
        words = [targets] if isinstance(targets, str) or not isinstance(targets, Iterable) else [*targets]
        for target in words:
            if not isinstance(target, str):
                raise TypeError(f"targets has {target!r} of type {type(target).__name__}; expected words")
            known = vocabulary.get(target)
            if known is None:
                pieces = self.tokenizer(target, add_special_tokens=False)["input_ids"]
                if not pieces:
                    warnings.warn(f"targets has {target!r}, which has no token; it is left out", stacklevel=3)
                    continue
                known = pieces[0]
                instead = self.tokenizer.convert_ids_to_tokens(int(known))
                warnings.warn(f"targets has {target!r}, which is no word; {instead!r} takes its place", stacklevel=3)
            ids.append(int(known))
        if not ids:
            raise ValueError("targets has no word of the vocabulary; expected at least one")
        return np.array(sorted(set(ids)), np.int64)
