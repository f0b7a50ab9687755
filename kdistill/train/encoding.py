"""From rows to token ids that a model can read: by the arguments, and by what the model was trained with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.blocks import blocks_of
from ..data.columns import TOKEN_COLUMNS, Columns
from ..data.dataset import Dataset, as_dataset, from_token_ids
from ..data.documents import blocks_of_token_ids, encode_documents, read_documents, read_text_table
from ..data.labels import NO_LABEL, UNTAGGED
from ..data.sentences import Sentences
from ..data.table import Table
from ..data.tagged import encode_words
from ..data.teacher_columns import Answers
from ..data.teacher_rows import TaughtRows
from ..data.token_files import token_files_of
from ..data.words import TAG_COLUMNS, read_word_table, words_of
from ..models.configuration import Config
from ..models.head_names import MASKED, SPAN
from ..models.model import Model
from ..system.progress import Progress
from ..tasks.registry import has_one_class, refuse_one_class, strict_label_reader, task_for, task_option
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_embeddings, check_tokenizer
from ..text.windows import MAX_LENGTH, stride_of
from .arguments import TrainingArguments
from .token_reading import rows_of_files
from .without_effect import is_used_by

_AFTER_ALL_EPOCHS = 2**32  # words are hidden otherwise than in any epoch of a training on the same text


def tokenizer_for(config: Config, tokenizer: PreTrainedTokenizerFast | None) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer that belongs to a model, and to the directory that it is saved to.

    It gives texts the tokens that `encode_for` trains the model on: that of a model which learns from rows of words
    reads the first word of a text as all others. That of a model without token types has none, for transformers hands
    a model all that its tokenizer gives.
    """
    if tokenizer is None:
        return None
    if config.type_vocab_size == 0:
        tokenizer = tokenizer.with_token_types(False)
    task = task_for(config)
    of_words = task.encode is None and task.taught is not None and not task.makes_labels
    return tokenizer.for_words() if of_words else tokenizer


