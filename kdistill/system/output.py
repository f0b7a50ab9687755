"""Write a file that the user named: also a pipe, a device, or what a link leads to, none of which may be replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import atomic_path, made_directory, scratch_directory, sync_directory

_OPEN_FILE = re.compile(r"/dev/(std(in|out|err)|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")


@contextmanager
def open_output(path: str | os.PathLike[str], *, binary: bool = False) -> Iterator[Any]:
    """Open a file for text in UTF-8, and put it in place whole when the block ends without an error.

    A pipe, a device or an open file of the process (`/dev/stdout`, `/dev/fd/3`) is written into, behind what it holds.
    Of a symbolic link, the file that it leads to is written.

    Args:
        path: the file; its directory must exist.
        binary: open it for bytes instead.

    Raises:
        OSError: writing failed; names the file.
    """
    kind, encoding = ("b", None) if binary else ("", "utf-8")
    try:
        if is_stream(path):
            with Path(path).open(f"a{kind}", encoding=encoding) as file:
                yield file
        else:
            with (
                atomic_path(os.path.realpath(path)) as temporary,
                temporary.open(f"w{kind}", encoding=encoding) as file,
            ):
                yield file
    except BrokenPipeError:  # the reader has read enough
        raise
    except OSError as error:
        if error.filename is None:
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
        raise


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a path leads to no regular file, or to an open file of the process, whatever that is."""
    step, seen = Path(path).absolute(), set[Path]()
    while step not in seen:
        if _OPEN_FILE.fullmatch(str(step)):
            return True
        seen.add(step)
        if step.is_symlink():
            step = step.parent / step.readlink()
    return Path(path).exists() and not Path(path).is_file()


def given_path(option: str, path: str | os.PathLike[str]) -> Path:
    """Return the path of an output that the user named.

    Args:
        option: the name of the argument, for messages.
        path: what is to be written.

    Raises:
        ValueError: it is empty, which `Path` takes for the working directory.
    """
    if not os.fspath(path):
        raise ValueError(f"{option} is '', which names nothing to write; expected a path, or . for the directory here")
    return Path(path)


def check_output(option: str, path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise, before any work, for a path that is not to be written.

    Args:
        option: the name of the argument, for messages.
        path: the file to write.
        inputs: files, and directories of files, that are read for it.

    Raises:
        IsADirectoryError, FileNotFoundError: it cannot become a file.
        ValueError: it is empty, or one of the inputs.
    """
    if given_path(option, path).is_dir():
        raise IsADirectoryError(f"{option} is {str(path)!r}, a directory; expected the file to write")
    if not is_stream(path) and not Path(os.path.realpath(path)).parent.is_dir():
        raise FileNotFoundError(f"{option} is {str(path)!r}; there is no such directory to write it into")
    read = [file for of in map(Path, inputs) for file in (of.iterdir() if of.is_dir() else [of])]
    if Path(path).is_file() and any(file.is_file() and file.samefile(path) for file in read):
        raise ValueError(f"{option} is {str(path)!r}, which this command reads; choose another file")


def check_new_directory(option: str, path: str | os.PathLike[str]) -> None:
    """Raise, before any work, for a path that cannot become a new directory; an empty one may be there.

    Args:
        option: the name of the argument, for messages.
        path: the directory to make.

    Raises:
        FileExistsError: it holds something, is a file, or is the working directory, in whose place none can be put.
        OSError: it cannot be created.
        ValueError: it is empty.
    """
    target = given_path(option, path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        kind = "holds files" if target.is_dir() else "is a file"
        raise FileExistsError(f"{option} is {str(path)!r}, which {kind}; expected a new directory")
    if target.exists() and target.samefile(Path.cwd()):
        raise FileExistsError(
            f"{option} is {str(path)!r}, which exists and is the working directory; expected a new directory"
        )
    _check_writable(option, target)


def check_new_file(option: str, path: str | os.PathLike[str]) -> None:
    """Raise, before any work, for a path that cannot become a new file, with its directory where that is missing.

    Args:
        option: the name of the argument, for messages.
        path: the file to make.

    Raises:
        FileExistsError: there is something.
        OSError: it cannot be created.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{option} is {str(path)!r}, which exists; expected a new file")
    _check_writable(option, Path(path))


def _check_writable(option: str, target: Path) -> None:
    try:
        with made_directory(target.parent), scratch_directory(target):
            pass
    except OSError as error:
        raise type(error)(f"{option} is {str(target)!r}, which cannot be written: {error.strerror}") from error


@contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a directory to fill, and put it in place whole when the block ends without an error."""
    target = Path(path).absolute()
    with made_directory(target.parent), scratch_directory(target) as made:
        yield made
        made.replace(target)
        sync_directory(target.parent)


@contextmanager
def added_files(path: str | os.PathLike[str], *, keep: bool = False) -> Iterator[Path]:
    """Yield a directory to fill, and put its files into another one when the block ends without an error.

    Args:
        path: the directory that gets them. What it holds is never replaced.
        keep: whether a file that is there stays whatever it holds.

    Raises:
        FileExistsError: one is there with another content, and `keep` is not set; then nothing is added.
    """
    target = Path(path).absolute()
    with scratch_directory(target / "added") as made:
        yield made
        missing = []
        for file in sorted(each for each in made.rglob("*") if each.is_file()):
            place = target / file.relative_to(made)
            if not os.path.lexists(place):
                missing.append((file, place))
            elif not keep and (not place.is_file() or place.read_bytes() != file.read_bytes()):
                raise FileExistsError(f"{str(place)!r} exists with another content; expected another output")
        for file, place in missing:
            place.parent.mkdir(exist_ok=True)
            with atomic_path(place) as temporary:
                file.replace(temporary)
