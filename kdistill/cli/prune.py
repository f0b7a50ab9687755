"""`kdistill prune`: a smaller model of a trained one."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..compress.choice import SCOPES, check_share
from ..compress.layers import checked_layers
from ..compress.prune import prune as pruned
from ..data.files import DataFile, is_plain_text
from ..data.patterns import matching_paths
from ..hub import public_name
from ..models.auto import AutoConfig, head_of
from ..models.head_names import ENCODER, TOKEN
from ..system.output import check_new_directory
from ..train.arguments import DistillationTrainingArguments
from ..train.chosen_defaults import check_layers
from ..train.without_effect import warn_of_arguments_of_other_heads
from .inputs import columns_of, read_arguments, rows_file
from .recover import check_output, prune_in_rounds

Figures = dict[str, Any]


def prune(options: Namespace) -> Figures:
    """Write a smaller model of `--model` to `--output`; with `--rounds` one that has learned again."""
    _check(options)
    options.output_dir = options.output
    if options.rounds is None:
        check_new_directory("--output", options.output)
    else:
        check_output(options)
    args = read_arguments(DistillationTrainingArguments, options)
    if options.rounds is not None:
        check_layers(args, new=False)
    head = head_of(options.model, language_models=True) or ENCODER
    warn_of_arguments_of_other_heads(args, head, stacklevel=1)
    words, data = options.vocabulary_from, rows_file(options.data, options, head)
    layers = options.first_layers if options.layers is None else _numbers(options.layers)
    if layers is not None:
        count = AutoConfig.from_pretrained(options.model).num_hidden_layers
        checked_layers(layers, count, "--first-layers" if options.layers is None else "--layers")
    asked = {
        "heads": options.heads,
        "feed_forward": options.feed_forward,
        "vocabulary": options.vocabulary if words is None else _texts_file(words, options, head),
        "layers": layers,
        "scope": options.scope or SCOPES[0],
        "rows": options.rows,
        "teacher_model": options.teacher,
        "keep": options.keep,
        "args": args,
        **columns_of(options),
    }

    def one(model: str, output: str | Path, **others: Any) -> Figures:
        return pruned(model, data, output, **(asked | others))

    figures = one(options.model, options.output) if options.rounds is None else prune_in_rounds(options, layers, one)
    return {"model": public_name(options.model)} | figures


def _texts_file(path: str, options: Namespace, head: str) -> DataFile:
    """Return the file whose word pieces are kept: a .txt holds texts, also where one of `--data` has words and tags."""
    of_text = head == TOKEN and is_plain_text(Path(matching_paths(path)[0]))
    return rows_file(path, options, None if of_text else head)


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
    if options.heads is None and options.feed_forward is None:
        for name in ("teacher", "scope", "rows", "rounds"):
            if getattr(options, name) is not None:
                raise ValueError(
                    f"--{name} is {getattr(options, name)}, which is about heads and feed-forward units; expected "
                    "--heads or --feed-forward beside it"
                )
    if options.rounds is None:
        _refuse_unused(options)
    elif options.rounds < 1:
        raise ValueError(f"--rounds is {options.rounds}; expected at least 1")


def _refuse_unused(options: Namespace) -> None:
    """Raise ValueError for an option that does nothing where the pruned model does not learn again."""
    of_loss = () if options.teacher is None else ("alpha", "temperature", "teacher_cache")
    of_rows = () if options.heads is None and options.feed_forward is None else ("seed",)
    used = (*of_loss, *of_rows, "max_length", "doc_stride", "disable_tqdm")
    given = [name for name in ("eval", "resume") if getattr(options, name)]
    given += [field.name for field in fields(DistillationTrainingArguments) if hasattr(options, field.name)]
    for name in given:
        if name not in used:
            or_teacher = ", or --teacher" if name in ("alpha", "temperature", "teacher_cache") else ""
            raise ValueError(
                f"--{name.replace('_', '-')} is given, and the pruned model learns nothing; expected --rounds N, in "
                f"which it is pruned and distilled{or_teacher}"
            )


def _numbers(text: str) -> list[int]:
    """Return the numbers of layers that an option lists."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {text!r}; expected numbers from 0, such as 0,2,5") from None
