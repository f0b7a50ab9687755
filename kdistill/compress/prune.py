"""`prune`: a smaller model of a trained one, in a directory of its own."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.columns import read_rows
from ..data.dataset import Dataset, encode
from ..data.files import is_plain_text
from ..data.sources import read_table
from ..data.text_files import PLAIN_TEXT_COLUMN
from ..data.token_files import token_files_of
from ..distill.making import teachers_of
from ..distill.objective import Distillation
from ..models.auto import head_of, load_model, load_trained
from ..models.configuration import Config
from ..models.flops import forward_flops
from ..models.head_names import ENCODER, SPAN
from ..models.model import Model, check_model
from ..system.callers import level_outside
from ..system.output import check_new_directory, new_directory
from ..system.progress import Progress
from ..text.classes import AutoTokenizer
from ..text.tokenizer import PreTrainedTokenizerFast, check_tokenizer
from ..train.arguments import DistillationTrainingArguments
from ..train.checkpoint import save_model
from ..train.encoding import encode_for, tokenizer_beside, tokenizer_for
from ..train.objective import Objective, RunData, Supervised
from .choice import SCOPES, check_share, kept_parts
from .feed_forward import with_units
from .heads import with_heads
from .importance import importance
from .layers import checked_layers, with_layers
from .vocabulary import kept_vocabulary, rows_of, same_rows, with_vocabulary

_WHOLE = 1 << 30  # tokens, more than a text has

Figures = dict[str, Any]
AnyModel = Model | str | os.PathLike[str]
ROWS = 512
"""How many rows tell what heads and units matter, where nothing else is asked for."""


def prune(
    model: AnyModel,
    data: Any,
    output: str | os.PathLike[str],
    *,
    heads: float | None = None,
    feed_forward: float | None = None,
    vocabulary: bool | Any = False,
    layers: Sequence[int] | int | None = None,
    scope: str = "layer",
    rows: int | None = None,
    teacher_model: AnyModel | None = None,
    keep: int | None = None,
    processing_class: PreTrainedTokenizerFast | None = None,
    teacher_processing_class: PreTrainedTokenizerFast | None = None,
    args: DistillationTrainingArguments | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> Figures:
    """Write a smaller model of a trained one.

    Layers are left out first, then the attention heads and feed-forward units that matter least for the loss on rows
    of `data` (see `importance.importance`), then word pieces. Heads and units that are gone are not computed. With
    `vocabulary` only the pieces stay that occur in texts, and those that spell any other text: rows whose pieces all
    stay have the same logits, bit for bit. Where nothing goes, the model is written as it was, with a warning.

    Args:
        model: the model, or its directory or hub id.
        data: training rows, in any form that a trainer takes: never those that the model is measured on.
        output: the directory to make; it must not be there, or be empty.
        heads: the share of attention heads to keep, above 0 and at most 1 (default: all).
        feed_forward: likewise of feed-forward units. Where every layer keeps as many, and all heads, transformers opens
            the directory.
        vocabulary: True: keep the pieces of `data`; or other rows, in any form, whose pieces are kept, for every task
            also plain texts, a list or a .txt file with one a line; False: keep all.
        layers: numbers of the layers to keep, from 0, in their new order; or how many of the first.
        scope: "layer": each layer keeps the shares; "global": all layers together do.
        rows: how many rows tell what heads and units matter, drawn by `args.seed` from all, or from those with a label
            (default: 512, or all that there are).
        teacher_model: who teaches the loss beside the labels, `args.alpha` and `args.temperature`: a model, or its
            directory or hub id (default: the loss of the labels).
        keep: of the pieces of `vocabulary` the most frequent ones (default: all that occur).
        processing_class: the tokenizer (default: the one in the model's directory, also in that which a model object
            was read from).
        teacher_processing_class: likewise of the teacher.
        args: how rows are read (`max_length`, `doc_stride`; default: as the model was trained), and the loss.
        text_column: of `data` (default: as the model was trained, else by their names).
        text_pair_column: likewise.
        label_column: likewise.

    Returns:
        Figures: `output`; `num_parameters` and `vocab_size`, each also with `_before`, and the share
        `parameters_kept`; `operations_kept`, the share of the products' operations on the rows; `heads` and
        `feed_forward` of each layer; with `vocabulary`, of how many of the `n` rows of `data` all pieces stayed,
        `rows_with_same_tokens`.

    Raises:
        ValueError: nothing is asked for, a layer would have no heads or units left, no row has a label and there is no
            teacher, or arguments do not fit each other or the model.
        FileExistsError: `output` holds something.
        RuntimeError: the model holds no float32 weights.
        TypeError: a share is no number.
    """
    started = time.monotonic()
    _check(heads, feed_forward, vocabulary, layers, scope, rows, keep)
    if heads is None and feed_forward is None and (teacher_model is not None or (scope, rows) != (SCOPES[0], None)):
        raise ValueError(
            "teacher_model, scope or rows is given, and neither heads nor feed_forward, which they are about"
        )
    if teacher_processing_class is not None and teacher_model is None:
        raise ValueError("teacher_processing_class is given, and teacher_model is None; expected both, or neither")
    columns = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    check_new_directory("output", output)
    args = args or DistillationTrainingArguments(disable_tqdm=True)
    original, tokenizer = _loaded("model", model, "processing_class", processing_class)
    pruned, figures = original, Figures()
    if layers is not None:
        layers = checked_layers(layers, pruned.config.num_hidden_layers)
        pruned = with_layers(pruned, layers)
    objective: Objective = Supervised()
    if teacher_model is not None:
        teacher = _loaded("teacher_model", teacher_model, "teacher_processing_class", teacher_processing_class)
        objective = Distillation(teachers_of(*teacher))
    if vocabulary is not False and token_files_of(data) is not None:
        raise ValueError(
            f"vocabulary is given, and {os.fspath(data)} holds token files, while texts are cut anew with another "
            "vocabulary; expected the file that they were made of"
        )
    reader = objective.reader(tokenizer, pruned.config)
    texts_too = vocabulary is not False or objective.needs_texts(reader, pruned.config)
    read = _read(pruned.config, data, reader, args, columns, texts_too)
    if heads is not None or feed_forward is not None:
        pruned = _without_least(pruned, tokenizer, read, objective, (heads, feed_forward, scope, rows), args)
    if vocabulary is not False:
        if tokenizer is None:
            raise ValueError("processing_class is None; expected the tokenizer, whose vocabulary is pruned")
        texts = read if vocabulary is True else _read_texts(original.config, vocabulary, tokenizer, args, columns)
        kept = kept_vocabulary(texts, tokenizer, original.config, keep)
        pruned = with_vocabulary(pruned, kept.ids)
        tokenizer, same = kept.tokenizer, rows_of(read, kept.ids)
        if not isinstance(data, Dataset) and (read.column_use is None or "input_ids" not in read.column_use.texts):
            same = same_rows(read, _read(pruned.config, data, tokenizer, args, columns), kept.ids)
        figures |= {"n": len(read), "rows_with_same_tokens": same}
    with new_directory(output) as directory:
        save_model(directory, pruned, tokenizer_for(pruned.config, tokenizer))
    figures = _gained(original, pruned, read) | figures
    in_order = layers is None or layers == [*range(original.config.num_hidden_layers)]
    if in_order and figures["num_parameters"] == figures["num_parameters_before"]:
        _warn_that_nothing_went(heads, feed_forward, layers, pruned.config, vocabulary, output)
    return figures | {"output": str(output), "runtime": time.monotonic() - started}


def _check(
    heads: float | None,
    feed_forward: float | None,
    vocabulary: bool | Any,
    layers: Sequence[int] | int | None,
    scope: str,
    rows: int | None,
    keep: int | None,
) -> None:
    """Raise ValueError for arguments that are wrong whatever the model is."""
    if keep is not None and vocabulary is False:
        raise ValueError(f"keep is {keep} and vocabulary False; expected vocabulary=True, or the texts to count in")
    if heads is None and feed_forward is None and layers is None and vocabulary is False:
        raise ValueError("nothing is to be pruned; expected heads, feed_forward, layers or vocabulary")
    check_share("heads", heads)
    check_share("feed_forward", feed_forward)
    if scope not in SCOPES:
        raise ValueError(f"scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}; expected at least 1")


def _warn_that_nothing_went(
    heads: float | None,
    feed_forward: float | None,
    layers: Sequence[int] | int | None,
    config: Config,
    vocabulary: bool | Any,
    output: str | os.PathLike[str],
) -> None:
    """Warn that the output is the model as it was, and why; `config` is that of both."""
    shares = {"attention heads": heads, "feed-forward units": feed_forward}
    why = [f"a share of {share:g} of the {what} is all of them" for what, share in shares.items() if share is not None]
    if layers is not None:
        why.append(f"all {config.num_hidden_layers} layers are kept")
    if vocabulary is not False:
        why.append(f"all {config.vocab_size} word pieces occur in the texts, or spell others")
    warnings.warn(
        f"nothing was pruned, and {os.fspath(output)} holds the model as it was: {', '.join(why)}; expected a smaller "
        "share, fewer layers or fewer pieces",
        stacklevel=level_outside(),
    )


def _without_least(
    model: Model,
    tokenizer: PreTrainedTokenizerFast | None,
    rows: Dataset,
    objective: Objective,
    asked: tuple[float | None, float | None, str, int | None],
    args: DistillationTrainingArguments,
) -> Model:
    """Return the model without the heads and units that matter least; `asked` are the shares, the scope and rows."""
    heads, feed_forward, scope, most = asked
    config = model.config
    if isinstance(objective, Distillation):
        objective.adapt(config)
        objective.teachers.check_student(model, objective.reader(tokenizer, config))
    if config.head == ENCODER and isinstance(objective, Supervised):
        raise ValueError(
            "teacher_model is not given, and the model has no loss of labels; expected a teacher, which tells what "
            "matters"
        )
    drawn = _rows_that_tell(rows, objective, most, args.get_data_seed())
    objective.prepare(RunData(drawn, None), args, config)
    with Progress("importance", unit="rows", quiet=args.disable_tqdm) as progress:
        found = importance(model, drawn, objective, args, progress)
    kept_heads = heads if heads is None else kept_parts(found.heads, heads, scope, "heads", "attention heads")
    if feed_forward is not None:
        units = kept_parts(found.units, feed_forward, scope, "feed_forward", "feed-forward units")
        model = with_units(model, units)
    return model if kept_heads is None else with_heads(model, kept_heads)


def _rows_that_tell(rows: Dataset, objective: Objective, asked: int | None, seed: int) -> Dataset:
    """Return a sample of the rows that the objective has a loss for, with a warning where they are fewer than asked."""
    places = np.arange(len(rows))
    if objective.needs_labels and rows.masking is None:
        places = np.flatnonzero(rows.have_labels())
        if not len(places):
            raise ValueError(
                "no row has a label, which tells what heads and units matter; expected labels, or a teacher "
                "(--teacher, teacher_model=)" + rows.why_no_labels()
            )
    most = ROWS if asked is None else asked
    if asked is not None and len(places) < asked:
        labelled = "" if len(places) == len(rows) else " with a label"
        warnings.warn(
            f"rows is {asked}, and data has only {len(places)}{labelled}: all of them tell what heads and units matter",
            stacklevel=level_outside(),
        )
    if len(places) > most:
        generator = np.random.Generator(np.random.Philox(seed))
        places = np.sort(generator.choice(places, most, replace=False))
    return rows.take(places)


def _loaded(
    name: str, model: AnyModel, named: str, tokenizer: PreTrainedTokenizerFast | None
) -> tuple[Model, PreTrainedTokenizerFast | None]:
    """Return a model and its tokenizer; an encoder without a head as what it is. The names are those of arguments."""
    check_tokenizer(named, tokenizer)
    if not isinstance(model, str | os.PathLike):
        check_model(name, model)
        _ = model.flat_parameters  # raises for a model without them
        return model, tokenizer_beside(model) if tokenizer is None else tokenizer
    bare = head_of(model, language_models=True) is None
    # Float32 also of a model that is stored in int8; what is frozen by it is only read.
    loaded = load_model(model, head=ENCODER, dtype="float32") if bare else load_trained(model, dtype="float32")
    return loaded, AutoTokenizer.from_pretrained(model) if tokenizer is None else tokenizer


def _read(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    args: DistillationTrainingArguments,
    columns: dict[str, str | None],
    texts_too: bool = True,
) -> Dataset:
    """Return rows as the model reads them, with their texts where these are needed."""
    reader = tokenizer_for(config, tokenizer)
    return encode_for(config, source, reader, args, **columns, training=True, keep_texts=texts_too)


def _read_texts(
    config: Config,
    source: Any,
    tokenizer: PreTrainedTokenizerFast,
    args: DistillationTrainingArguments,
    columns: dict[str, str | None],
) -> Dataset:
    """Return the rows whose pieces are kept: those of the model's task, or for one that answers questions texts alone.

    All other models read texts without more. Nothing of a text is cut off here, for its pieces are all that is asked.
    """
    listed = isinstance(source, list | tuple) and all(isinstance(text, str) for text in source)
    named = isinstance(source, str | os.PathLike) and is_plain_text(Path(source))
    if config.head == SPAN and (listed or named):
        table = read_table(source)
        if [*table.columns] == [PLAIN_TEXT_COLUMN]:
            return encode(read_rows(table), tokenizer, max_length=_WHOLE, keep_texts=True)
    return _read(config, source, tokenizer, args, columns)


def _gained(original: Model, pruned: Model, rows: Dataset) -> Figures:
    """Return the sizes of both models, and what is left."""
    sizes = {
        "num_parameters": [model.num_parameters() for model in (original, pruned)],
        "vocab_size": [model.config.vocab_size for model in (original, pruned)],
    }
    of = ("_before", "")
    figures: Figures = {
        f"{name}{which}": size for name, both in sizes.items() for which, size in zip(of, both, strict=True)
    }
    work = [forward_flops(model.config, rows.lengths) for model in (original, pruned)]
    shapes = pruned.config.layer_shapes()
    return figures | {
        "parameters_kept": figures["num_parameters"] / figures["num_parameters_before"],
        "operations_kept": work[1] / work[0],
        "heads": [shape.heads for shape in shapes],
        "feed_forward": [shape.feed_forward for shape in shapes],
    }
