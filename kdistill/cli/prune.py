"""`kdistill prune`: a smaller model of a trained one."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..compress.prune import prune as pruned
from ..hub import public_name
from ..models.configuration import read_config
from ..models.head_names import ENCODER, named_head
from ..system.output import check_new_directory
from ..train.arguments import TrainingArguments
from .inputs import columns_of, read_arguments, rows_file

Figures = dict[str, Any]


def prune(options: Namespace) -> Figures:
    """Write a smaller model of `--model` to `--output`."""
    args = read_arguments(TrainingArguments, options)
    if options.vocabulary and options.vocabulary_from is not None:
        raise ValueError(
            f"--vocabulary and --vocabulary-from {options.vocabulary_from} are given; expected one of the two: the "
            "pieces of --data, or those of that file"
        )
    if options.keep is not None and not options.vocabulary and options.vocabulary_from is None:
        raise ValueError(f"--keep is {options.keep}; expected --vocabulary or --vocabulary-from FILE beside it")
    if not options.vocabulary and options.vocabulary_from is None:
        raise ValueError("nothing is to be pruned; expected --vocabulary or --vocabulary-from FILE")
    check_new_directory("--output", options.output)
    head = named_head(read_config(options.model), language_models=True) or ENCODER
    other = options.vocabulary_from
    figures = pruned(
        options.model,
        rows_file(options.data, options, head),
        options.output,
        vocabulary=options.vocabulary if other is None else rows_file(other, options, head),
        keep=options.keep,
        args=args,
        **columns_of(options),
    )
    return {"model": public_name(options.model)} | figures
