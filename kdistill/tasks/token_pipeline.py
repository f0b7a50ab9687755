"""`pipeline("token-classification", model)`: from texts to tagged tokens or entities, as in `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch, pack
from ..data.windows import overlap_of, windows_of_words
from ..metrics.classification import softmax
from ..models.head_names import TOKEN
from ..models.heads import TokenClassifier, check_head
from ..text.blocks import OffsetRow
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from .counts import checked_count
from .inputs import refuse_unknown, texts_of_call

STRATEGIES = ("none", "simple", "first", "average", "max")
IGNORED = ("O",)


@dataclass(frozen=True)
class _Piece:
    """A token, or a word of several.

    Attributes:
        texts: the vocabulary's tokens.
        scores: float32 (tags,).
        start, end: its place in the text, in characters.
        index: of the token in its row, special tokens counted.
        goes_on: whether it belongs to the word of the token before it.
    """

    texts: tuple[str, ...]
    scores: NDArray[np.float32]
    start: int
    end: int
    index: int = 0
    goes_on: bool = False


class TokenClassificationPipeline:
    """Tags the tokens of texts, or finds the entities that the tags mark.

    The settings may also be given in a call, for that call. A text that is longer than the model reads is answered in
    windows that overlap, each word by the one in which it has most context; transformers cuts it, unless it is given a
    `stride`.

    Args:
        model: the tagger.
        tokenizer: the model's.
        aggregation_strategy: "none" returns each token; "simple" joins tokens of the same type to entities; "first",
            "average" and "max" first give all tokens of a word one tag: that of its first token, of the mean of their
            probabilities, or of the surest of them.
        ignore_labels: tags, or types of entities, that are left out (default: `O`).
        stride: tokens that windows share (default: that of the training, or a quarter of a window).
        is_split_into_words: inputs are lists of words instead of texts.
        delimiter: what joins words to the text whose characters start and end count (default: a space).
        batch_size: windows computed together.

    Raises:
        ValueError: a setting is none, or of no use beside the others.
        TypeError: a setting is of another kind.
    """

    def __init__(
        self,
        model: TokenClassifier,
        tokenizer: PreTrainedTokenizerFast,
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = IGNORED,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str | None = None,
        batch_size: int = 32,
        **unknown: Any,
    ) -> None:
        refuse_unknown(TOKEN, unknown, type(self))
        check_tokenizer("tokenizer", tokenizer)
        check_head(model, TOKEN)
        check_embeddings(tokenizer, model.config.vocab_size)
        _check_ignored(ignore_labels)
        _check_words(is_split_into_words, delimiter)
        self.model, self.tokenizer = model, tokenizer
        self.aggregation_strategy, self.ignore_labels = _strategy(aggregation_strategy), ignore_labels
        self.is_split_into_words, self.delimiter = is_split_into_words, delimiter
        self.stride = None if stride is None else checked_count("stride", stride, least=0)
        self.batch_size = checked_count("batch_size", batch_size)

    def __call__(
        self,
        inputs: Any,
        *,
        aggregation_strategy: str | None = None,
        ignore_labels: Sequence[str] | None = None,
        stride: int | None = None,
        is_split_into_words: bool | None = None,
        delimiter: str | None = None,
        batch_size: int | None = None,
        **unknown: Any,
    ) -> list[Any]:
        """Tag one text or many.

        Args:
            inputs: a text, or any iterable of them; with `is_split_into_words` a list of words, or of such lists.
            aggregation_strategy: as in the constructor, like the other settings.
            ignore_labels: likewise.
            stride: likewise.
            is_split_into_words: likewise.
            delimiter: likewise.
            batch_size: likewise.

        Returns:
            A list of what is found in a text, or a list of such lists, also for a single list of words. With "none" a
            token: {"entity", "score", "index", "word", "start", "end"}; else an entity: {"entity_group", "score",
            "word", "start", "end"}. start and end are characters of the text.

        Raises:
            TypeError: an input is no text, or no list of words.
            ValueError: a setting is none, or of no use beside the others.
        """
        refuse_unknown(TOKEN, unknown, self.__call__)
        strategy = self.aggregation_strategy if aggregation_strategy is None else _strategy(aggregation_strategy)
        stride = self.stride if stride is None else checked_count("stride", stride, least=0)
        ignored = self.ignore_labels if ignore_labels is None else ignore_labels
        _check_ignored(ignored)
        split = self.is_split_into_words if is_split_into_words is None else is_split_into_words
        delimiter = self.delimiter if delimiter is None else delimiter
        _check_words(split, delimiter)
        if split:
            texts, rows = self._read_words(_rows_of_words(inputs), " " if delimiter is None else delimiter)
        else:
            texts = texts_of_call(inputs)
            rows = self.tokenizer.encode_with_offsets(texts)
        size = self.batch_size if batch_size is None else checked_count("batch_size", batch_size)
        scores = self._scores(rows, stride, size)
        found = [self._found(*of, strategy, ignored) for of in zip(texts, rows, scores, strict=True)]
        return found[0] if isinstance(inputs, str) else found

    def _read_words(self, rows: Sequence[list[str]], delimiter: str) -> tuple[list[str], list[OffsetRow]]:
        """Return the texts that words make, and their tokens with their places there."""
        found = []
        for words, row in zip(rows, self.tokenizer.for_words().encode_with_offsets(rows), strict=True):
            begins = np.cumsum([0, *(len(word) + len(delimiter) for word in words)]).tolist()
            before = [0 if word is None else begins[word] for word in row.words]
            places = zip(row.offsets, before, strict=True)
            found.append(row._replace(offsets=[(start + by, end + by) for (start, end), by in places]))
        return [delimiter.join(words) for words in rows], found

    def _scores(self, rows: Sequence[OffsetRow], stride: int | None, batch_size: int) -> list[NDArray[np.float32]]:
        """Return the probabilities of the tags of each row's tokens, float32 (tokens, tags), 0 of special tokens."""
        found = [np.zeros((len(row.ids), self.model.num_labels), np.float32) for row in rows]
        windows = [(number, *window) for number, row in enumerate(rows) for window in self._windows(row, stride)]
        windows = [window for window in windows if len(window[1])]
        for first in range(0, len(windows), batch_size):
            block = windows[first : first + batch_size]
            batch = self._packed(rows, block)
            scores = softmax(self.model.forward(batch))
            before = len(self.tokenizer.special_token_ids()[0])
            for (number, places, own), start in zip(block, batch.starts[:-1], strict=True):
                found[number][places[own]] = scores[start + before : start + before + len(places)][own]
        return found

    def _packed(
        self, rows: Sequence[OffsetRow], block: Sequence[tuple[int, NDArray[np.int64], NDArray[np.bool_]]]
    ) -> Batch:
        """Return the windows of a block with their special tokens."""
        before, behind = self.tokenizer.special_token_ids()
        ids, types = [], []
        for number, places, _ in block:
            row = rows[number]
            ids.append([*before, *(row.ids[place] for place in places), *behind])
            types.append([*[0] * len(before), *(row.type_ids[place] for place in places), *[0] * len(behind)])
        return pack({"input_ids": ids, "token_type_ids": types})

    def _windows(self, row: OffsetRow, stride: int | None) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Return the places of the tokens of each window, without special tokens, and which of them it answers."""
        places = np.flatnonzero(~np.array(row.specials, dtype=np.bool_))
        config, trained = self.model.config, self.model.config.trained_with
        limits = [config.max_tokens, self.tokenizer.model_max_length, trained.max_length]
        size = min(limit for limit in limits if limit is not None) - (len(row.ids) - len(places))
        overlap = overlap_of("stride", trained.doc_stride if stride is None else stride, size)
        words = np.array([-1 if row.words[place] is None else row.words[place] for place in places], np.int64)
        begins = np.concatenate(([True], np.diff(words) != 0))[: len(words)]
        lengths = np.diff(np.append(np.flatnonzero(begins), len(words)))
        if len(lengths) and lengths.max() > size:  # Chinese without spaces is one word to Unigram
            lengths = np.concatenate([np.ones(n, np.int64) if n > size else [n] for n in lengths])
        return [(places[window.tokens], window.own) for window in windows_of_words(lengths, size, overlap)]

    def _found(
        self, text: str, row: OffsetRow, scores: NDArray[np.float32], strategy: str, ignored: Sequence[str]
    ) -> list[dict[str, Any]]:
        pieces = self._pieces(text, row, scores)
        if strategy == "none":
            tokens = [self._token(piece) for piece in pieces]
            return [found for found in tokens if found["entity"] not in ignored]
        if strategy != "simple":
            pieces = [self._word(word, strategy) for word in _words(pieces)]
        entities = [self._entity(group) for group in _groups(pieces, self._tag)]
        return [found for found in entities if found["entity_group"] not in ignored]

    def _pieces(self, text: str, row: OffsetRow, scores: NDArray[np.float32]) -> list[_Piece]:
        knows_words = self.tokenizer.marks_pieces
        pieces = []
        for index in np.flatnonzero(~np.array(row.specials, dtype=np.bool_)).tolist():
            (start, end), word = row.offsets[index], self.tokenizer.convert_ids_to_tokens(row.ids[index])
            if row.ids[index] == self.tokenizer.unk_token_id:
                pieces.append(_Piece((text[start:end],), scores[index], start, end, index))
                continue
            # Without a mark on pieces of words, a token goes on where no space is before it.
            goes_on = len(word) != end - start if knows_words else start > 0 and " " not in text[start - 1 : start + 1]
            pieces.append(_Piece((word,), scores[index], start, end, index, goes_on))
        return pieces

    def _tag(self, piece: _Piece) -> str:
        return self.model.config.id2label[int(piece.scores.argmax())]

    def _token(self, piece: _Piece) -> dict[str, Any]:
        found = {"entity": self._tag(piece), "score": float(piece.scores.max()), "index": piece.index}
        return found | {"word": piece.texts[0], "start": piece.start, "end": piece.end}

    def _word(self, pieces: Sequence[_Piece], strategy: str) -> _Piece:
        """Return the word that tokens make, with the scores that the strategy gives it."""
        if strategy == "first":
            scores = pieces[0].scores
        elif strategy == "max":
            scores = max(pieces, key=lambda piece: piece.scores.max()).scores
        else:
            scores = np.mean([piece.scores for piece in pieces], axis=0)
        text = self.tokenizer.convert_tokens_to_string([text for piece in pieces for text in piece.texts])
        return _Piece((text,), scores, pieces[0].start, pieces[-1].end)

    def _entity(self, pieces: Sequence[_Piece]) -> dict[str, Any]:
        return {
            "entity_group": self._tag(pieces[0]).split("-", 1)[-1],
            "score": float(np.mean([piece.scores.max() for piece in pieces])),
            "word": self.tokenizer.convert_tokens_to_string([text for piece in pieces for text in piece.texts]),
            "start": pieces[0].start,
            "end": pieces[-1].end,
        }


def _strategy(given: Any) -> str:
    """Return the name of a strategy, in small letters: transformers takes both."""
    name = str(given).lower()
    if name not in STRATEGIES:
        raise ValueError(f"aggregation_strategy is {given!r}; expected one of {', '.join(map(repr, STRATEGIES))}")
    return name


def _check_ignored(ignored: Any) -> None:
    if isinstance(ignored, str) or not isinstance(ignored, Iterable):
        raise TypeError(f"ignore_labels is {ignored!r}; expected a list of tags, or of types of entities")


def _check_words(split: Any, delimiter: Any) -> None:
    if not isinstance(split, bool):
        raise TypeError(f"is_split_into_words is {split!r}; expected True or False")
    if delimiter is None:
        return
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter is {delimiter!r} of type {type(delimiter).__name__}; expected text")
    if not split:
        raise ValueError(f"delimiter is {delimiter!r}, which joins words; expected is_split_into_words=True beside it")


def _rows_of_words(inputs: Any) -> list[list[str]]:
    if isinstance(inputs, str) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs is {inputs!r}, and is_split_into_words is True; expected a list of words, or several")
    given = list(inputs)
    rows = [given] if given and all(isinstance(each, str) for each in given) else given
    for index, row in enumerate(rows):
        if not isinstance(row, list | tuple) or not all(isinstance(word, str) for word in row):
            raise TypeError(f"inputs[{index}] is {row!r}, and is_split_into_words is True; expected a list of words")
    return [list(row) for row in rows]


def _words(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if words and piece.goes_on:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _groups(pieces: Sequence[_Piece], tag_of: Callable[[_Piece], str]) -> list[list[_Piece]]:
    """Return runs of pieces of one type; a tag that begins with `B-` begins another."""
    groups: list[list[_Piece]] = []
    last = None
    for piece in pieces:
        tag = tag_of(piece)
        begins, kind = tag.startswith("B-"), tag[2:] if tag.startswith(("B-", "I-")) else tag
        if groups and kind == last and not begins:
            groups[-1].append(piece)
        else:
            groups.append([piece])
        last = kind
    return groups
