"""Writes the safetensors format (see safetensors_reader), piece by piece.

The safetensors package is not used for writing because it does a whole file in one call, which for the 1.3 GB of
BERT-base's checkpoint would not answer a signal for as long as the disk takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .files import atomic_path

_PIECE_BYTES = 4 << 20  # written and brought to the disk in one go: 0.1 s where it takes 40 MB/s
_ELEMENT_TYPES = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}


def write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[np.generic]], metadata: dict[str, str] | None = None
) -> None:
    """Write `arrays`, float32 and int64, to `path`: whole or not at all. Signals are answered in between."""
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))  # so that each is aligned
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, array in ordered.items():
        begin, end = end, end + array.nbytes
        entry = {"dtype": _ELEMENT_TYPES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        _write_pieces(file, _pieces(ordered.values()))


def _pieces(arrays: Iterable[NDArray[np.generic]]) -> Iterator[NDArray[np.uint8]]:
    for array in arrays:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, data.size, _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]


def _write_pieces(file: IO[bytes], pieces: Iterable[NDArray[np.uint8]]) -> None:
    """What waits for the disk is never more than two pieces: a call that brings it all there cannot be interrupted."""
    waiting = 0
    for piece in pieces:
        file.write(piece.data)
        waiting += piece.size
        if waiting >= _PIECE_BYTES:
            file.flush()
            os.fsync(file.fileno())
            waiting = 0
    file.flush()
