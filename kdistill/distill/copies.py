"""What augmented copies of rows need beside tokens: embeddings that show which words are alike, and their texts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..data.augmentation import TokenKinds
from ..data.dataset import Dataset
from ..data.texts import Texts
from ..models.initialization import WORD_EMBEDDINGS
from ..text.tokenizer import PreTrainedTokenizerFast
from .teachers import Teacher


def word_embeddings(teacher: Teacher, tokenizer: PreTrainedTokenizerFast) -> NDArray[np.float32]:
    """Return a teacher's embedding of each token of the student's vocabulary, float32 (vocab_size, width).

    A teacher with another tokenizer has those of whole words alone: of a word the mean of its own tokens' embeddings.

    Args:
        teacher: the teacher.
        tokenizer: the student's.
    """
    words = teacher.model.float32_tensors[WORD_EMBEDDINGS]
    if not teacher.reads_itself:
        return words
    assert teacher.tokenizer is not None
    pieces = {index: piece.text for index, piece in tokenizer.pieces().items() if piece.begins and piece.text.isalpha()}
    found = np.zeros((len(tokenizer), words.shape[1]), np.float32)
    for index, row in zip(pieces, teacher.tokenizer.encode_words([[text] for text in pieces.values()]), strict=True):
        if row.ids:
            found[index] = words[row.ids].mean(axis=0)
    return found


def with_texts_of_copies(rows: Dataset, texts: Texts, tokenizer: PreTrainedTokenizerFast, kinds: TokenKinds) -> Dataset:
    """Return rows and the copies behind them with the texts of all.

    A copy is made of tokens, so its text is what they stand for: in lower case, say, where the student reads no other,
    and without the words that it does not know.

    Args:
        rows: the rows, and behind them their copies.
        texts: of the rows.
        tokenizer: the student's.
        kinds: of its tokens; those that stand around texts divide them.
    """
    first, second = [], []
    for row in range(len(texts), len(rows)):
        ids = rows.ids[rows.starts[row] : rows.starts[row + 1]]
        parts = np.split(ids, np.flatnonzero(kinds.borders[ids]))  # each but the first begins with a border
        first.append(ids if texts.second is None else parts[1])
        second.append(parts[-2])
    decoded = partial(tokenizer.batch_decode, skip_special_tokens=True)
    copies = Texts(decoded(first), None if texts.second is None else decoded(second))
    return replace(rows, texts=texts.followed_by(copies))
