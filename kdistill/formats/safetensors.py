"""The safetensors format: read through a memory map, written by the safetensors package.

Layout (https://github.com/huggingface/safetensors): a header size as 8 bytes little-endian, the header as JSON, and the
data, which the header's entries cover without overlap or gap. The package is not used for reading, because its NumPy
functions copy every tensor and do not know bfloat16.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..system.files import atomic_path, distinct_names, scratch_directory
from .mapped_tensor import ELEMENT_TYPES, StoredTensor, contiguous_strides, map_file

_MAX_HEADER_BYTES = 16 << 20  # BERT-large needs 50 kB


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return all tensors of a file by name, not yet read. Raises `ValueError` for a file that violates the format."""
    data = map_file(path)
    if data.size < 8:
        raise ValueError(f"{path} is truncated: {data.size} bytes, and the header's size alone takes 8")
    header_size = int.from_bytes(data[:8].tobytes(), "little")
    if header_size > min(_MAX_HEADER_BYTES, data.size - 8):
        raise ValueError(
            f"{path} states a header of {header_size} bytes; the file has {data.size} bytes and a header at most "
            f"{_MAX_HEADER_BYTES}: truncated, or not a safetensors file"
        )
    header = _parse_header(path, data[8 : 8 + header_size].tobytes())
    body = data[8 + header_size :]
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    _check_cover(path, spans, body.size)
    return {name: _tensor(path, name, header[name], body[begin:end]) for name, (begin, end) in spans.items()}


def write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[np.generic]], metadata: dict[str, str] | None = None
) -> None:
    """Write `arrays` by name to `path`, atomically, through the safetensors package.

    Args:
        path: the file to write; its directory must exist.
        arrays: of any shape and of a dtype that the format has.
        metadata: strings for the header's `__metadata__` (default: none).

    Raises:
        OSError: the file cannot be written, for example because the disk is full; the old file is kept.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The package makes temporary files beside its target, so it gets a directory that is deleted afterwards.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_path(path) as temporary, scratch_directory(path) as scratch:
        written = scratch / path.name
        try:
            save_file(contiguous, written, metadata)
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))  # how the package reports a full disk
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        written.replace(temporary)


def _parse_header(path: Path, text: bytes) -> dict[str, dict[str, Any]]:
    try:
        header = json.loads(text, object_pairs_hook=distinct_names)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a header that is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} has a JSON {type(header).__name__} as header; expected an object")
    header.pop("__metadata__", None)
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Return (begin, end) of the tensor's bytes, checked against its dtype and shape but not yet against the file."""
    fields = entry if isinstance(entry, dict) else {}
    element_type, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2 and isinstance(element_type, str)):
        raise ValueError(f"{path}: tensor {name!r} lacks a well-formed dtype, shape or data_offsets")
    if element_type not in ELEMENT_TYPES:
        raise ValueError(
            f"{path}: tensor {name!r} has dtype {element_type}; expected one of {', '.join(ELEMENT_TYPES)}"
        )
    begin, end = offsets
    needed = math.prod(shape) * ELEMENT_TYPES[element_type].itemsize
    if end - begin != needed:
        raise ValueError(
            f"{path}: tensor {name!r} of shape {shape} and dtype {element_type} takes {needed} bytes, but its "
            f"data_offsets {offsets} span {end - begin}"
        )
    return begin, end


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_cover(path: Path, spans: dict[str, tuple[int, int]], size: int) -> None:
    """Raise `ValueError` unless the spans follow each other from 0 to the end of the file."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin < position:
            raise ValueError(f"{path}: tensor {name!r} at byte {begin} overlaps the one that ends at byte {position}")
        if begin > position:
            raise ValueError(f"{path} has bytes {position} to {begin} that belong to no tensor")
        position = end
    if position > size:
        raise ValueError(f"{path} is truncated: its tensors take {position} bytes, the file holds {size}")
    if position < size:
        raise ValueError(f"{path} has {size - position} bytes after its last tensor; it is damaged or hides something")


def _tensor(path: Path, name: str, entry: dict[str, Any], storage: NDArray[np.uint8]) -> StoredTensor:
    shape = tuple(entry["shape"])
    try:
        return StoredTensor(entry["dtype"], shape, contiguous_strides(shape), 0, storage)
    except ValueError as error:
        raise ValueError(f"{path}: tensor {name!r}: {error}") from error
