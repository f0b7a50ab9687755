"""Where an export is written: one file, or a directory with the files of a model beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ..system.files import atomic_path, atomic_write, made_directory, scratch_directory
from .format import Format


class Output(NamedTuple):
    """What is to be written.

    Attributes:
        file: the exported file.
        directory: what gets the configuration and the tokenizer; None: nothing does.
    """

    file: Path
    directory: Path | None

    @classmethod
    def of(cls, output: str | os.PathLike[str], format: Format, dtype: str) -> Output:
        """Return the place that a path means: a file if its name has the ending of the format, else a directory.

        Raises:
            FileExistsError: the file exists.
            FileNotFoundError, NotADirectoryError: it cannot be made.
        """
        path = Path(output)
        if path.name.endswith(format.ending) and not path.is_dir():
            found = cls(path, None)
            if not path.parent.is_dir():
                raise FileNotFoundError(f"output is {str(path)!r}; there is no such directory to write it into")
        elif os.path.lexists(path) and not path.is_dir():
            raise NotADirectoryError(
                f"output is {str(path)!r}, a file; expected a directory, or a new file that ends in {format.ending}"
            )
        else:
            found = cls(path / format.files[dtype], path)
        if os.path.lexists(found.file):
            raise FileExistsError(f"{str(found.file)!r} exists; expected another output, or delete it first")
        return found

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Yield what takes the files, and put them in place when the block ends without an error, the graph last.

        When it does not, everything is as it was.

        Raises:
            OSError: the place cannot be written.
            FileExistsError: the directory has the configuration or tokenizer of another model.
        """
        with ExitStack() as stack:
            try:
                if self.directory is None:
                    beside = self.file
                else:
                    stack.enter_context(made_directory(self.directory))
                    beside = self.directory / "export"
                staged = Writing(stack.enter_context(scratch_directory(beside)))
            except OSError as error:
                why = f"the output cannot be written: {error.strerror}"
                raise type(error)(error.errno, why, os.fspath(self.directory or self.file)) from error
            yield staged
            if self.directory is not None:
                _put(staged.beside, self.directory, keep=staged.keeps)
                stack.enter_context(made_directory(self.file.parent))
            with atomic_path(self.file) as temporary:
                temporary.write_bytes(staged.content)


class Writing:
    """Files on their way.

    Attributes:
        beside: a directory for the files of the model.
        content: of the exported file.
        keeps: whether files of the output directory are the model's own, and stay whatever they hold.
    """

    def __init__(self, beside: Path) -> None:
        self.beside, self.content, self.keeps = beside, b"", False


def _put(staged: Path, directory: Path, *, keep: bool) -> None:
    """Put every file of a directory into another one, unless it is there.

    Raises `FileExistsError`, before any is written, where one is there with another content that is not to be kept.
    """
    missing = []
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        target = directory / path.relative_to(staged)
        if not os.path.lexists(target):
            missing.append((path, target))
        elif not keep and (not target.is_file() or target.read_bytes() != path.read_bytes()):
            raise FileExistsError(f"{str(target)!r} exists, and is of another model; expected another output")
    for path, target in missing:
        target.parent.mkdir(exist_ok=True)
        atomic_write(target, path.read_bytes())
