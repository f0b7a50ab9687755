"""Make augmented copies of rows for a teacher to label: words replaced by neighbours, and spans of the sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..text.tokenizer import PreTrainedTokenizerFast
from .dataset import Dataset
from .labels import NO_LABEL, UNTAGGED, missing_like

# A word is replaced by one of so many nearest ones,
NEIGHBOURS = 12
# with a probability that is drawn anew for each copy of a row, uniformly between these two.
REPLACED = (0.15, 0.5)
# Share of copies that are cut to a random span of their words.
SPANS = 0.25
_BLOCK_WORDS = 256


@dataclass(frozen=True)
class TokenKinds:
    """The kind of each token of a vocabulary, bool (vocab_size,) each.

    Attributes:
        words: whole words of letters: those that are replaced, and those that replace them. Where words begin with a
            mark of the space before them (BPE of bytes, Unigram), one without it, as the first of a text may be, is
            none of them.
        pieces: tokens such as `##ing`, which continue the word before them.
        borders: [CLS], [SEP] and [PAD], which stand around texts.
    """

    words: NDArray[np.bool_]
    pieces: NDArray[np.bool_]
    borders: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> TokenKinds:
        """Sort the first `vocab_size` tokens of a tokenizer. Raises ValueError where these do not show words."""
        words, pieces, borders = np.zeros((3, vocab_size), dtype=np.bool_)
        for index, piece in tokenizer.pieces().items():
            if index < vocab_size:
                words[index], pieces[index] = piece.begins and piece.text.isalpha(), piece.goes_on
        names = (tokenizer.special_tokens_map.get(f"{kind}_token") for kind in ("cls", "sep", "pad"))
        borders[[index for name in names if name and (index := tokenizer.vocab[name]) < vocab_size]] = True
        return cls(words, pieces & ~borders, borders)


def augmented(
    dataset: Dataset, views: int, *, kinds: TokenKinds, embeddings: NDArray[np.float32], seed: int
) -> Dataset:
    """Return the rows, and behind them `views` copies of each without a label and without logits that came with them.

    In a copy each word is replaced, with a probability drawn for that copy, by one of the `NEIGHBOURS` nearest words
    (as in TinyBERT, Jiao et al., arXiv:1909.10351, algorithm 1, but by the teacher's embeddings). Some of the copies
    are then cut to a random span of words (n-gram sampling: Tang et al., arXiv:1903.12136, section 3.3). Copies follow
    from rows, embeddings and `seed`; a larger number of `views` begins with those of a smaller one.

    Args:
        dataset: the rows.
        views: copies of each row.
        kinds: the tokens' kinds.
        embeddings: float32 (vocab_size, hidden), of the model that labels the copies.
        seed: of the draws.
    """
    text = _Text.of(dataset, kinds)
    vocabulary = np.unique(dataset.ids[text.replaceable])
    neighbours = nearest_words(embeddings, vocabulary, np.flatnonzero(kinds.words), NEIGHBOURS)
    parts, labels = [(dataset.ids, dataset.types, dataset.lengths)], [dataset.labels]
    unknown = missing_like(dataset.labels)
    if dataset.per_token:
        unknown[dataset.labels != NO_LABEL] = UNTAGGED
    for view in range(views):
        draws = _Draws(seed, view)
        ids = _with_words_replaced(dataset, text, vocabulary, neighbours, draws)
        keep = _kept_in_spans(len(dataset), text, draws)
        parts.append((ids[keep], dataset.types[keep], np.bincount(text.rows[keep], minlength=len(dataset))))
        labels.append(unknown[keep] if dataset.per_token else unknown)
    ids, types, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    starts, every = np.concatenate(([0], np.cumsum(lengths))), np.concatenate(labels)
    logits = dataset.teacher_logits
    if logits is not None:  # those of the rows are not those of other words
        logits = np.concatenate([logits, np.full((len(every) - len(logits), logits.shape[1]), np.nan, np.float32)])
    return Dataset(ids, types, starts, every, per_token=dataset.per_token, teacher_logits=logits)


def nearest_words(
    embeddings: NDArray[np.float32], words: NDArray[np.integer], candidates: NDArray[np.integer], count: int
) -> NDArray[np.int32]:
    """Return the `count` candidates nearest to each word by cosine, int32 (words, count), sorted.

    The word itself is left out. There are fewer when there are fewer candidates. Found in float32, in blocks of words,
    and ranked in float64, so that a machine's way of adding up does not decide.
    """
    count = min(count, len(candidates) - 1)
    if count < 1:
        return np.zeros((len(words), 0), dtype=np.int32)
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32(1e-12))
    others = units[candidates]
    nearest = np.empty((len(words), count), dtype=np.int32)
    shortlist = min(2 * count + 1, len(candidates))
    for start in range(0, len(words), _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS]
        listed = candidates[np.argpartition(units[block] @ others.T, -shortlist, axis=1)[:, -shortlist:]]
        cosines = np.einsum("wc,wsc->ws", units[block].astype(np.float64), units[listed].astype(np.float64))
        cosines[listed == block[:, None]] = -np.inf
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        nearest[start : start + len(block)] = np.sort(np.take_along_axis(listed, best, axis=1), axis=1)
    return nearest


class _Draws:
    """Uniform numbers in [0, 1) for one copy of the rows.

    From the raw stream of NumPy's Philox generator, as in `RandomSampler`: it never changes between versions.
    """

    def __init__(self, seed: int, view: int) -> None:
        self._stream = np.random.Philox(key=np.array([seed, view], dtype=np.uint64))

    def uniform(self, n: int) -> NDArray[np.float64]:
        raw: NDArray[np.uint64] = self._stream.random_raw(n) >> np.uint64(11)
        return raw.astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class _Text:
    """The places of the words of a data set.

    Attributes:
        replaceable: bool (tokens,), a whole word alone.
        rows: int64 (tokens,), each token's row.
        segments: int64 (tokens,), the run of tokens between borders that a token is in; arbitrary for borders.
        word: int64 (tokens,), the number of a token's word in its segment, pieces counted with their word; -1 for
            borders.
        words_of: int64 (segments,), how many words a segment has.
        row_of: int64 (segments,), its row.
    """

    replaceable: NDArray[np.bool_]
    rows: NDArray[np.int64]
    segments: NDArray[np.int64]
    word: NDArray[np.int64]
    words_of: NDArray[np.int64]
    row_of: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Dataset, kinds: TokenKinds) -> _Text:
        ids, rows = dataset.ids, np.repeat(np.arange(len(dataset)), dataset.lengths)
        inside = ~kinds.borders[ids]
        first_of_row = np.zeros(len(ids), dtype=np.bool_)
        first_of_row[dataset.starts[:-1]] = True
        after_border = np.concatenate(([True], ~inside[:-1])) | first_of_row
        opens = inside & after_border  # a segment
        begins = inside & (~kinds.pieces[ids] | opens)  # a word
        goes_on = np.concatenate((kinds.pieces[ids[1:]] & ~begins[1:], [False]))
        segments = np.maximum(np.cumsum(opens) - 1, 0)
        counted = np.cumsum(begins)
        firsts = np.flatnonzero(opens)
        word = np.where(inside, counted - counted[firsts][segments] if len(firsts) else 0, -1)
        words_of = np.bincount(segments[begins], minlength=len(firsts))
        return cls(begins & ~goes_on & kinds.words[ids], rows, segments, word, words_of, rows[firsts])


def _with_words_replaced(
    dataset: Dataset,
    text: _Text,
    vocabulary: NDArray[np.int32],
    neighbours: NDArray[np.int32],
    draws: _Draws,
) -> NDArray[np.int32]:
    """Return the ids with words replaced; row i of `neighbours` may stand for word vocabulary[i]."""
    low, high = REPLACED
    probability = low + (high - low) * draws.uniform(len(dataset))
    replaced = np.flatnonzero(text.replaceable & (draws.uniform(len(dataset.ids)) < probability[text.rows]))
    ids = dataset.ids.copy()
    if neighbours.size:
        choice = (draws.uniform(len(replaced)) * neighbours.shape[1]).astype(np.int64)
        ids[replaced] = neighbours[np.searchsorted(vocabulary, ids[replaced]), choice]
    return ids


def _kept_in_spans(rows: int, text: _Text, draws: _Draws) -> NDArray[np.bool_]:
    """Return which tokens are left, bool (tokens,), when a share of the rows is cut to one span of each segment."""
    is_cut = draws.uniform(rows) < SPANS
    length = 1 + (draws.uniform(len(text.words_of)) * text.words_of).astype(np.int64)
    first = (draws.uniform(len(text.words_of)) * (text.words_of - length + 1)).astype(np.int64)
    is_border = text.word < 0
    if not len(text.words_of):
        return np.ones(len(text.word), dtype=np.bool_)
    offset = text.word - first[text.segments]
    inside = (offset >= 0) & (offset < length[text.segments])
    return is_border | inside | ~is_cut[text.rows]
