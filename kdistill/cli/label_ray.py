"""`kdistill label --ray`: processes of Ray answer the rows of files part by part, and each part becomes a file.

Ray Data carries the parts: one of its tasks reads them beside this process, its actors answer, and this process writes.
All that travels is an `Outcome`, so that errors and warnings arrive here as they would without Ray.
"""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..data.files import DataFile, are_token_files, check_is_there
from ..data.patterns import matching_paths
from ..data.shards import ShardDirectory
from ..data.streams import parts_of, stamp_of
from ..data.table import Table
from ..data.token_encoders import SHARD_ROWS
from ..system.cluster import MAX_ATTEMPTS, Cluster, Outcome, WorkerDiedError, needing_ray, silenced
from ..system.names import listing
from ..system.output import given_path
from ..system.progress import Progress
from ..system.threads import set_num_threads
from ..train.arguments import DistillationTrainingArguments
from ..train.without_effect import warn_of_arguments_of_other_heads
from .inputs import columns_of, read_arguments, rows_file
from .labelling import Figures, Labelling

ENDING = ".parquet"
_OF_THE_ANSWERS = ("max_length", "doc_stride", "temperature")
_OUTCOME = "outcome"
"""The only column of Ray Data's rows."""


class _Part(NamedTuple):
    """Rows that become a shard, and about how many there are in all files, as far as that is known by then."""

    number: int
    table: Table
    total: int


class _Shard(NamedTuple):
    """A part whose rows are answered: the content of its file, None for one that is there and whole.

    Attributes:
        number: of the shard.
        rows: how many it has.
        total: see `_Part`.
        content: of its file.
        cached: how many answers the teacher cache knew.
    """

    number: int
    rows: int
    total: int
    content: bytes | None = None
    cached: int = 0


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
    warn_of_arguments_of_other_heads(args, labelling.first.head, stacklevel=1)
    files = [rows_file(path, options, labelling.first.head) for path in matching_paths(options.data)]
    for file in files:
        if are_token_files(file.path):
            raise ValueError(f"--data is {file.path}, which holds token files; expected the text they were made of")
        check_is_there(Path(file.path))  # for Ray takes half a minute to begin
    settings = {name: getattr(args, name) for name in _OF_THE_ANSWERS} | columns_of(options)
    sources = {
        "the files of --data, or their time of change": [stamp_of(file) for file in files],
        "the teachers": [labelling.about, labelling.names, options.teacher_weights],
        "options": settings | {"probs": options.probs, "shard_rows": shard_rows},
    }
    shards, warned = ShardDirectory(given_path("--output", options.output), ENDING, sources), dict[Any, Any]()
    count, kept, written, known = 0, 0, 0, 0

    shown = Progress(f"label, {labelling.teacher}", unit="rows", quiet=args.disable_tqdm)
    with ExitStack() as stack:
        stack.enter_context(shards.opened())
        progress, whole = stack.enter_context(shown), shards.whole()
        if len(whole) == shards.count:
            outcomes = _kept(whole)
        else:
            stack.enter_context(cluster)
            directory = str(Path.cwd())
            outcomes = _answered(
                cluster,
                partial(_read, files, shard_rows, whole, directory),
                (options, args, directory, labelling.fingerprint),
                options.n_jobs or cluster.hosts,
            )
        for outcome in stack.enter_context(closing(outcomes)):
            shard: _Shard | None = outcome.here(warned)
            if shard is None:
                continue
            if shard.content is not None:
                shards.write(shard.number, shard.content, shard.rows)
            count, kept = count + 1, kept + (shard.content is None)
            written, known = written + shard.rows, known + shard.cached
            progress(written, max(shard.total, written))
        if not count:
            raise ValueError(f"{files[0].path} has no rows")
        shards.finish(count)
    return labelling.figures(options, written, known) | {
        "shards": count,
        "kept_shards": kept,
        "runtime": time.monotonic() - started,
    }


def _kept(whole: Mapping[int, int]) -> Generator[Outcome, None, None]:
    """Yield what comes of each part where all shards are whole."""
    for number, rows in whole.items():
        yield Outcome(_Shard(number, rows, sum(whole.values())), None, [])


