"""Rows as a teacher with another tokenizer reads them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..data.dataset import Dataset, encode_texts
from ..data.labels import missing_like
from ..data.question_windows import encode_questions
from ..data.spans import Spans
from ..data.table import Table
from ..data.tagged import encode_words
from ..data.windows import Windows
from ..data.words import WordRows
from ..models.configuration import Config
from ..system.progress import Progress
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings
from ..text.windows import DOC_STRIDE
from ..train.arguments import DistillationTrainingArguments
from ..train.encoding import length_to_read, tokenizer_for


def read_texts(
    config: Config,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    args: DistillationTrainingArguments,
    name: str,
) -> Dataset:
    """Return the rows as a teacher reads them, without labels.

    Rows of words and questions become windows of their own, in which `alignment.for_tokens_of` finds the answers again.
    Texts are cut to what its model and tokenizer allow, and to `args.max_length` or what it was trained with, in its
    own tokens. How many were longer is a warning.

    Args:
        config: the teacher's.
        tokenizer: the teacher's.
        rows: with their texts.
        args: the training arguments.
        name: what messages call the teacher.

    Raises:
        ValueError: the rows hold no texts, or the tokenizer gives ids that the model has no embeddings for.
    """
    words = rows.windows.texts if isinstance(rows.windows, Windows) else None
    if rows.texts is None and words is None and not isinstance(rows.windows, Spans):
        raise ValueError(
            f"the rows are token ids, and {name} reads texts with a tokenizer of its own, which gives them other ids; "
            "expected rows of text"
        )
    check_embeddings(tokenizer, config.vocab_size)
    own = tokenizer_for(config, tokenizer)
    assert own is not None
    length = length_to_read(config, own, args)
    stride = config.trained_with.doc_stride if args.doc_stride is None else args.doc_stride
    if isinstance(rows.windows, Spans):
        stride = min(DOC_STRIDE, length // 3) if stride is None else stride
        return encode_questions(rows.windows.questions, own, max_length=length, doc_stride=stride)
    if words is not None:
        given = WordRows(words, None, None, None, Table(f"rows for {name}", {"tokens": words}))
        return encode_words(given, own, max_length=length, doc_stride=stride)
    assert rows.texts is not None
    with Progress(f"tokenize for {name}", unit="rows", quiet=args.disable_tqdm) as progress:
        tokens = encode_texts(rows.texts.inputs(), own, max_length=length, progress=progress)
    if tokens.cut:
        warnings.warn(
            f"{tokens.cut:,} of {len(rows):,} rows were longer than {length} tokens of {name} and truncated for it",
            stacklevel=6,
        )
    lengths = np.diff(tokens.starts)
    labels = missing_like(rows.labels)
    return replace(rows, ids=tokens.ids, types=tokens.types, starts=tokens.starts, lengths=lengths, labels=labels)
