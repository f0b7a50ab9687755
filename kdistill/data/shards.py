"""`ShardDirectory`: files that follow each other, each complete or absent, and what they were made of."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..system.files import LOCK_FILE, LockedError, atomic_write, file_lock, made_directory, read_json_object, write_json
from ..system.names import listing

SHARDS_FILE = "shards.json"
"""The file that says what the shards of a directory were made of, and which of them are complete."""


class _Complete(NamedTuple):
    """A shard that was written: how many rows it has, its length in bytes and their CRC-32."""

    rows: int
    bytes: int
    crc32: int


class ShardDirectory:
    """A directory of shards. The same command keeps those that are there and match, and makes the others.

    Args:
        directory: may not exist, be empty, or hold shards of the same sources.
        ending: of the names of shards, such as ".parquet".
        sources: what the content of the shards depends on, as JSON can hold it, by what messages call it.

    Attributes:
        count: how many shards there are in all; None as long as they have not all been there.
    """

    def __init__(self, directory: Path, ending: str, sources: Mapping[str, Any]) -> None:
        self._directory, self._ending, self._sources = directory, ending, dict(sources)
        self._complete: dict[int, _Complete] = {}
        self.count: int | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep other processes out inside the block, and know what is complete.

        Raises:
            BlockingIOError: another process writes there.
            FileExistsError: it holds something else, or shards of other sources.
            OSError: it cannot be written.
        """
        self._check()
        try:
            with made_directory(self._directory), file_lock(self._directory / LOCK_FILE, wait=False):
                self._check()
                self._complete, self.count = self._listed()
                yield
        except LockedError as error:
            raise BlockingIOError(
                f"{self._directory} is being written by process {error.holder}; wait for it or choose another directory"
            ) from error

    def _check(self) -> None:
        path = self._directory
        if path.exists() and not path.is_dir():
            raise FileExistsError(
                f"--output is {str(path)!r}, which is a file; expected a new directory for the shards"
            )
        others = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")] if path.is_dir() else []
        if not others:
            return
        if SHARDS_FILE not in others:
            raise FileExistsError(
                f"--output is {str(path)!r}, which holds other files; expected a new directory, or one that this "
                "command has begun"
            )
        there = read_json_object(path / SHARDS_FILE).get("sources")
        there = there if isinstance(there, dict) else {}
        different = [name for name, value in self._sources.items() if there.get(name) != value]
        if different:
            raise FileExistsError(
                f"--output is {str(path)!r}, whose shards were made of other sources ({listing(different)} differ); "
                "expected another directory, or the same command, which goes on where it was interrupted"
            )

    def _listed(self) -> tuple[dict[int, _Complete], int | None]:
        """Return the shards that were finished, and `count`; what was edited to something else is not among them."""
        path = self._directory / SHARDS_FILE
        noted = read_json_object(path) if path.is_file() else {}
        shards, count, found = noted.get("shards"), noted.get("count"), {}
        for number, values in (shards if isinstance(shards, dict) else {}).items():
            if isinstance(values, list) and len(values) == 3 and all(isinstance(of, int) for of in values):
                found[int(number)] = _Complete(*values)
        return found, count if isinstance(count, int) else None

    def path(self, number: int) -> Path:
        """Return where the shard lies with this number, from 0 on."""
        return self._directory / f"rows-{number:05d}{self._ending}"

    def whole(self) -> dict[int, int]:
        """Return how many rows each shard has that is there and whole, by number."""
        return {number: known.rows for number, known in self._complete.items() if self._is_whole(number, known)}

    def _is_whole(self, number: int, known: _Complete) -> bool:
        path = self.path(number)
        there = path.is_file() and path.stat().st_size == known.bytes
        return there and zlib.crc32(path.read_bytes()) == known.crc32

    def write(self, number: int, content: bytes, rows: int) -> None:
        """Put a shard in place, whole, and then note it."""
        if not (self._directory / SHARDS_FILE).is_file():
            self._note()  # an interrupted command finds its directory by it
        atomic_write(self.path(number), content)
        self._complete[number] = _Complete(rows, len(content), zlib.crc32(content))
        self._note()

    def finish(self, count: int) -> None:
        """Note that these are all shards, and forget what an interrupted call has left behind them."""
        self.count = count
        self._complete = {number: shard for number, shard in self._complete.items() if number < count}
        self._note()

    def _note(self) -> None:
        shards = {str(number): list(shard) for number, shard in sorted(self._complete.items())}
        write_json(self._directory / SHARDS_FILE, {"sources": self._sources, "shards": shards, "count": self.count})
