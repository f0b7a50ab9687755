"""Documents of running text as a data set of blocks from which words are to be hidden, for a language model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..text.blocks import BLOCK_ROWS
from ..text.tokenizer import PreTrainedTokenizerFast
from .batch import pack, without_padding
from .columns import NO_COLUMNS, Columns, ColumnUse, rows_of
from .dataset import Dataset, OnProgress, Reading
from .files import DOCUMENTS, DataFile, FileFormat, is_plain_text
from .labels import NO_LABEL
from .masking import Masking
from .ragged import starts_of
from .sources import read_table
from .table import Table

_NO_LABELS = "the text itself"  # what messages call the column of labels


class Documents(NamedTuple):
    """Documents of a source.

    Attributes:
        texts: those that hold more than white space.
        empty: how many hold nothing else.
        table: the source.
        column: the one of the texts.
    """

    texts: list[str]
    empty: int
    table: Table
    column: str


def read_text_table(source: Any) -> Table:
    """Return the table of a source: of a .txt file as `text_files.read_documents` describes, else as `read_table`."""
    if isinstance(source, str | os.PathLike) and not isinstance(source, DataFile) and is_plain_text(Path(source)):
        source = DataFile(os.fspath(source), FileFormat(DOCUMENTS))
    return read_table(source)


def read_documents(table: Table, *, text_column: str | None = None, trained_on: Columns = NO_COLUMNS) -> Documents:
    """Return the documents of a table, one a row.

    Args:
        table: see `read_text_table`.
        text_column: the column of the texts (default: as in `columns.read_rows`).
        trained_on: the columns that the model was trained on.

    Raises:
        ValueError: there is no column of texts, or only two by convention, or no text.
        TypeError: a text is not a string.
    """
    if text_column is None and trained_on.text in table.columns:
        text_column = trained_on.text
    rows = rows_of(table, text_column=text_column, text_pair_column=None, label_column=None)
    if rows.columns.text_pair is not None:
        found = f"{rows.columns.text} and {rows.columns.text_pair}"
        raise ValueError(f"{table.source} has pairs of texts ({found}); name one column with --text-column")
    texts = [text for text in rows.texts if text.strip()]
    if not texts:
        raise ValueError(f"{table.source} holds nothing but white space; expected text")
    assert rows.columns.text is not None
    return Documents(texts, len(rows.texts) - len(texts), table, rows.columns.text)


def encode_documents(
    documents: Documents,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_length: int,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise documents, and cut each into blocks with special tokens around them.

    A block holds text of one document (DOC-SENTENCES of Liu et al., 2019, arXiv:1907.11692, table 2, slightly better
    than blocks across documents). `run_mlm` of transformers fills blocks across documents, since it pads rows; rows are
    packed here, so that short ones cost nothing. A document has as few blocks as hold it, whose lengths differ by one
    token at most; nothing is left out.

    Args:
        documents: the documents.
        tokenizer: the model's, which has a `mask_token`.
        max_length: tokens of a block at most, special tokens counted.
        progress: called with (documents done, all).

    Returns:
        A data set with `Dataset.masking`.

    Raises:
        ValueError: the tokenizer has no mask token, or there is no room beside the special tokens.
    """
    masking, texts = masking_of(tokenizer), documents.texts
    ids, starts, empty = blocks_of_texts(texts, tokenizer, max_length, progress)
    empty += documents.empty
    source = documents.table.source
    if not len(ids):
        raise ValueError(f"{source} has no text that the tokenizer knows")
    if empty:
        rows = documents.empty + len(texts)
        warnings.warn(f"{empty:,} of {rows:,} rows of {source} hold no text and are left out", stacklevel=4)
    others = tuple(name for name in documents.table.columns if name != documents.column)
    return Dataset(
        ids,
        np.zeros_like(ids),
        starts,
        words_of_blocks(ids, masking),
        reading=Reading(Columns(documents.column), max_length, 0),
        column_use=ColumnUse(source, (documents.column,), (_NO_LABELS,), others),
        per_token=True,
        masking=masking,
    )


def blocks_of_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_length: int, progress: OnProgress | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Return blocks of texts as in `encode_documents`: their ids, where each begins, and how many texts have none."""
    before, behind = tokenizer.special_token_ids()
    room = max_length - len(before) - len(behind)
    if room < 1:
        raise ValueError(
            f"max_length is {max_length}; expected room for a token beside the {len(before) + len(behind)} special ones"
        )
    parts: list[NDArray[np.int32]] = []
    empty = 0
    for first in range(0, len(texts), BLOCK_ROWS):
        if progress is not None:
            progress(first, len(texts))
        for row in tokenizer.encode_rows(texts[first : first + BLOCK_ROWS], None, add_special_tokens=False):
            empty += not row.ids
            ids = np.array(row.ids, np.int32)
            parts += np.array_split(ids, -(-len(ids) // room)) if row.ids else []
    if progress is not None:
        progress(len(texts), len(texts))
    blocks = [np.concatenate((before, part, behind)).astype(np.int32) for part in parts]
    starts = starts_of(np.array([len(block) for block in blocks], np.int64))
    return np.concatenate([np.zeros(0, np.int32), *blocks]), starts, empty


def blocks_of_token_ids(table: Table, tokenizer: PreTrainedTokenizerFast, pad_token_id: int | None) -> Dataset:
    """Return rows that are tokenised already, with special tokens, as blocks; a column of labels is not read.

    Args:
        table: a column `input_ids`, perhaps `token_type_ids` and `attention_mask`.
        tokenizer: as in `encode_documents`.
        pad_token_id: what rows without an `attention_mask` are padded with.
    """
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {name: table.columns[name] for name in names if name in table.columns}
    batch = pack(inputs)
    if "attention_mask" not in inputs and pad_token_id is not None:
        batch = without_padding(batch, pad_token_id)
    masking = masking_of(tokenizer)
    return Dataset(*batch, words_of_blocks(batch.ids, masking), per_token=True, masking=masking)


def masking_of(tokenizer: PreTrainedTokenizerFast) -> Masking:
    """Return what hides words of a tokenizer; seed and probability are the run's. Raises ValueError without a mask."""
    mask = getattr(tokenizer, "mask_token_id", None)
    if mask is None:
        raise ValueError("the tokenizer has no mask_token; expected that of a model which predicts masked words")
    return Masking(mask_token_id=mask, vocab_size=len(tokenizer), special_ids=tuple(tokenizer.all_special_ids), seed=0)


def words_of_blocks(ids: NDArray[np.int32], masking: Masking) -> NDArray[np.int64]:
    """Return the tokens that may be hidden, NO_LABEL in place of special ones."""
    return np.where(np.isin(ids, [*masking.special_ids]), NO_LABEL, ids).astype(np.int64)
