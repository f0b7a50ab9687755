"""State dicts written by torch.save: the zip format (since torch 1.6) and the legacy format before it.

Both hold one pickle, which `torch_pickle` interprets, and raw storages, which stay in the mapped file until they are
read.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import torch_pickle
from .mapped_tensor import ELEMENT_TYPES, StoredTensor, map_file
from .torch_pickle import MAX_PICKLE_BYTES, StorageRef, TensorRef

_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_LOCAL_HEADER_BYTES = 30
_MAX_ZIP_MEMBERS = 100_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py: MAGIC_NUMBER
_LEGACY_VERSION = 1001  # torch/serialization.py: PROTOCOL_VERSION

Bytes = NDArray[np.uint8]


def read_torch_bin(path: Path) -> dict[str, StoredTensor]:
    """Return all tensors of a state dict by name. No code in the file is run and no tensor is read yet.

    Raises:
        ValueError: the file, which the message names, is truncated, malformed, of another kind, or its pickle needs
            anything but tensors.
    """
    data = map_file(path)
    try:
        if data[:4].tobytes() == _ZIP_MAGIC:
            return _read_zip(path, data)
        return _read_legacy(data)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as weights saved by torch: {error}") from error


def _read_zip(path: Path, data: Bytes) -> dict[str, StoredTensor]:
    members = _zip_members(path, data)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without the one data.pkl that torch.save puts there")
    root = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{root}byteorder")
    if order is not None and order.tobytes() != b"little":
        raise ValueError("it was saved on a big-endian machine")
    if members[pickles[0]].size > MAX_PICKLE_BYTES:
        raise ValueError(f"its data.pkl has {members[pickles[0]].size} bytes; at most {MAX_PICKLE_BYTES} make sense")
    state, _ = torch_pickle.load(members[pickles[0]].tobytes())
    tensors = _state_dict(state)
    storages: dict[str, Bytes] = {}
    for storage in {ref.storage for ref in tensors.values()}:
        name = f"{root}data/{storage.key}"
        if name not in members:
            raise ValueError(f"the storage {storage.key!r} is missing from the archive")
        expected = storage.numel * ELEMENT_TYPES[storage.element_type].itemsize
        if members[name].size != expected:
            raise ValueError(f"the storage {storage.key!r} has {members[name].size} bytes; expected {expected}")
        storages[storage.key] = members[name]
    return _bind(tensors, storages)


def _zip_members(path: Path, data: Bytes) -> dict[str, Bytes]:
    """Return the mapped bytes of every member by name. Only uncompressed members pass, so no archive can blow up."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise ValueError(f"the zip archive is truncated or damaged ({error})") from error
    if len(entries) > _MAX_ZIP_MEMBERS:
        raise ValueError(f"the zip archive has {len(entries)} members; at most {_MAX_ZIP_MEMBERS} make sense")
    members: dict[str, Bytes] = {}
    end_of_last, last = 0, ""
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"the member {entry.filename!r} is compressed or encrypted; torch.save writes neither")
        if entry.filename in members:
            raise ValueError(f"the member {entry.filename!r} is there twice")
        begin = _zip_data_offset(data, entry)
        if entry.header_offset < end_of_last:
            raise ValueError(f"the members {last!r} and {entry.filename!r} overlap")
        end_of_last, last = begin + entry.file_size, entry.filename
        if end_of_last > data.size or entry.file_size != entry.compress_size:
            raise ValueError(f"the member {entry.filename!r} states a size that it cannot have")
        members[entry.filename] = data[begin:end_of_last]
    return members


def _zip_data_offset(data: Bytes, entry: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: after its local header, whose padding may differ from the directory's."""
    header = data[max(entry.header_offset, 0) :][:_ZIP_LOCAL_HEADER_BYTES].tobytes()
    if len(header) < _ZIP_LOCAL_HEADER_BYTES or not header.startswith(_ZIP_MAGIC):
        raise ValueError(f"the member {entry.filename!r} is not where the archive says")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:])
    return entry.header_offset + _ZIP_LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)


def _read_legacy(data: Bytes) -> dict[str, StoredTensor]:
    """Read pickles of magic number, version, machine, state dict and storage keys, then the storages one by one."""
    view = data.data
    magic, position = torch_pickle.load(view)
    if magic != _LEGACY_MAGIC:
        raise ValueError("it begins neither as a zip archive nor with torch's magic number")
    version, position = torch_pickle.load(view, position)
    if version != _LEGACY_VERSION:
        raise ValueError(f"it has version {version!r}; expected {_LEGACY_VERSION}")
    machine, position = torch_pickle.load(view, position)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise ValueError("it was saved on a big-endian machine")
    state, position = torch_pickle.load(view, position)
    keys, position = torch_pickle.load(view, position)
    tensors = _state_dict(state)
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise ValueError("its list of storages is malformed")
    expected = {ref.storage.key: ref.storage for ref in tensors.values()}
    if set(keys) != set(expected):
        raise ValueError("its list of storages differs from those its tensors use")
    storages: dict[str, Bytes] = {}
    for key in keys:
        storages[key], position = _legacy_storage(data, position, expected[key])
    if position != data.size:
        raise ValueError(f"{data.size - position} bytes follow its last storage; it is damaged or hides something")
    return _bind(tensors, storages)


def _legacy_storage(data: Bytes, position: int, storage: StorageRef) -> tuple[Bytes, int]:
    count = data[position : position + 8].tobytes()
    begin = position + 8
    end = begin + storage.numel * ELEMENT_TYPES[storage.element_type].itemsize
    if len(count) < 8 or not begin <= end <= data.size:
        raise ValueError(f"it is truncated: the storage {storage.key!r} ends at byte {end} of {data.size}")
    if int.from_bytes(count, "little", signed=True) != storage.numel:
        raise ValueError(
            f"the storage {storage.key!r} states another length than the {storage.numel} elements expected"
        )
    return data[begin:end], end


def _state_dict(state: Any) -> dict[str, TensorRef]:
    if type(state) is not dict:
        raise ValueError(f"it holds a {type(state).__name__}; expected a state dict")
    storages: dict[str, StorageRef] = {}
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, TensorRef):
            raise ValueError(f"its entry {name!r} is a {type(value).__name__}; a state dict holds tensors by name")
        first = storages.setdefault(value.storage.key, value.storage)
        if (first.element_type, first.numel) != (value.storage.element_type, value.storage.numel):
            raise ValueError(f"its tensors disagree on the type or length of the storage {first.key!r}")
    return state


def _bind(tensors: dict[str, TensorRef], storages: dict[str, Bytes]) -> dict[str, StoredTensor]:
    result = {}
    for name, ref in tensors.items():
        try:
            storage = _part(storages[ref.storage.key], ref.storage)
            result[name] = StoredTensor(ref.storage.element_type, ref.shape, ref.strides, ref.offset, storage)
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
    return result


def _part(storage: Bytes, ref: StorageRef) -> Bytes:
    """Return the bytes that a tensor may use: the whole storage, or the view of it that the legacy format allows."""
    if ref.view is None:
        return storage
    first, count = ref.view
    if first < 0 or count < 0 or first + count > ref.numel:
        raise ValueError(f"elements {first} to {first + count} are outside a storage of {ref.numel}")
    size = ELEMENT_TYPES[ref.element_type].itemsize
    return storage[first * size : (first + count) * size]
