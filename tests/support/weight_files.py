"""Writers of weight files, whole and broken, byte by byte: what the readers are tested against, without torch."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGE_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
}
LEGACY_HEADER = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."


def safetensors_bytes(header: Mapping[str, Any] | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


# Pieces of a pickle of protocol 2.


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + b"R"


def storage(key: str, numel: int, kind: str = "FloatStorage", *view: bytes) -> bytes:
    return group(text("storage"), named("torch", kind), text(key), text("cpu"), integer(numel), *view) + b"Q"


def tensor(of: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    hooks = call(named("collections", "OrderedDict"))
    sizes = [group(*map(integer, values)) for values in (shape, strides)]
    return call(named("torch._utils", "_rebuild_tensor_v2"), of, integer(offset), *sizes, b"\x89", hooks)


def state_dict(entries: Mapping[str, bytes]) -> bytes:
    items = b"".join(text(name) + value for name, value in entries.items())
    return b"\x80\x02" + call(named("collections", "OrderedDict")) + b"(" + items + b"u."


def array_entries(arrays: Mapping[str, NDArray[Any]], *view: bytes) -> dict[str, bytes]:
    """Each array as a tensor that is all of the storage of the same name."""
    return {
        name: tensor(
            storage(name, array.size, STORAGE_CLASSES[array.dtype.name], *view),
            array.shape,
            tuple(stride // array.itemsize for stride in array.strides),
        )
        for name, array in arrays.items()
    }


# Whole files.


def write_zip(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    byteorder: str = "little",
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)


def legacy_bytes(pickled: bytes, storages: Mapping[str, tuple[int, bytes]], *, little_endian: bool = True) -> bytes:
    """`storages` maps a key to the number of elements stated before its bytes, and the bytes."""
    machine = b"\x80\x02}" + text("little_endian") + (b"\x88" if little_endian else b"\x89") + b"s."
    keys = b"\x80\x02](" + b"".join(text(key) for key in storages) + b"e."
    data = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return LEGACY_HEADER + machine + pickled + keys + data


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, legacy: bool) -> None:
    """Save C-contiguous arrays as torch.save would."""
    if legacy:
        storages = {name: (array.size, array.tobytes()) for name, array in arrays.items()}
        path.write_bytes(legacy_bytes(state_dict(array_entries(arrays, b"N")), storages))
    else:
        write_zip(path, state_dict(array_entries(arrays)), {name: array.tobytes() for name, array in arrays.items()})


def random_arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """One array of each kind a file of weights has: three precisions, a bias, a scalar, an empty one, ids."""
    random = np.random.default_rng(seed)
    return {
        "matrix": random.standard_normal((3, 5), np.float32),
        "half": random.standard_normal((2, 3)).astype(np.float16),
        "double": random.standard_normal(4),
        "bias": random.standard_normal(7, np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.empty((0, 3), np.float32),
        "ids": np.arange(6),
    }
