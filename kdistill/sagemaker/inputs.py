"""The rows and models of a job: what lies in its channels, or what a hyperparameter names."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.splits import load_dataset
from ..data.table import Table
from ..models.configuration import CONFIG_FILE
from ..system.files import fingerprint
from ..system.names import listing

MODEL_ARCHIVE = "model.tar.gz"
# The channel -> words with which the name of its file may begin, where there are several.
_FIRST_WORDS = {"train": ("train",), "validation": ("validation", "valid", "dev", "eval", "test")}


def content_of_channel(directory: Path) -> str:
    """Return a SHA-256 of the names and the content of all files in a channel, but hidden ones."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()!r} {fingerprint(path)['sha256']}\n".encode())
    return digest.hexdigest()


def rows_of_channel(name: str, directory: Path) -> Path:
    """Return the file of rows in a channel, or the channel itself where it is a folder of texts.

    Raises:
        FileNotFoundError: it is empty.
        ValueError: it has several files, and not one alone is called by the channel's name.
    """
    entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    files, folders = [entry for entry in entries if entry.is_file()], [entry for entry in entries if entry.is_dir()]
    if len(files) == 1:
        return files[0]
    if not files and len(folders) == 1 and not any(folders[0].glob("*.txt")):
        return rows_of_channel(name, folders[0])  # a prefix of S3 below that of the channel
    if (folders and not files) or (files and all(file.suffix == ".txt" for file in files)):
        return directory
    named = [file for file in files if file.name.lower().startswith(_FIRST_WORDS[name])]
    if len(named) == 1:
        return named[0]
    if not entries:
        raise FileNotFoundError(f"the channel {name!r} is empty; expected a file of rows or a folder of texts in it")
    raise ValueError(
        f"the channel {name!r} has {listing(entry.name for entry in entries)}; expected one file of rows, one called "
        f"{_FIRST_WORDS[name][0]}.*, or a folder of texts"
    )


def rows_of_dataset(dataset_id: str, config: str | None, scratch: Path) -> dict[str, Path]:
    """Write the splits train and validation of a data set as files, and return them by the names of the channels.

    Raises:
        ValueError: it has no split train.
        OSError, ImportError, TypeError: as `load_dataset`.
    """
    splits = load_dataset(dataset_id, config)
    if "train" not in splits:
        raise ValueError(f"the data set {dataset_id!r} has the splits {listing(splits)}; expected train")
    return {name: _written(splits[name], scratch / name) for name in ("train", "validation") if name in splits}


def _written(rows: Any, path: Path) -> Path:
    """Write the rows of a split, of which Parquet keeps the names of the labels too, and return the file."""
    if not isinstance(rows, Table):
        path = path.with_suffix(".parquet")
        rows.to_parquet(path)
        return path
    path = path.with_suffix(".jsonl")
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    return path


def model_of_channel(name: str, directory: Path, scratch: Path) -> Path:
    """Return the model's directory in a channel; a model.tar.gz, as training jobs leave it, is unpacked into `scratch`.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: the archive cannot be unpacked.
    """
    archive = directory / MODEL_ARCHIVE
    if not (directory / CONFIG_FILE).is_file() and archive.is_file():
        directory = scratch / name
        directory.mkdir()
        _unpack(archive, directory)
    found = [path.parent for path in (directory / CONFIG_FILE, *sorted(directory.glob(f"*/{CONFIG_FILE}")))]
    models = [path for path in found if (path / CONFIG_FILE).is_file()]
    if not models:
        raise FileNotFoundError(
            f"the channel {name!r} has no {CONFIG_FILE}; expected a Hugging Face model directory, or a {MODEL_ARCHIVE} "
            "with one"
        )
    return models[0]


def _unpack(archive: Path, directory: Path) -> None:
    """Unpack the files of an archive. Raises `ValueError` for a damaged one, or one that leads out of the directory."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                    raise ValueError(f"{archive} has {member.name!r}; expected files and directories below it alone")
                content = tar.extractfile(member)
                if content is not None:
                    target = directory / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
