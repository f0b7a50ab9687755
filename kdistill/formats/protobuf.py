"""Messages of protocol buffers (https://protobuf.dev/programming-guides/encoding), read field by field."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeVar

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Data = TypeVar("_Data", bytes, memoryview)


def fields(data: _Data) -> Iterator[tuple[int, _Data | float | int]]:
    """Yield (number, value) of the fields of a message, in the file's order.

    Args:
        data: the message; of a `memoryview`, values are parts of it and not copied.

    Yields:
        Bytes (texts, messages and lists too), floats of 32 bits and whole numbers, which are not negative here.

    Raises:
        ValueError: the message is malformed or truncated.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, place = _varint(data, place)
            yield number, value
        elif wire_type == _BYTES:
            length, place = _varint(data, place)
            yield number, _part(data, place, length)
            place += length
        elif wire_type == _FIXED32:
            yield number, float(struct.unpack("<f", _part(data, place, 4))[0])
            place += 4
        elif wire_type == _FIXED64:
            place += len(_part(data, place, 8))
        else:
            raise ValueError(f"byte {place} has the wire type {wire_type}")


def numbers(data: bytes | memoryview) -> Iterator[int]:
    """Yield the whole numbers of a packed list."""
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _part(data: _Data, place: int, length: int) -> _Data:
    if length > len(data) - place:
        raise ValueError(f"it ends after byte {len(data)}, within a field of {length} bytes")
    return data[place : place + length]


def _varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and the place behind it."""
    value = 0
    for index in range(10):
        if place + index >= len(data):
            break
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError(f"no number ends behind byte {place}")
