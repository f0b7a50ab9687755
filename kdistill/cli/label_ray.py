"""`kdistill label --ray`: processes of Ray answer the rows of files part by part, and each part becomes a file."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..data.files import DataFile, are_token_files
from ..data.shards import ShardDirectory
from ..data.streams import matching_paths, parts_of, stamp_of
from ..data.table import Table
from ..data.token_writer import SHARD_ROWS
from ..system.cluster import Cluster, Outcome
from ..system.names import listing
from ..system.progress import Progress
from ..system.threads import set_num_threads
from ..train.arguments import DistillationTrainingArguments
from .inputs import columns_of, read_arguments, rows_file
from .labelling import Figures, Labelling

ENDING = ".parquet"
_OF_THE_ANSWERS = ("max_length", "doc_stride", "temperature")


class _Part(NamedTuple):
    """Rows that become a shard, and about how many there are in all files, as far as that is known by then."""

    number: int
    table: Table
    total: int


class _Shard(NamedTuple):
    """The content of a file, and how many answers the teacher cache knew."""

    content: bytes
    cached: int


def label_by_ray(options: Namespace) -> Figures:
    """Write the rows of the files of `--data` with the logits of `--teacher` as shards into the directory `--output`.

    Shards that are there and whole are kept, and Ray is not asked where nothing is missing.

    Raises:
        FileExistsError: the directory holds something else, or shards of other files, teachers or options.
        RuntimeError: a part of the rows has ended its process again and again.
        ValueError: rows or options do not fit.
    """
    args, started = read_arguments(DistillationTrainingArguments, options), time.monotonic()
    cluster, shard_rows = Cluster(options.ray_address), options.shard_rows or SHARD_ROWS
    for name in ("shard_rows", "n_jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
    labelling = Labelling(options, args, ENDING)
    files = [rows_file(path, options, labelling.first.head) for path in matching_paths(options.data)]
    for file in files:
        if are_token_files(file.path):
            raise ValueError(f"--data is {file.path}, which holds token files; expected the text they were made of")
    settings = {name: getattr(args, name) for name in _OF_THE_ANSWERS} | columns_of(options)
    sources = {
        "the files of --data, or their time of change": [stamp_of(file) for file in files],
        "the teachers": [labelling.about, labelling.names, options.teacher_weights],
        "options": settings | {"probs": options.probs, "shard_rows": shard_rows},
    }
    shards, written, kept, known = ShardDirectory(Path(options.output), ENDING, sources), dict[int, int](), 0, 0

    def missing(parts: Iterator[_Part]) -> Iterator[_Part]:
        nonlocal kept
        for part in parts:
            if shards.rows(part.number) != len(part.table):
                yield part
                continue
            kept += 1
            written[part.number] = len(part.table)
            progress(sum(written.values()), part.total)

    shown = Progress(f"label, {labelling.teacher}", unit="rows", quiet=args.disable_tqdm)
    with ExitStack() as stack:
        stack.enter_context(shards.opened())
        progress = stack.enter_context(shown)
        todo = missing(_parts(files, shard_rows))
        first = next(todo, None)
        if first is not None:
            stack.enter_context(cluster)
            warned: dict[Any, Any] = {}
            for part, outcome in cluster.each(
                _Labeller,
                (options, args, str(Path.cwd()), labelling.fingerprint),
                "shard",
                _from(first, todo),
                item=lambda part: part.table,
                processes=options.n_jobs or cluster.hosts,
            ):
                shard: _Shard = outcome.here(warned)
                shards.write(part.number, shard.content, len(part.table))
                written[part.number], known = len(part.table), known + shard.cached
                progress(sum(written.values()), max(part.total, sum(written.values())))
        if not written:
            raise ValueError(f"{files[0].path} has no rows")
        shards.finish(len(written))
    return labelling.figures(options, sum(written.values()), known) | {
        "shards": len(written),
        "kept_shards": kept,
        "runtime": time.monotonic() - started,
    }


def _from(first: _Part, others: Iterator[_Part]) -> Iterator[_Part]:
    yield first
    yield from others


def _parts(files: Sequence[DataFile], shard_rows: int) -> Iterator[_Part]:
    """Yield the rows of files in parts, all with the columns of the first one.

    Raises:
        ValueError: rows have a column that the first ones lack.
    """
    sizes = [max(int(stamp_of(file)["size"]), 1) for file in files]
    number, read, columns = 0, 0, list[str]()
    for place, file in enumerate(files):
        for part in parts_of(file, shard_rows):
            table = part.table
            if not len(table):
                continue
            columns = columns or list(table.columns)
            if others := [name for name in table.columns if name not in columns]:
                raise ValueError(
                    f"{table.where(0)}: the rows from here on have {listing(map(repr, others))}, which the rows before "
                    "them lack; expected the same columns in all shards: name them in the first row, too"
                )
            if list(table.columns) != columns:  # rows of JSON leave out what they do not have
                none = [None] * len(table)
                table = replace(table, columns={name: table.columns.get(name, none) for name in columns})
            read += len(table)
            share = (sum(sizes[:place]) + part.share * sizes[place]) / sum(sizes)
            yield _Part(number, table, max(round(read / share), read))
            number += 1


class _Labeller:
    """Answers parts in a process of Ray, with teachers that it loads once."""

    def __init__(
        self, threads: int, options: Namespace, args: DistillationTrainingArguments, directory: str, fingerprint: str
    ) -> None:
        set_num_threads(threads)
        if Path(directory).is_dir():
            os.chdir(directory)  # paths of models may be relative
        args = copy.copy(args)
        args.disable_tqdm = True
        self._labelling = Labelling(options, args, ENDING)
        if self._labelling.fingerprint != fingerprint:
            raise ValueError(f"--teacher {self._labelling.teacher} has other weights on this host")

    def shard(self, table: Table) -> Outcome:
        """Return what comes of labelling rows: a `_Shard`."""
        return Outcome.of(lambda _: self._shard(table))

    def _shard(self, table: Table) -> _Shard:
        rows, cached = self._labelling(table)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"shard{ENDING}")
            rows.write(str(path))
            return _Shard(path.read_bytes(), cached)
