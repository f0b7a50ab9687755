"""`prune`: a smaller model of a trained one, in a directory of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..models.auto import load_model, load_trained
from ..models.configuration import Config, read_config
from ..models.head_names import ENCODER, named_head
from ..models.model import Model, check_model
from ..models.sentence_files import has_sentence_files
from ..system.output import check_new_directory, new_directory
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..train.arguments import TrainingArguments
from ..train.checkpoint import save_model
from ..train.encoding import encode_for, tokenizer_for
from .vocabulary import kept_vocabulary, rows_of, same_rows, with_vocabulary

Figures = dict[str, Any]


def prune(
    model: Model | str | os.PathLike[str],
    data: Any,
    output: str | os.PathLike[str],
    *,
    vocabulary: bool | Any = False,
    keep: int | None = None,
    processing_class: PreTrainedTokenizerFast | None = None,
    args: TrainingArguments | None = None,
    **columns: str | None,
) -> Figures:
    """Write a smaller model of a trained one.

    With `vocabulary` it has only the word pieces that occur in texts, and those that spell any other text: rows whose
    pieces all stay have the same logits, bit for bit.

    Args:
        model: the model, or its directory or hub id.
        data: training rows, in any form that a trainer takes.
        output: the directory to make; it must not be there, or be empty.
        vocabulary: True: keep the pieces of `data`; or other rows, in any form, whose pieces are kept; False: keep all.
        keep: of these pieces the most frequent ones (default: all that occur).
        processing_class: the tokenizer of a model that is no directory.
        args: how rows are read: `max_length`, `doc_stride` (default: as the model was trained).
        columns: `text_column`, `text_pair_column`, `label_column`, as in `encode_for`.

    Returns:
        Figures: `output`; `num_parameters` and `vocab_size`, each also with `_before`; `parameters_kept`, the share;
        and with `vocabulary`, of how many of the `n` rows of `data` all pieces stayed, `rows_with_same_tokens`.

    Raises:
        ValueError: nothing is asked for, or arguments do not fit each other or the model.
        FileExistsError: `output` holds something.
        RuntimeError: the model holds no float32 weights.
    """
    started = time.monotonic()
    if keep is not None and vocabulary is False:
        raise ValueError(f"keep is {keep} and vocabulary False; expected vocabulary=True, or the texts to count in")
    if vocabulary is False:
        raise ValueError("nothing is to be pruned; expected vocabulary")
    check_new_directory("output", output)
    args = args or TrainingArguments(disable_tqdm=True)
    original, tokenizer = _loaded(model, processing_class)
    rows = _read(original.config, data, tokenizer, args, columns)
    pruned, figures = original, Figures()
    if vocabulary is not False:
        if tokenizer is None:
            raise ValueError("processing_class is None; expected the tokenizer, whose vocabulary is pruned")
        texts = rows if vocabulary is True else _read(original.config, vocabulary, tokenizer, args, columns)
        kept = kept_vocabulary(texts, tokenizer, original.config, keep)
        pruned = with_vocabulary(pruned, kept.ids)
        tokenizer, same = kept.tokenizer, rows_of(rows, kept.ids)
        if not isinstance(data, Dataset) and (rows.column_use is None or "input_ids" not in rows.column_use.texts):
            same = same_rows(rows, _read(pruned.config, data, tokenizer, args, columns), kept.ids)
        figures |= {"n": len(rows), "rows_with_same_tokens": same}
    with new_directory(output) as directory:
        save_model(directory, pruned, tokenizer_for(pruned.config, tokenizer))
    return _gained(original, pruned) | figures | {"output": str(output), "runtime": time.monotonic() - started}


def _loaded(
    model: Model | str | os.PathLike[str], tokenizer: PreTrainedTokenizerFast | None
) -> tuple[Model, PreTrainedTokenizerFast | None]:
    """Return the model and its tokenizer; an encoder without a head as what it is."""
    check_tokenizer("processing_class", tokenizer)
    if not isinstance(model, str | os.PathLike):
        check_model("model", model)
        _ = model.flat_parameters  # raises for a model without them
        return model, tokenizer
    has_head = named_head(read_config(model), language_models=True) is not None
    bare = not has_head and not has_sentence_files(Path(model))
    loaded = load_model(model, head=ENCODER) if bare else load_trained(model)
    return loaded, AutoTokenizer.from_pretrained(model) if tokenizer is None else tokenizer


def _read(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    args: TrainingArguments,
    columns: dict[str, str | None],
) -> Dataset:
    """Return rows as the model reads them, with their texts."""
    return encode_for(config, source, tokenizer_for(config, tokenizer), args, **columns, training=True, keep_texts=True)


def _gained(original: Model, pruned: Model) -> Figures:
    """Return the sizes of both models."""
    sizes = {
        "num_parameters": [model.num_parameters() for model in (original, pruned)],
        "vocab_size": [model.config.vocab_size for model in (original, pruned)],
    }
    of = ("_before", "")
    figures = {f"{name}{which}": size for name, both in sizes.items() for which, size in zip(of, both, strict=True)}
    return figures | {"parameters_kept": figures["num_parameters"] / figures["num_parameters_before"]}
