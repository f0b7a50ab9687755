"""`kdistill export`: a model written for other programs."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

from ..exporters.export import export as write
from ..models.auto import head_of
from ..models.head_names import ENCODER
from ..train.arguments import TrainingArguments
from ..train.without_effect import warn_of_arguments_of_other_heads
from .data_files import FORMAT
from .inputs import columns_of, read_arguments, rows_file


def export(options: Namespace) -> dict[str, Any]:
    """Write `--model` in the format of other programs."""
    written = write(
        options.model, options.output, format=options.format, dtype=options.dtype, **_rows_of(options)
    )._asdict()
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}
    return {"model": options.model, "output": options.output, **listed, "path": str(written["path"])}


def _rows_of(options: Namespace) -> dict[str, Any]:
    """Return the rows that show the ranges of activations, and how they are read.

    Raises:
        ValueError: an option tells how rows are read, and there are none.
    """
    if options.data is None:
        arguments = (field.name for field in fields(TrainingArguments) if field.name != "disable_tqdm")
        of_rows = ("rows", *columns_of(options), *FORMAT, *arguments)
        given = next((name for name in of_rows if getattr(options, name, None) is not None), None)
        if given is not None:
            name = given.replace("_", "-")
            raise ValueError(f"--{name} is given, and --data, whose rows it is about, is not; expected --data FILE")
        return {}
    head = head_of(options.model, language_models=True) or ENCODER
    args = read_arguments(TrainingArguments, options)
    warn_of_arguments_of_other_heads(args, head, stacklevel=1)
    return {
        "data": rows_file(options.data, options, head),
        "rows": options.rows,
        "args": args,
        **columns_of(options),
    }