def _answered(cluster: Cluster, read: Any, labeller: tuple[Any, ...], processes: int) -> Generator[Outcome, None, None]:
    """Yield what comes of each part, as it comes: a `_Shard`; None behind the last one, for a warning.

    Args:
        cluster: that Ray Data is to use.
        read: yields an `Outcome` for each part.
        labeller: what a `_Labeller` is made of, behind its threads.
        processes: how many answer.

    Raises:
        RuntimeError: a process could not begin, or a part has ended `MAX_ATTEMPTS` of them.
    """
    with needing_ray():
        import pyarrow as pa
        from ray import data
        from ray.data.block import BlockMetadata
        from ray.data.datasource import ReadTask
        from ray.util.annotations import RayDeprecationWarning

    def read_fn() -> Iterator[Any]:
        for outcome in read():
            yield pa.table({_OUTCOME: pa.array([pickle.dumps(outcome)], pa.large_binary())})

    class PartsDatasource(data.Datasource):  # type: ignore[misc]  # which mypy does not see
        supports_distributed_reads = False  # the files need be on this host alone

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read_fn, unknown)]

    with silenced("ray.data"), warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", module=r"ray\.")  # of its own names, and of fewer parts than processes
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # of max_task_retries, see pyproject.toml
        context = data.DataContext.get_current().copy()
        context.target_max_block_size = 1  # so that a part is a block, which goes on as soon as it is read
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a part may take hours
        stack.enter_context(data.DataContext.current(context))
        parts = data.read_datasource(PartsDatasource(), num_cpus=0, override_num_blocks=1).map_batches(
            _Labeller,
            fn_constructor_args=(cluster.threads_each(processes), *labeller),
            batch_size=1,
            batch_format="pyarrow",
            # One part at a time: with an actor that dies another one, which waits for it, would be counted as well.
            compute=data.ActorPoolStrategy(size=processes, max_tasks_in_flight_per_actor=1),
            num_cpus=cluster.cores_each(processes),
            max_restarts=-1,
            max_task_retries=MAX_ATTEMPTS - 1,
        )
        try:
            for batch in parts.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
                yield pickle.loads(batch[_OUTCOME][0].as_py())
        except cluster.ray.exceptions.RayError as raised:
            error = cluster.meaning(raised)
            if isinstance(error, WorkerDiedError):
                error = RuntimeError(f"{MAX_ATTEMPTS} processes died at the same work; the last: {error}")
            raise error from raised


def _read(files: Sequence[DataFile], shard_rows: int, whole: Mapping[int, int], directory: str) -> Iterator[Outcome]:
    """Yield an outcome for each part of the files: a `_Part`, or a `_Shard` for one that is there; None at their end.

    Args:
        files: the files.
        shard_rows: rows of a part, at most.
        whole: the rows of the shards that are there, by number.
        directory: in which the paths are relative.
    """
    with chdir(directory):
        parts = _parts(files, shard_rows)
        while True:
            outcome = Outcome.of(lambda _: next(parts, None))
            part: _Part | None = outcome.value
            if part is not None and whole.get(part.number) == len(part.table):
                outcome = outcome._replace(value=_Shard(part.number, len(part.table), part.total))
            yield outcome
            if part is None:
                return


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
        self._threads, self._options, self._args = threads, options, copy.copy(args)
        self._args.disable_tqdm = True
        self._directory, self._fingerprint = directory, fingerprint
        self._labelling: Labelling | None = None

    def __call__(self, batch: Any) -> dict[str, list[bytes]]:
        """Return what comes of a part, see `_read`, as an outcome of a `_Shard`."""
        read: Outcome = pickle.loads(batch[_OUTCOME][0].as_py())
        if not isinstance(read.value, _Part):
            return {_OUTCOME: [pickle.dumps(read)]}
        end = Outcome.of(lambda _: self._shard(read.value))
        return {_OUTCOME: [pickle.dumps(end._replace(warned=read.warned + end.warned))]}

    def _shard(self, part: _Part) -> _Shard:
        labelling = self._labelling = self._labelling or self._loaded()
        rows, cached = labelling(part.table)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"shard{ENDING}")
            rows.write(str(path))
            return _Shard(part.number, len(part.table), part.total, path.read_bytes(), cached)

    def _loaded(self) -> Labelling:
        set_num_threads(self._threads)
        if Path(self._directory).is_dir():
            os.chdir(self._directory)  # paths of models may be relative
        labelling = Labelling(self._options, self._args, ENDING)
        if labelling.fingerprint != self._fingerprint:
            raise ValueError(f"--teacher {labelling.teacher} has other weights on this host")
        return labelling