def tokenizer_beside(model: Model) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer in the directory that a model was read from; None: it was read from none, or none is there.

    Raises:
        ValueError: the files are no tokenizer.
    """
    if not model.name_or_path:
        return None
    try:
        return AutoTokenizer.from_pretrained(model.name_or_path)
    except FileNotFoundError:
        return None


def encode_for(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    args: TrainingArguments,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    training: bool = False,
    keep_texts: bool = False,
) -> Dataset:
    """Tokenise `source` for a model of `config`, cut to what model, tokenizer and maximum length allow.

    Rows of words and of questions are not cut: they become windows, see `data.tagged` and `data.question_windows`. Only
    rows for `training` have a label on further tokens of a word (`label_all_tokens`). For a language model running text
    becomes blocks, see `data.documents`: words of those for `training` are hidden in each step, of others here and now,
    the same ones each time.

    Maximum length and columns are those that are given; else those that the model was trained with
    (`Config.trained_with`). Where the two differ, how many rows were cut and which columns are not used is reported
    as warnings.

    With `keep_texts` rows of text hold their texts too, see `data.dataset.encode`.

    Columns and errors are those of `data.dataset.as_dataset`; ValueError also for a tokenizer with added tokens that
    the model has no embeddings for, and for token ids, types or lengths that it has no place for, which names the row.
    Of `TaughtRows` the data set has the answers of a teacher, too.
    """
    if isinstance(source, TaughtRows):
        refuse_other_answers(config)
        columns = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
        return source.encoded(
            lambda rows: encode_for(config, rows, tokenizer, args, **columns, training=training, keep_texts=keep_texts),
            partial(answers_of, config),
        )
    check_tokenizer("processing_class", tokenizer)
    check_embeddings(tokenizer, config.vocab_size)
    given = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    trained = config.trained_with
    task = task_for(config)
    asked, max_length = _asked_length(config, args), length_to_read(config, tokenizer, args)
    files, shown = token_files_of(source), _shown(source)
    if files is not None:
        source = rows_of_files(
            config,
            files,
            tokenizer,
            max_length=max_length,
            doc_stride=trained.doc_stride if args.doc_stride is None else args.doc_stride,
            columns=given,
            keep_texts=keep_texts,
            all_tokens=training and args.label_all_tokens,
        )
    with Progress(f"tokenize {shown}", unit="rows", quiet=args.disable_tqdm) as progress:
        if task.encode is not None:
            stride = stride_of(trained.doc_stride if args.doc_stride is None else args.doc_stride, max_length)
            of_texts = {"pad_token_id": config.pad_token_id, "keep_texts": keep_texts}
            dataset = task.encode(
                source,
                tokenizer,
                max_length=max_length,
                **({"doc_stride": stride} if task.in_windows else of_texts),
                **given,
                trained_on=trained_on(config),
                progress=progress,
            )
        elif task.makes_labels:
            dataset = _blocks(config, source, tokenizer, args, max_length, given, training, progress)
        elif task.labels_per_token and not isinstance(source, Dataset):
            dataset = _tagged(config, source, tokenizer, args, max_length, given, training, keep_texts, progress)
        else:
            dataset = as_dataset(
                source,
                tokenizer,
                max_length=max_length,
                id2label=config.id2label,
                read_labels=strict_label_reader(config),
                pad_token_id=config.pad_token_id,
                **given,
                trained_on=trained_on(config),
                keep_texts=keep_texts,
                progress=progress,
            )
    _check_fits(dataset, config)
    if files is not None or source is not dataset:
        asked_for = {"max_length": args.max_length}
        if is_used_by("doc_stride", config.head):
            asked_for["doc_stride"] = args.doc_stride
        _warn_of_differences(given | asked_for, trained.given())
        _warn_of_unused_columns(dataset)
        if (cut := cut_rows_sentence(dataset, shown)) is not None:
            warnings.warn(cut, stacklevel=3)
        # Of these no row is reported as cut.
        in_pieces = task.makes_labels or (dataset.windows is not None and not isinstance(dataset.windows, Sentences))
        if in_pieces and args.max_length is not None and dataset.lengths.max() == max_length < args.max_length:
            warnings.warn(
                f"max_length is {args.max_length}; the model, or its tokenizer, reads at most {max_length} tokens, and "
                f"{shown} is cut to pieces of so many",
                stacklevel=3,
            )
    if asked is not None and dataset.lengths.max() > asked:
        longer = int((dataset.lengths > asked).sum())
        warnings.warn(
            f"{longer:,} of {len(dataset):,} rows ({shown}) are longer than max_length {asked}: rows that "
            "are already tokenized are not truncated",
            stacklevel=3,
        )
    return dataset


def refuse_other_answers(config: Config) -> None:
    """Raise ValueError for a student whose teacher's answers no column holds."""
    if config.head not in (SPAN, MASKED):
        return
    why = (
        "the answers of a teacher to questions are logits of all tokens of a window, which no column holds"
        if config.head == SPAN
        else "a teacher of a language model answers for hidden words, which are others in each epoch"
    )
    raise ValueError(
        f"the student is a model for {task_option(config.head)}, and {why}; give the teacher itself: --teacher, in "
        "Python teacher_model="
    )


def answers_of(config: Config, dataset: Dataset) -> Answers:
    """Return what the outputs of a model of this config are, for rows with a teacher's answers beside them."""
    task = task_for(config, dataset.labels)
    windows = dataset.windows
    pairs = isinstance(windows, Sentences) and len(dataset) > int(windows.examples[-1]) + 1
    names = () if config.embeds else tuple(config.id2label[index] for index in range(config.num_labels))
    return Answers(names, task.score_function, per_part=dataset.per_token or pairs)


def length_to_read(config: Config, tokenizer: PreTrainedTokenizerFast | None, args: TrainingArguments) -> int:
    """Return the tokens that a row of this model may have: as many as model, tokenizer and maximum length allow."""
    limits = [config.max_tokens, _asked_length(config, args), tokenizer.model_max_length if tokenizer else None]
    return min(limit for limit in limits if limit is not None)


def _asked_length(config: Config, args: TrainingArguments) -> int | None:
    """Return the maximum length that is given, or that the model was trained with; None for neither."""
    asked = config.trained_with.max_length if args.max_length is None else args.max_length
    return MAX_LENGTH if asked is None and task_for(config).in_windows else asked


