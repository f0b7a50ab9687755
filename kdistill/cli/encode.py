"""`kdistill encode`: rows of text as token files, which `--train` and `--eval` take in place of the text."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from ..tasks.registry import TASK_OPTIONS
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..train.token_encoding import encode as encode_files
from .inputs import columns_of, read_arguments, rows_file

Figures = dict[str, Any]
_MOST_LABELS = 100  # more are counted alone


def encode(options: Namespace) -> Figures:
    """Write the rows of `--data` as token files into `--output`."""
    args, started = read_arguments(TrainingArguments, options), time.monotonic()
    head = None if options.task is None else TASK_OPTIONS[options.task]
    files = encode_files(
        [rows_file(path, options, head) for path in options.data],
        AutoTokenizer.from_pretrained(options.tokenizer),
        options.output,
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        task=options.task,
        problem_type=options.problem_type,
        keep_texts=options.keep_texts,
        shard_rows=options.shard_rows,
        quiet=args.disable_tqdm,
        **columns_of(options),
    )
    header, seconds = files.header, time.monotonic() - started
    return {
        "output": options.output,
        "n": header.examples if files.are_windows else header.rows,
        "windows": header.rows if files.are_windows else None,
        "tokens": header.tokens,
        "shards": len(header.shards),
        "max_length": header.max_length,
        "truncated": 0 if files.are_windows else header.cut,
        "bytes": sum(sum(shard.bytes.values()) for shard in header.shards),
        "num_labels": len(header.values),
        "labels": list(header.values) if len(header.values) <= _MOST_LABELS else None,
        "runtime": seconds,
    }
