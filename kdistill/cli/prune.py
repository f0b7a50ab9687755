"""`kdistill prune`: a smaller model of a trained one."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..compress.choice import check_share
from ..compress.prune import prune as pruned
from ..hub import public_name
from ..models.configuration import read_config
from ..models.head_names import ENCODER, named_head
from ..system.output import check_new_directory
from ..train.arguments import DistillationTrainingArguments
from .inputs import columns_of, read_arguments, rows_file

Figures = dict[str, Any]


def prune(options: Namespace) -> Figures:
    """Write a smaller model of `--model` to `--output`."""
    _check(options)
    args = read_arguments(DistillationTrainingArguments, options)
    check_new_directory("--output", options.output)
    head = named_head(read_config(options.model), language_models=True) or ENCODER
    other = options.vocabulary_from
    figures = pruned(
        options.model,
        rows_file(options.data, options, head),
        options.output,
        heads=options.heads,
        feed_forward=options.feed_forward,
        vocabulary=options.vocabulary if other is None else rows_file(other, options, head),
        layers=options.first_layers if options.layers is None else _numbers(options.layers),
        scope=options.scope,
        rows=options.rows,
        teacher_model=options.teacher,
        keep=options.keep,
        args=args,
        **columns_of(options),
    )
    return {"model": public_name(options.model)} | figures


def _check(options: Namespace) -> None:
    """Raise ValueError, under the names of the options, for those that do not fit each other."""
    words = options.vocabulary or options.vocabulary_from is not None
    if options.vocabulary and options.vocabulary_from is not None:
        raise ValueError(
            f"--vocabulary and --vocabulary-from {options.vocabulary_from} are given; expected one of the two: the "
            "pieces of --data, or those of that file"
        )
    if options.keep is not None and not words:
        raise ValueError(f"--keep is {options.keep}; expected --vocabulary or --vocabulary-from FILE beside it")
    if options.layers is not None and options.first_layers is not None:
        raise ValueError(
            f"--layers {options.layers} and --first-layers {options.first_layers} are given; expected one of the two"
        )
    asked = (options.heads, options.feed_forward, options.layers, options.first_layers)
    if not words and all(given is None for given in asked):
        raise ValueError(
            "nothing is to be pruned; expected --heads, --feed-forward, --layers, --first-layers, --vocabulary or "
            "--vocabulary-from FILE"
        )
    check_share("--heads", options.heads)
    check_share("--feed-forward", options.feed_forward)
    if options.teacher is not None and options.heads is None and options.feed_forward is None:
        raise ValueError(
            f"--teacher is {options.teacher}, and tells what heads and feed-forward units matter; expected --heads or "
            "--feed-forward beside it"
        )


def _numbers(text: str) -> list[int]:
    """Return the numbers of layers that an option lists."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {text!r}; expected numbers from 0, such as 0,2,5") from None
