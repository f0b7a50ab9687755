"""`kdistill quantize`: an int8 artefact of a trained model, and how much it differs."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..compress.int8 import bytes_of_weights, quantized
from ..hub import public_name
from ..models.auto import load_trained
from ..system.output import check_new_directory
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..train.without_effect import warn_of_arguments_of_other_heads
from .inputs import columns_of, label_table, read_arguments, rows_file, task_of
from .task import check_labels_are_meant, head_settings, with_problem_type


def quantize(options: Namespace) -> dict[str, Any]:
    """Write `--model` in int8 to `--output`, measured before and after on the rows of `--data`."""
    args = read_arguments(TrainingArguments, options)
    check_new_directory("--output", options.output)
    model = load_trained(options.model, **head_settings(options.model, task_of(options)))
    model.config = with_problem_type(model.config, task_of(options), "the model")
    warn_of_arguments_of_other_heads(args, model.head, stacklevel=1)
    rows = rows_file(options.data, options, model.head)
    check_labels_are_meant(model.config, task_of(options), options.model, lambda: label_table(rows))
    figures = quantized(
        model,
        AutoTokenizer.from_pretrained(options.model),
        rows,
        options.output,
        args=args,
        float_embeddings=options.float_embeddings,
        name=public_name(options.model),
        bytes_before=bytes_of_weights(options.model),
        **columns_of(options),
    )
    return {"model": public_name(options.model)} | figures
