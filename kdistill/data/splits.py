"""`load_dataset`: local files as splits of rows, and hub names through the `datasets` package."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..system.names import did_you_mean, listing
from .class_names import class_names_of_features
from .files import KINDS, FileFormat, are_token_files, file_and_field, read_file, read_files
from .patterns import check_each_once, joined, matching_paths
from .split_slices import parse_split
from .table import DatasetDict, Table
from .token_files import TokenFiles

# Names of `datasets` for readers of files.
BUILDERS = ("csv", "tsv", "json", "parquet")
# Words at the beginning of a file's name, and the split that they mean.
SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
_SPLIT_OF_NAME = re.compile(rf"({'|'.join(SPLIT_WORDS)})(?![a-z])", re.IGNORECASE)
DataFiles = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
# Options of `datasets` about how files are read, and about how it works, which a local file has no use for.
_OF_FILES = (
    "sep", "delimiter", "quoting", "quotechar", "header", "names", "column_names", "columns", "field", "encoding",
    "features", "data_dir",
)  # fmt: skip
_IGNORED = (
    "cache_dir", "download_config", "download_mode", "verification_mode", "ignore_verifications", "keep_in_memory",
    "save_infos", "revision", "token", "use_auth_token", "trust_remote_code", "streaming", "num_proc",
    "storage_options", "chunksize", "block_size", "use_threads", "engine", "low_memory", "memory_map",
)  # fmt: skip
_UNQUOTED = 3  # csv.QUOTE_NONE; the other numbers of `quoting` are read alike


def load_dataset(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    data_files: DataFiles | Mapping[str, DataFiles] | None = None,
    split: Any = None,
    **options: Any,
) -> Any:
    """Load rows by the names of `datasets.load_dataset`.

    Args:
        path: a file; a directory in which, or in whose directory `data`, files' names begin with train, validation
            (valid, dev) or test; a folder of texts, see `folders.read_folder`, or one that holds such folders called
            so; a directory that `kdistill encode` has written; "csv", "tsv", "json" or "parquet" with `data_files`; or
            a name on the hub, such as "glue", for which the package `datasets` is needed (extra `[datasets]`).
        name: configuration of a data set of the hub, such as "sst2".
        data_files: a file, several (their rows one after another), a pattern such as "part-*.csv", or a dict of these
            by split; without a dict the split is "train". Files whose names do not end in their kind are of the kind
            `path`.
        split: the split to return, instead of all; or a part of it, "train[:10%]", "train[100:200]", or parts together,
            "train[:50]+test"; or a list of these, for a list of results.
        options: passed on to `datasets.load_dataset`. Local files take those about files: `sep` or `delimiter`,
            `quoting` (3, csv.QUOTE_NONE, is the default of a TSV, 0 that of a CSV and where a delimiter is given),
            `column_names` or `columns` (for a file without a header, or a JSON file of lists), `field` (of a JSON
            object), `encoding`, `data_dir` and `features` (of which the names of class labels are used). Those about
            caches and downloads are ignored with a warning.

    Returns:
        For local files a DatasetDict, or with `split` a Table; of token files a `TokenFiles`; for the hub the
        result of `datasets.load_dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file cannot be read, as in `read_file`, or there is no such split.
        TypeError: local files do not take this option.
        ImportError: a name on the hub without `datasets`, or Parquet without pyarrow.
    """
    if are_token_files(path):
        others = {**options, "name": name, "data_files": data_files, "split": split}
        word = next((word for word, value in others.items() if value is not None), None)
        if word is not None:
            raise TypeError(f"load_dataset takes no {word}= for {os.fspath(path)}, which holds token files")
        return TokenFiles(path)
    files = _local_files(path, data_files, options.get("data_dir"))
    if files is None:
        return _from_hub(path, name, data_files=data_files, split=split, **options)
    given = {option: value for option, value in options.items() if value is not None}
    unknown = next((option for option in given if option not in (*_OF_FILES, *_IGNORED)), None)
    if unknown is not None or name is not None:
        asked = "name" if name is not None else unknown
        raise TypeError(
            f"load_dataset takes no {asked}= for local files{did_you_mean(str(asked), _OF_FILES)}; they are read as "
            f"{KINDS} by their names, with {listing(f'{option}=' for option in _OF_FILES)}"
        )
    ignored = [option for option in given if option in _IGNORED and given[option] is not False]
    if ignored:
        warnings.warn(f"load_dataset reads local files whole and ignores {listing(ignored)}", stacklevel=2)
    how = _format(str(path) if path in BUILDERS else None, {"header": options.get("header", "infer"), **given})
    splits = _LocalSplits(files, how, class_names_of_features(given.get("features")))
    if isinstance(split, (list, tuple)):
        return [splits.part(one) for one in split]
    return splits.all_of_them() if split is None else splits.part(split)


class _LocalSplits:
    """Splits that consist of files, each read when it is first asked for.

    Args:
        files: by split.
        how: the files' format.
        class_names: names of the labels by column, as in `Table`.
    """

    def __init__(
        self, files: Mapping[str, Sequence[Path]], how: FileFormat, class_names: Mapping[str, Sequence[str]]
    ) -> None:
        self._files, self._how, self._class_names = files, how, class_names
        self._tables: dict[str, Table] = {}

    def all_of_them(self) -> DatasetDict:
        """Return every split by name."""
        return DatasetDict({name: self._table(name) for name in self._files})

    def part(self, wanted: Any) -> Table:
        """Return the rows of a split or of slices, see `split_slices.parse_split`. Raises ValueError for an unknown."""
        slices = parse_split(str(wanted))  # also of the classes that datasets has for splits
        if str(wanted) == "all" and "all" not in self._files:
            return _one_after_another(list(self.all_of_them().values()))
        for one in slices:
            if one.split not in self._files:
                raise ValueError(f"split is {str(wanted)!r}; the files give {listing(self._files)}")
        whole = [(one, self._table(one.split)) for one in slices]
        return _one_after_another(
            [table if one.first is one.stop is None else table.select(one.rows(len(table))) for one, table in whole]
        )

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            files = self._files[name]
            rows = read_file(files[0], self._how) if len(files) == 1 else read_files(files, self._how, _called(files))
            self._tables[name] = rows.with_class_names(self._class_names)
        return self._tables[name]


def _format(kind: str | None, given: Mapping[str, Any]) -> FileFormat:
    """Return the format that options of `datasets` describe. Raises ValueError for what no file is read with here."""
    delimiter = given.get("delimiter", given.get("sep"))
    names = given.get("column_names", given.get("names", given.get("columns")))
    quoting = given.get("quoting", 0 if delimiter is not None else None)
    if given.get("quotechar", '"') != '"':
        raise ValueError(f"quotechar is {given['quotechar']!r}; expected '\"', the only one that is read")
    header = given.get("header", "infer")
    if (header != "infer" and (header is None) != (names is not None)) or header not in ("infer", 0, None):
        raise ValueError(
            f"header is {header!r}; leave it out for a file with a header line, and name the columns of one without by "
            "column_names="
        )
    quoted = None if quoting is None else quoting != _UNQUOTED
    return FileFormat(kind, delimiter, quoted, names, given.get("field"), given.get("encoding", "utf-8"))


def _local_files(
    path: str | os.PathLike[str],
    data_files: DataFiles | Mapping[str, DataFiles] | None,
    data_dir: str | os.PathLike[str] | None,
) -> dict[str, list[Path]] | None:
    """Return the files by split, or None when `path` is a name on the hub."""
    directory = Path() if path in BUILDERS else Path(path).expanduser()
    if path in BUILDERS:
        if data_files is None and data_dir is None:
            raise ValueError(f'load_dataset("{path}") needs data_files=, the files to read')
        directory = Path("" if data_dir is None else data_dir).expanduser()
        if data_files is None:
            return _splits_in(directory)
    elif directory.is_file() or directory.suffix:
        return {"train": [directory]}
    elif not directory.is_dir():
        return None
    else:
        directory = directory / ("" if data_dir is None else data_dir)
        if data_files is None:
            return _splits_in(directory)
    by_split = data_files if isinstance(data_files, Mapping) else {"train": data_files}
    return {str(name): _matching(directory, files) for name, files in by_split.items()}


def _splits_in(directory: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {split: [] for split in SPLIT_WORDS.values()}
    for file in sorted([*directory.iterdir(), *(directory / "data").glob("*")]):
        word = _SPLIT_OF_NAME.match(file.name)
        if word and (file.is_file() or word[1] == file.name):
            files[SPLIT_WORDS[word[1].lower()]].append(file)
    if not any(files.values()) and any(directory.glob("*/*.txt")):
        return {"train": [directory]}  # a folder of texts
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
        found = list(map(Path, matching_paths(str(path))))
        if not file_and_field(found[0])[0].exists():
            raise FileNotFoundError(f"there is no file {str(path)!r}; expected a {KINDS} file")
        paths += found
    check_each_once(list(map(str, paths)))
    return paths


def _one_after_another(tables: Sequence[Table]) -> Table:
    return joined(tables, _called([table.source for table in tables]))


def _called(sources: Sequence[str | Path]) -> str:
    """Return what messages call several sources together."""
    return f"{sources[0]} and {len(sources) - 1} more"


def _from_hub(path: str | os.PathLike[str], name: str | None, **options: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"there is no file or directory {os.fspath(path)!r}; data sets of the hub need the package datasets: "
            'pip install "kdistill[datasets]"'
        ) from error
    return datasets.load_dataset(os.fspath(path), name, **options)
