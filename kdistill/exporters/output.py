"""Where an export is written: one file, or a directory with the files of a model beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..system.files import atomic_path
from ..system.output import added_files, check_new_file, given_path, new_directory
from .format import Format


class Output(NamedTuple):
    """What is to be written; also, under other names, what `writing` yields.

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
            OSError: it cannot be made.
            ValueError: the path is empty.
        """
        path = given_path("output", output)
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
        check_new_file("output", found.file)
        return found

    @contextmanager
    def writing(self, *, keep: bool = False) -> Iterator[Output]:
        """Yield places that take the files, and put these in place when the block ends without an error.

        When it does not, everything is as it was.

        Args:
            keep: whether files of the directory are the model's own, and stay whatever they hold.

        Raises:
            FileExistsError: the directory has the configuration or tokenizer of another model.
        """
        if self.directory is None:
            with atomic_path(self.file) as temporary:
                yield Output(temporary, None)
            return
        into = added_files(self.directory, keep=keep) if self.directory.is_dir() else new_directory(self.directory)
        with into as made:
            file = made / self.file.relative_to(self.directory)
            file.parent.mkdir(exist_ok=True)
            yield Output(file, made)