def _tagged(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    args: TrainingArguments,
    max_length: int,
    columns: Mapping[str, str | None],
    training: bool,
    keep_texts: bool,
    progress: Progress,
) -> Dataset:
    """Return rows of words, or of tokens, with a label for each token."""
    label_column = columns["label_column"]
    table = read_word_table(source, columns_named=any(columns.values()))
    if columns["text_pair_column"] is not None:
        raise ValueError(f"text_pair_column is {columns['text_pair_column']!r}, and tokens have no pairs; leave it out")
    if "input_ids" in table.columns:
        # Words and their tags, of which the ids were made, may stand beside the labels of the tokens.
        known = (label_column, "labels", config.trained_with.label_column, *TAG_COLUMNS, "label")
        label_column = next((name for name in known if name is not None and name in table.columns), None)
        of_words = [name for name in (*TOKEN_COLUMNS, *TAG_COLUMNS) if name in table.columns and name != label_column]
        table = table.remove_columns(of_words)
        reader = strict_label_reader(config)
        return from_token_ids(table, config.id2label, reader, label_column, config.pad_token_id, per_token=True)
    rows = words_of(table, text_column=columns["text_column"], label_column=label_column, trained_on=trained_on(config))
    if tokenizer is None:
        raise ValueError(f"{table.source} holds words; pass a tokenizer (processing_class=), or rows with input_ids")
    if rows.tags is not None and has_one_class(config):
        refuse_one_class(config)
    stride = config.trained_with.doc_stride if args.doc_stride is None else args.doc_stride
    return encode_words(
        rows,
        tokenizer,
        max_length=max_length,
        doc_stride=stride,
        id2label=config.id2label,
        all_tokens=training and args.label_all_tokens,
        keep_texts=keep_texts,
        progress=progress,
    )


def _blocks(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    args: TrainingArguments,
    max_length: int,
    columns: Mapping[str, str | None],
    training: bool,
    progress: Progress,
) -> Dataset:
    """Return blocks of text; words are hidden in those that are not for training."""
    for name in ("text_pair_column", "label_column"):
        if columns[name] is not None:
            raise ValueError(f"{name} is {columns[name]!r}, and a language model reads texts alone; leave it out")
    if isinstance(source, Dataset):
        blocks = source
        if blocks.masking is None and not blocks.hidden:
            raise ValueError(f"the data set is not made for a model for {MASKED}; give its text or token ids instead")
    else:
        if tokenizer is None:
            raise ValueError("tokenizer is None; pass one (processing_class=), which tells how a mask is written")
        table = read_text_table(source)
        if "input_ids" in table.columns:
            blocks = blocks_of_token_ids(table, tokenizer, config.pad_token_id)
        else:
            documents = read_documents(table, text_column=columns["text_column"], trained_on=trained_on(config))
            blocks = encode_documents(documents, tokenizer, max_length=max_length, progress=progress)
            progress.write(
                f"{_shown(source)}: {len(documents.texts):,} documents make {len(blocks):,} blocks of at most "
                f"{max_length} tokens"
            )
    if training and blocks.hidden:
        raise ValueError("the words of the data set are hidden already; expected text, as they change in each epoch")
    return blocks if training or blocks.hidden else _with_hidden_words(blocks, args.mlm_probability)


def _with_hidden_words(blocks: Dataset, mlm_probability: float) -> Dataset:
    """Return blocks with words hidden, which depend on nothing but places and probability."""
    assert blocks.masking is not None
    masking = replace(blocks.masking, seed=0, mlm_probability=mlm_probability)
    hidden = replace(blocks, masking=masking).masked(np.arange(len(blocks)), _AFTER_ALL_EPOCHS)
    if not hidden.labelled:
        raise ValueError(
            f"mlm_probability {mlm_probability} hides none of the {len(blocks.ids):,} tokens to measure on; expected "
            "more text"
        )
    return replace(hidden, reading=blocks.reading, column_use=blocks.column_use)


def _warn_of_unused_columns(dataset: Dataset) -> None:
    unused = "" if dataset.column_use is None else dataset.column_use.unused_sentence()
    if unused:
        warnings.warn(unused, stacklevel=4)


def trained_on(config: Config) -> Columns:
    """Return the columns that the model was trained on, as its config holds them."""
    trained = config.trained_with
    return Columns(trained.text_column, trained.text_pair_column, trained.label_column)


