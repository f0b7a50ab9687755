"""`load_dataset`: local files as splits of rows, and hub names through the `datasets` package."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import KINDS, read_file
from .table import DatasetDict, Table, listing

# Names of `datasets` for readers of files.
BUILDERS = ("csv", "tsv", "json", "parquet")
# Words at the beginning of a file's name, and the split that they mean.
SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
_SPLIT_OF_NAME = re.compile(rf"({'|'.join(SPLIT_WORDS)})(?![a-z])", re.IGNORECASE)
DataFiles = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def load_dataset(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    data_files: DataFiles | Mapping[str, DataFiles] | None = None,
    split: str | None = None,
    **options: Any,
) -> Any:
    """Load rows by the names of `datasets.load_dataset`.

    Args:
        path: a file; a directory in which, or in whose directory `data`, files' names begin with train, validation
            (valid, dev) or test; "csv", "tsv", "json" or "parquet" with `data_files`; or a name on the hub, such as
            "glue", for which the package `datasets` is needed (extra `[datasets]`).
        name: configuration of a data set of the hub, such as "sst2".
        data_files: a file, several (their rows one after another), a pattern such as "part-*.csv", or a dict of these
            by split; without a dict the split is "train". Files whose names do not end in their kind are of the kind
            `path`.
        split: the split to return, instead of all.
        options: passed on to `datasets.load_dataset`; local files take none.

    Returns:
        For local files a DatasetDict, or with `split` a Table; for the hub the result of `datasets.load_dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file cannot be read, as in `read_file`, or there is no such split.
        TypeError: local files do not take this option.
        ImportError: a name on the hub without `datasets`, or Parquet without pyarrow.
    """
    files = _local_files(path, data_files)
    if files is None:
        return _from_hub(path, name, data_files=data_files, split=split, **options)
    if options or name is not None:
        word = "name" if name is not None else next(iter(options))
        raise TypeError(f"load_dataset takes no {word}= for local files; they are read as {KINDS} by their names")
    if split is not None and split not in files:
        raise ValueError(f"split is {split!r}; the files give {listing(files)}")
    kind = str(path) if path in BUILDERS else None
    if split is not None:
        return _concatenated(files[split], kind)
    return DatasetDict({split_name: _concatenated(paths, kind) for split_name, paths in files.items()})


def _local_files(
    path: str | os.PathLike[str], data_files: DataFiles | Mapping[str, DataFiles] | None
) -> dict[str, list[Path]] | None:
    """Return the files by split, or None when `path` is a name on the hub."""
    directory = Path(path).expanduser()
    if path in BUILDERS:
        if data_files is None:
            raise ValueError(f'load_dataset("{path}") needs data_files=, the files to read')
        directory = Path()
    elif directory.is_file() or directory.suffix:
        return {"train": [directory]}
    elif not directory.is_dir():
        return None
    elif data_files is None:
        return _splits_in(directory)
    by_split = data_files if isinstance(data_files, Mapping) else {"train": data_files}
    return {str(name): _matching(directory, files) for name, files in by_split.items()}


def _splits_in(directory: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {split: [] for split in SPLIT_WORDS.values()}
    for file in sorted([*directory.iterdir(), *(directory / "data").glob("*")]):
        word = _SPLIT_OF_NAME.match(file.name)
        if word and file.is_file():
            files[SPLIT_WORDS[word[1].lower()]].append(file)
    if not any(files.values()):
        raise FileNotFoundError(
            f"{directory} has no file whose name begins with {listing(SPLIT_WORDS)}; name files with data_files="
        )
    return {split: paths for split, paths in files.items() if paths}


def _matching(directory: Path, files: DataFiles) -> list[Path]:
    """Return the files that names or patterns stand for, relative to `directory`."""
    paths: list[Path] = []
    for file in [files] if isinstance(files, (str, os.PathLike)) else files:
        path = directory / Path(file).expanduser()
        found = [path] if path.exists() else sorted(path.parent.glob(path.name))
        if not found:
            raise FileNotFoundError(f"there is no file {str(path)!r}; expected a {KINDS} file")
        paths += found
    return paths


def _concatenated(paths: Sequence[Path], kind: str | None) -> Table:
    tables = [read_file(path, kind) for path in paths]
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            raise ValueError(
                f"{table.source} has the columns {listing(table.columns)}; {first.source} has {listing(first.columns)}"
            )
    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    places = [table.where(row) for table in tables for row in range(len(table))]
    return Table(f"{first.source} and {len(tables) - 1} more", columns, places)


def _from_hub(path: str | os.PathLike[str], name: str | None, **options: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"there is no file or directory {os.fspath(path)!r}; data sets of the hub need the package datasets: "
            'pip install "kdistill[datasets]"'
        ) from error
    return datasets.load_dataset(os.fspath(path), name, **options)
