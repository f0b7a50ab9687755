"""Texts and pairs with a score as a data set of texts that are embedded."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from .columns import LABEL_COLUMNS, NO_COLUMNS, Columns, Rows, rows_of
from .dataset import Dataset, OnProgress, encode, from_token_ids
from .label_values import as_number, is_missing
from .labels import LabelReader, label_numbers
from .sentences import Sentences
from .sources import read_table
from .table import Table

SCORE_COLUMN = "score"
"""The column of the scores of pairs, beside those that labels have by convention."""


def read_sentences(
    table: Table,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
) -> Rows:
    """Return the texts or pairs of a table; `labels` are the scores of pairs, None where there are none.

    Columns are found as in `columns.read_rows`. A score may also be in a column `score`. Labels that nobody named are
    left out where they are no scores: those of single texts, and names of classes.

    Raises:
        ValueError: a column `score` beside pairs holds something else than numbers, or what `columns.rows_of` raises.
    """
    given = label_column
    if not all(name in table.columns for name in trained_on if name is not None):
        trained_on = NO_COLUMNS  # a text is a text, whatever its column is called
    if given is None and SCORE_COLUMN in table.columns and not any(name in table.columns for name in LABEL_COLUMNS):
        label_column = SCORE_COLUMN
    rows = rows_of(
        table,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        trained_on=trained_on,
    )
    if given is not None and rows.pairs is None:
        raise ValueError(
            f"label_column is {given!r}, and {table.source} has single texts, whose labels embeddings have no use for; "
            "leave it out, or name two columns of texts with a score"
        )
    if rows.pairs is not None and rows.columns.label == SCORE_COLUMN:
        _check_scores(rows)  # by its name it is no column of classes
    scored = rows.pairs is not None and (given is not None or all(map(_is_score, rows.labels or ())))
    return rows if scored else replace(rows, labels=None, columns=rows.columns._replace(label=None))


def _is_score(label: Any) -> bool:
    return is_missing(label) or as_number(label) is not None


def _check_scores(rows: Rows) -> None:
    for row, label in enumerate(rows.labels or ()):
        if not _is_score(label):
            raise ValueError(
                f"{rows.table.where(row)}: {SCORE_COLUMN!r} holds {label!r}; expected a number, the score of the pair "
                f"in {rows.columns.text} and {rows.columns.text_pair}: name the columns in the order of the file "
                "(--columns), or the one with the scores (--label-column), in Python rename them"
            )


def encode_sentences(
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    max_length: int,
    pad_token_id: int | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    trained_on: Columns = NO_COLUMNS,
    keep_texts: bool = False,
    progress: OnProgress | None = None,
) -> Dataset:
    """Tokenise texts that are to be embedded; each text of a pair is a row of its own.

    Args:
        source: a Dataset, whose labels are left out unless its rows are `Sentences`; rows of token ids; or text, see
            `sources.read_table`.
        tokenizer: needed for text alone.
        max_length: tokens that texts are cut to.
        pad_token_id: as in `dataset.as_dataset`.
        text_column: the column of texts.
        text_pair_column: that of second texts.
        label_column: that of the scores of pairs.
        trained_on: the columns of the training.
        keep_texts: as in `dataset.encode`.
        progress: called with (texts done, all).

    Raises:
        ValueError: no tokenizer, or what `columns.rows_of` and `dataset.encode` raise.
        TypeError: likewise.
    """
    if isinstance(source, Dataset):
        return source if isinstance(source.windows, Sentences) else _alone(source)
    table = read_table(source)
    if "input_ids" in table.columns:
        return _alone(from_token_ids(table, None, _no_scores(len(table)), None, pad_token_id))
    columns = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    rows = read_sentences(table, **columns, trained_on=trained_on)
    check_tokenizer("processing_class", tokenizer)
    if tokenizer is None:
        raise ValueError(f"{table.source} holds text; pass a tokenizer (processing_class=), or rows with input_ids")
    scores = rows.read_labels(None, label_numbers)
    count = 1 if rows.pairs is None else 2
    texts = rows.texts
    if rows.pairs is not None:
        texts = list(chain.from_iterable(zip(rows.texts, rows.pairs, strict=True)))
    alone = replace(rows, texts=texts, pairs=None, labels=None)
    dataset = encode(
        alone,
        tokenizer,
        max_length=max_length,
        read_labels=_no_scores(len(texts)),
        keep_texts=keep_texts,
        progress=progress,
    )
    use = rows.column_use
    if rows.labels is None:
        use = replace(use, labels=(), unused=(*use.unused, *use.labels))
    windows = Sentences(np.repeat(np.arange(len(rows)), count))
    return replace(dataset, labels=np.repeat(scores, count), windows=windows, column_use=use)


def _alone(dataset: Dataset) -> Dataset:
    labels, rows = np.full(len(dataset), np.nan, np.float32), np.arange(len(dataset))
    return replace(dataset, labels=labels, per_token=False, windows=Sentences(rows))


def _no_scores(rows: int) -> LabelReader:
    return lambda *given: np.full(rows, np.nan, np.float32)