def _warn_of_differences(given: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Warn of arguments, given, that are not those of the training."""
    for name, value in given.items():
        if value is not None and trained.get(name, value) != value:
            warnings.warn(f"{name} is {value!r}; the model was trained with {trained[name]!r}", stacklevel=4)


def cut_rows_sentence(dataset: Dataset, name: str) -> str | None:
    """Return the sentence that reports rows cut to the maximum length, None without any; `name` is the data's."""
    reading = dataset.reading
    if reading is None or not reading.cut:
        return None
    share = reading.cut / len(dataset)
    return (
        f"{reading.cut:,} of {len(dataset):,} rows ({share:.1%} of {name}) were longer than {reading.max_length} "
        "tokens and truncated (max_length)"
    )


def _check_fits(dataset: Dataset, config: Config) -> None:
    """Raise ValueError for the first row that the model cannot read.

    The model would find the same, but count the row from the beginning of a batch and only when it gets there.
    """
    positions = config.max_tokens
    if dataset.lengths.max() > positions:
        row = int(np.argmax(dataset.lengths > positions))
        raise ValueError(
            f"row {row} of the data set has {dataset.lengths[row]} tokens; the model has {positions} positions: "
            f"tokenize with truncation=True, max_length={positions}"
        )
    for name, values, size in (
        ("input_ids", dataset.ids, config.vocab_size),
        ("token_type_ids", dataset.types, config.type_vocab_size),
    ):
        place = _first_outside(values, size) if size else None  # a model without token types reads none
        if place is not None:
            row = int(np.searchsorted(dataset.starts, place, side="right")) - 1
            raise ValueError(
                f"row {row} of the data set has {values[place]} among its {name}; the model knows 0 to {size - 1}: "
                "is it the tokenizer of another model?"
            )
    task = task_for(config)
    if dataset.per_token != task.labels_per_token:
        of, expected = ("each token", "one for each row") if dataset.per_token else ("each row", "one for each token")
        raise ValueError(f"the data set has a label for {of}; a model for {task.name} expects {expected}")
    if task.makes_labels:
        return
    if dataset.per_token:
        _check_tags(dataset, config)
    elif dataset.labels.dtype.kind in "iu" and task.one_label:
        unknown = _first_unknown_label(dataset.labels, config.num_labels, NO_LABEL)
        if unknown is not None:
            if has_one_class(config):
                refuse_one_class(config)
            raise ValueError(
                f"row {unknown} of the data set has the label {dataset.labels[unknown]}; the model has labels 0 to "
                f"{config.num_labels - 1}"
            )


def _first_outside(values: NDArray[Any], size: int) -> int | None:
    """Return the place of the first value below 0 or not below `size`."""
    for block in blocks_of(len(values)):
        some = values[block]
        if some.min() < 0 or some.max() >= size:
            return int(block.start + np.argmax((some < 0) | (some >= size)))
    return None


def _first_unknown_label(labels: NDArray[np.integer[Any]], count: int, *others: int) -> int | None:
    """Return the place of the first label that is neither 0 to count - 1 nor one of the others."""
    for block in blocks_of(len(labels)):
        some = labels[block]
        wrong = ((some < 0) | (some >= count)) & ~np.isin(some, others)
        if wrong.any():
            return int(block.start + np.argmax(wrong))
    return None


def _check_tags(dataset: Dataset, config: Config) -> None:
    """Raise ValueError for the first token with a label that the model does not have."""
    place = _first_unknown_label(dataset.labels, config.num_labels, NO_LABEL, UNTAGGED)
    if place is not None:
        row = int(np.searchsorted(dataset.starts, place, side="right")) - 1
        raise ValueError(
            f"row {row} of the data set has the label {dataset.labels[place]} at token {place - dataset.starts[row]}; "
            f"the model has labels 0 to {config.num_labels - 1}, and {NO_LABEL} leaves a token out"
        )


IN_MEMORY = "rows in memory"


def _shown(source: Any) -> str:
    """Return how messages call a data set."""
    return source.source if isinstance(source, Table) else name_of(source)


def name_of(source: Any) -> str:
    """Return how a model card calls a data set: by its file's name without the directory, or as rows in memory."""
    if isinstance(source, TaughtRows):
        return name_of(source.rows)
    return Path(source).name if isinstance(source, str | os.PathLike) else IN_MEMORY
