"""`kdistill encode`: rows of text as token files, which `--train` and `--eval` take in place of the text."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from ..data.files import DataFile
from ..text.classes import AutoTokenizer
from ..train.arguments import TrainingArguments
from ..train.token_encoding import encode as encode_files
from .data_files import FORMAT, file_format
from .inputs import columns_of, read_arguments

Figures = dict[str, Any]
_MOST_LABELS = 100  # more are counted alone


def encode(options: Namespace) -> Figures:
    """Write the rows of `--data` as token files into `--output`."""
    args, started = read_arguments(TrainingArguments, options), time.monotonic()
    how = file_format({name: getattr(options, name) for name in FORMAT})
    files = encode_files(
        [DataFile(path, how) for path in options.data],
        AutoTokenizer.from_pretrained(options.tokenizer),
        options.output,
        max_length=args.max_length,
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
        "n": header.rows,
        "tokens": header.tokens,
        "shards": len(header.shards),
        "max_length": header.max_length,
        "truncated": header.cut,
        "bytes": sum(sum(shard.bytes.values()) for shard in header.shards),
        "num_labels": len(header.values),
        "labels": list(header.values) if len(header.values) <= _MOST_LABELS else None,
        "runtime": seconds,
    }
