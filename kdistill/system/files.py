"""Files that survive a kill: written whole or not at all, listed in a manifest, guarded by a lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST_FILE = "manifest.json"
LOCK_FILE = ".kdistill.lock"
# Far above any JSON file of a model directory, and harmless to hold in memory.
_MAX_JSON_BYTES = 16 << 20
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")  # the names that `_temporary` gives; the group is the process


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename the file that the caller wrote there to `path`.

    The file and its directory are synced to disk. When the body raises, the temporary file is deleted and `path` stays
    as it was. A new file gets the permissions that the umask leaves, however the body made it (the safetensors package
    makes files that only their owner may read); a file that is replaced keeps its own.

    Args:
        path: the file to write; its directory must exist.

    Raises:
        OSError: writing failed. An error without a file name, such as that of a full disk, gets the name `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        mode = _mode_of_new_file(temporary)
        if path.is_file():
            mode = stat.S_IMODE(path.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _mode_of_new_file(path: Path) -> int:
    """Create the empty file and return its permissions: the umask can be read only by changing it for all threads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


@contextmanager
def made_directory(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make a directory for the block, with its parents, and delete those made here that are empty when it ends.

    So a start that fails leaves nothing behind. A directory that was there before stays.
    """
    made = missing_directories(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        yield
    finally:
        delete_empty(made)


def missing_directories(path: str | os.PathLike[str]) -> list[Path]:
    """Return the directories that `mkdir -p path` would make, the innermost first."""
    path = Path(path).absolute()
    return [directory for directory in (path, *path.parents) if not directory.exists()]


def delete_empty(directories: Iterable[Path]) -> None:
    """Delete directories, the innermost first, up to the first that holds something or cannot be deleted."""
    for directory in directories:
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


@contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    """Yield a directory on the disk of `beside` and delete it afterwards, for libraries that make temporary files."""
    directory = _temporary(beside)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader, also one after a kill, sees either the old file or the new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically.

    A lone surrogate, which UTF-8 has no bytes for, is written as `\\udc80`: inside of a JSON string that is its escape.
    """
    atomic_write(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike[str], value: Any, *, sort_keys: bool = False, ensure_ascii: bool = True) -> None:
    """Write `value` to `path` as JSON, atomically and indented; see `json_text`."""
    write_text(path, json_text(value, indent=2, sort_keys=sort_keys, ensure_ascii=ensure_ascii) + "\n")


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False, ensure_ascii: bool = True) -> str:
    """Return `value` as JSON that every reader takes.

    JSON has neither NaN nor infinity: both become null. NumPy's numbers and arrays become numbers and lists. All other
    numbers keep all their digits.

    Args:
        value: what `json.dumps` takes, and NumPy's numbers and arrays.
        indent, sort_keys, ensure_ascii: as for `json.dumps`.

    Raises:
        TypeError: a value has no form in JSON.
    """
    plain = _without_non_finite(value)
    return json.dumps(plain, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_without_non_finite(key): _without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_non_finite(item) for item in value]
    return value


def delete_leftovers(directory: Path) -> None:
    """Delete the temporary files and directories that killed processes have left in `directory`."""
    for path in directory.glob(".*.tmp"):
        if is_leftover(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Return whether `path` has the name of a temporary file or directory whose process is gone."""
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and not _is_alive(int(match[1]))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Sync `directory` to disk, so that renames in it survive a loss of power."""
    _sync(Path(directory))


def read_json_object(path: Path, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises `ValueError`, which names the file, for any other content."""
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} has {size} bytes; expected a JSON file of at most {max_bytes}")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=distinct_names)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises `ValueError` for a repeated name, which readers resolve differently."""
    result = dict(pairs)
    if len(result) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {repeated!r} occurs twice in one object")
    return result


def write_manifest(directory: Path) -> None:
    """Write `manifest.json` with size and SHA-256 of every other file below `directory`. Call it last."""
    files = {
        path.relative_to(directory).as_posix(): fingerprint(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST_FILE
    }
    write_json(directory / MANIFEST_FILE, {"files": files})


def verify_manifest(directory: Path) -> str | None:
    """Return how `directory` differs from its manifest, as a sentence, or None when every file is as written.

    What cannot be read, on a failing disk for example, is not as written.
    """
    try:
        return _difference_from_manifest(directory)
    except (OSError, ValueError) as error:
        return str(error)


def _difference_from_manifest(directory: Path) -> str | None:
    manifest = directory / MANIFEST_FILE
    if not manifest.is_file():
        return f"{manifest} is missing"
    files = read_json_object(manifest).get("files")
    if not isinstance(files, dict) or not files:
        return f"{manifest} has no list of files"
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{manifest} lists {name!r}, which is not in its directory"
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if fingerprint(path) != expected:
            return f"{path} is not the file that was written (size or SHA-256 differs)"
    return None


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Lock `directory` for this process. Raises `BlockingIOError` at once when another process holds it."""
    try:
        with file_lock(directory / LOCK_FILE, wait=False):
            yield
    except LockedError as error:
        raise BlockingIOError(
            f"{directory} is in use by another run (process {error.holder}); wait for it or choose another directory"
        ) from error


class LockedError(BlockingIOError):
    """A lock file that another process holds; `holder` is its process number as text, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path` against all other processes and threads.

    The file is created if missing and deleted at the end. The lock is an flock, so the kernel frees it even when the
    process is killed, also when children that it forked live on (`open_lockable`).

    Args:
        path: the lock file.
        wait: whether to wait for the present holder.

    Raises:
        LockedError: another process or thread holds the lock and `wait` is false.
    """
    descriptor, owner = _lock(path, wait=wait), os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:  # a child that was forked inside of the block and leaves it holds nothing
            # Delete it while it is still locked: a process that has opened it and waits for the lock then finds that
            # the path names another file, and starts again.
            path.unlink(missing_ok=True)
            close_lockable(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether any process, including this one, holds the lock file `path`."""
    try:
        descriptor = open_lockable(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        close_lockable(descriptor)
    return False


# An flock belongs to the open file, which a forked child shares: it would hold the lock of a parent that is killed. So
# every descriptor that may be locked is known here, and a child closes its copies before it does anything else.
_LOCKABLE: set[int] = set()
_OPENING = threading.RLock()  # held by a fork, so that no descriptor is open and not yet known


def open_lockable(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file to lock it with `fcntl.flock`, as `os.open` does; children that are forked do not inherit it."""
    with _OPENING:
        descriptor = os.open(path, flags, mode)
        _LOCKABLE.add(descriptor)
        return descriptor


def close_lockable(descriptor: int) -> None:
    """Close a descriptor of `open_lockable`, and so free its lock."""
    with _OPENING:
        _LOCKABLE.discard(descriptor)
        os.close(descriptor)


def _close_copies() -> None:
    """Close the copies of the parent's lockable descriptors in a child that was just forked."""
    for descriptor in _LOCKABLE:
        os.close(descriptor)
    _LOCKABLE.clear()
    _OPENING.release()


os.register_at_fork(before=_OPENING.acquire, after_in_parent=_OPENING.release, after_in_child=_close_copies)


def _lock(path: Path, *, wait: bool) -> int:
    while True:
        descriptor, held = open_lockable(path, os.O_RDWR | os.O_CREAT), False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_file_at(descriptor, path):
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                held = True
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode("ascii", "replace") or "unknown"
            raise LockedError(path, holder) from error
        except OSError as error:  # a full disk, which says nothing of the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            if not held:
                close_lockable(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Return whether `path` still names the open file: its last holder may have deleted it between open and lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def fingerprint(path: Path) -> dict[str, int | str]:
    """Return the size and the SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
