"""Leave out the word pieces that texts do not have: rows of the word table, and entries of the tokenizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset
from ..models.configuration import Config
from ..models.head_names import MASKED
from ..models.initialization import BY_WORD, WORD_EMBEDDINGS
from ..models.model import Model
from ..text.tokenizer import PreTrainedTokenizerFast

_TOKEN_ID = "_token_id"


class Vocabulary(NamedTuple):
    """A tokenizer that is left with a part of its vocabulary, and the ids, int64, that its tokens had before."""

    tokenizer: PreTrainedTokenizerFast
    ids: NDArray[np.int64]


def kept_vocabulary(
    rows: Dataset, tokenizer: PreTrainedTokenizerFast, config: Config, keep: int | None = None
) -> Vocabulary:
    """Return the vocabulary that is left with the tokens that rows have, and those that spell any other text.

    Also what no model does without stays: the tokens that the configuration names, and for positions that are counted
    from the padding token's id (RoBERTa) those before it.

    Args:
        rows: as the tokenizer reads them.
        tokenizer: the model's.
        config: the model's.
        keep: the most frequent tokens of the rows, of equally frequent ones those with the lower ids; None: all of
            them.

    Raises:
        ValueError: `keep` is not positive, or the tokenizer's kind of vocabulary cannot be pruned.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep is {keep}; expected a number of tokens of at least 1")
    counts = np.bincount(rows.ids, minlength=config.vocab_size)
    order = np.argsort(-counts, kind="stable")
    wanted = {*order[: np.count_nonzero(counts) if keep is None else min(keep, np.count_nonzero(counts))].tolist()}
    known = {*tokenizer.vocab.values()}
    wanted |= {index for index in _ids_in(config).values() if index in known}
    if config.after_padding and config.pad_token_id is not None:
        wanted |= known & {*range(config.pad_token_id)}
    if rows.texts is not None and keep is None and tokenizer.unk_token_id in wanted:
        unknown = np.flatnonzero(np.add.reduceat(rows.ids == tokenizer.unk_token_id, rows.starts[:-1]))
        of_rows = rows.texts.take(unknown)
        wanted |= tokenizer.ids_of_unknown_words([*of_rows.first, *(of_rows.second or ())])
    pruned, ids = tokenizer.with_vocabulary(wanted)
    if ids[-1] >= config.vocab_size:
        raise ValueError(
            f"the tokenizer needs the token {tokenizer.convert_ids_to_tokens(int(ids[-1]))!r} with the id {ids[-1]}, "
            f"and the model has {config.vocab_size} word embeddings; expected the tokenizer of the model"
        )
    return Vocabulary(pruned, ids)


def with_vocabulary(model: Model, ids: NDArray[np.int64]) -> Model:
    """Return a model with the words of these ids alone, numbered anew in their order.

    For tokens that stay, it computes what `model` does, bit for bit.

    Args:
        model: a model in float32.
        ids: int64, ascending.

    Raises:
        ValueError: positions are counted from the padding token's id, which would change.
    """
    places = {old: new for new, old in enumerate(ids.tolist())}
    named = {name: places.get(index) for name, index in _ids_in(model.config).items()}
    fields = {entry.name for entry in model.config.entries()}
    extra = {**model.config.extra, **{name: index for name, index in named.items() if name not in fields}}
    of_fields: dict[str, Any] = {name: index for name, index in named.items() if name in fields}
    config = model.config.replace(vocab_size=len(ids), extra=extra, **of_fields)
    if config.first_position != model.config.first_position:
        raise ValueError(
            f"the padding token has the id {model.config.pad_token_id}, from which positions are counted, and its new "
            f"one is {config.pad_token_id}, as ids before it have no token; expected a vocabulary without such gaps"
        )
    by_word = BY_WORD if model.head == MASKED else (WORD_EMBEDDINGS,)
    tensors = {name: values[ids] if name in by_word else values for name, values in model.tensors.items()}
    return type(model).from_tensors(config, tensors)


def _ids_in(config: Config) -> dict[str, int]:
    """Return the ids of tokens that a configuration names, by the name of the field."""
    fields = {entry.name: getattr(config, entry.name) for entry in config.entries()}
    return {
        name: value
        for name, value in {**config.extra, **fields}.items()
        if name.endswith(_TOKEN_ID) and isinstance(value, int)
    }


def rows_of(rows: Dataset, ids: NDArray[np.int64]) -> int:
    """Return how many rows have no other tokens than those of these ids."""
    return int(np.minimum.reduceat(np.isin(rows.ids, ids), rows.starts[:-1]).sum())


def same_rows(before: Dataset, after: Dataset, ids: NDArray[np.int64]) -> int:
    """Return how many rows are cut into the same tokens by a tokenizer with these ids of the former one's."""
    if len(before) != len(after):
        return 0
    same = np.flatnonzero(before.lengths == after.lengths)
    if len(same) == len(before):
        equal = np.minimum.reduceat(before.ids == ids[after.ids], before.starts[:-1])
        return int(equal.sum())
    rows = ((before.batch([row])[0].ids, after.batch([row])[0].ids) for row in same.tolist())
    return sum(bool((ours == ids[theirs]).all()) for ours, theirs in rows)
