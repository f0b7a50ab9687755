"""Read a folder of texts: a document a file, in folders named by their labels, as `sklearn.load_files` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .table import Table
from .text_files import PLAIN_TEXT_COLUMN, decoded

_LAYOUT = "a folder of texts, with a document a file: FOLDER/label/*.txt, or FOLDER/*.txt without labels"


def read_folder(folder: Path, encoding: str = "utf-8") -> Table:
    """Return a row for each document of a folder, in the order of the names of labels and files.

    The folders in it are the labels; of their files those that end in .txt are read, or all where none does. Where it
    holds no folders with files, the .txt files in it are texts without a label. Names that begin with a dot are left
    out.

    Args:
        folder: the folder.
        encoding: of the documents.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: a document is not in this encoding; names it, with its line.
    """
    by_label = {entry.name: _files(entry) for entry in _visible(folder) if entry.is_dir()}
    documents = [(file, label) for label, files in by_label.items() for file in files]
    texts_alone = [(file, label) for file, label in documents if file.suffix == ".txt"]
    chosen = texts_alone or documents
    unlabelled = [file for file in _files(folder) if file.suffix == ".txt"]
    files = [file for file, _ in chosen] or unlabelled
    if not files:
        raise FileNotFoundError(f"{folder} is a directory; name a file in it, or {_LAYOUT}")
    columns = {PLAIN_TEXT_COLUMN: [decoded(file, file.read_bytes(), encoding) for file in files]}
    if chosen:
        columns["label"] = [label for _, label in chosen]
    return Table(str(folder), columns, list(map(str, files)))


def _visible(folder: Path) -> Iterable[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_file()]
