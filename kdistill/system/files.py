"""Files that survive a kill: written whole or not at all, listed in a manifest, guarded by a lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST_FILE = "manifest.json"
LOCK_FILE = ".kdistill.lock"
# Far above any JSON file of a model directory, far below what would hurt to hold in memory.
_MAX_JSON_BYTES = 16 << 20
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")  # as `atomic_path` names them, with its process


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the caller wrote there becomes `path` in one rename.

    File and directory are synced to disk. When the body raises, the temporary file is deleted and `path` stays as it
    was; an OSError that names no file, as that of a full disk, then names `path`. The parent directory must exist.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    """A directory on the disk of `beside`, for a library that makes temporary files of its own; then it is gone."""
    directory = _temporary(beside)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a restart after a kill, sees the old file or the new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def delete_leftovers(directory: Path) -> None:
    """Delete what processes that were killed have left in `directory` under temporary names."""
    for path in directory.glob(".*.tmp"):
        if (match := _TEMPORARY.fullmatch(path.name)) and not _is_alive(int(match[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Make renames in `directory` survive a loss of power."""
    _sync(Path(directory))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `ValueError` naming the file when it is anything else."""
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        raise ValueError(f"{path} has {size} bytes; expected a JSON file of at most {_MAX_JSON_BYTES}")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=distinct_names)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises `ValueError` for a name that occurs twice, of which readers would differ."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return result


def write_manifest(directory: Path) -> None:
    """Write `manifest.json`: size and SHA-256 of every other file below `directory`. Call it last."""
    files = {
        path.relative_to(directory).as_posix(): _fingerprint(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST_FILE
    }
    atomic_write(directory / MANIFEST_FILE, (json.dumps({"files": files}, indent=2) + "\n").encode())


def verify_manifest(directory: Path) -> str | None:
    """What is wrong with `directory` according to its manifest, in words; None when every listed file is as written."""
    manifest = directory / MANIFEST_FILE
    if not manifest.is_file():
        return f"{manifest} is missing"
    try:
        files = read_json_object(manifest).get("files")
    except ValueError as error:
        return str(error)
    if not isinstance(files, dict):
        return f"{manifest} has no list of files"
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{manifest} lists {name!r}, which is not in its directory"
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if _fingerprint(path) != expected:
            return f"{path} is not the file that was written (size or SHA-256 differs)"
    return None


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process; raise `BlockingIOError` at once when another holder is alive."""
    try:
        with file_lock(directory / LOCK_FILE, wait=False):
            yield
    except LockedError as error:
        raise BlockingIOError(
            f"{directory} is in use by another run (process {error.holder}); wait for it or choose another directory"
        ) from error


class LockedError(BlockingIOError):
    """A lock that somebody holds; `holder` is the number of the process, in words."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`, made if missing and deleted at the end, against all other processes and threads.

    It is an flock, so the kernel frees it when its process ends, however it ends. Where another holder is alive, wait
    for its end, or raise `LockedError` at once.
    """
    descriptor = _lock(path, wait=wait)
    try:
        yield
    finally:
        # While still locked: whoever has opened this file and not locked it yet finds it gone and makes a new one.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody, this process included, holds the lock file `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, *, wait: bool) -> int:
    while True:
        descriptor, held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = _is_file_at(descriptor, path)
            if held:
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode("ascii", "replace") or "unknown"
            raise LockedError(path, holder) from error
        finally:
            if not held:
                os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file; its last holder may have deleted it between open and lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _fingerprint(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
