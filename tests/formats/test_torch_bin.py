"""Both formats of torch.save, read without torch: what they hold, and that a hostile file does nothing but fail."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import weight_files as write
from support.damage import damage_and_read

from kdistill.formats.mapped_tensor import StoredTensor
from kdistill.formats.torch_bin import read_torch_bin

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
FLOAT = write.storage("0", 6)
ONES = np.ones(6, np.float32).tobytes()


@FORMATS
def test_every_float_type_shape_and_length_is_read(tmp_path: Path, legacy: bool) -> None:
    arrays = write.random_arrays()
    write.write_arrays(tmp_path / "w.bin", arrays, legacy=legacy)
    stored = read_torch_bin(tmp_path / "w.bin")
    assert list(stored) == list(arrays)
    assert not stored["ids"].is_float
    for name, array in arrays.items():
        if stored[name].is_float:
            result = stored[name].read()
            assert result.dtype == np.float32
            assert result.flags.c_contiguous
            assert result.flags.aligned
            np.testing.assert_array_equal(result, array.astype(np.float32))


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 2.0**-130, np.inf, -0.0], np.float32)
    upper_halves = values.view("<u4").astype(np.uint64) >> 16
    of = write.storage("0", 6, "BFloat16Storage")
    write.write_zip(
        tmp_path / "w.bin",
        write.state_dict({"w": write.tensor(of, (2, 3), (3, 1))}),
        {"0": upper_halves.astype("<u2").tobytes()},
    )
    result = read_torch_bin(tmp_path / "w.bin")["w"].read()
    np.testing.assert_array_equal(result.view("<u4"), values.reshape(2, 3).view("<u4"))


def test_tensors_share_a_storage_with_offsets_and_strides(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32)
    of = write.storage("0", 12)
    entries = {
        "all": write.tensor(of, (3, 4), (4, 1)),
        "transposed": write.tensor(of, (4, 3), (1, 4)),
        "slice": write.tensor(of, (2, 2), (4, 1), offset=5),
        "parameter": write.call(
            write.named("torch._utils", "_rebuild_parameter"), write.tensor(of, (12,), (1,)), b"\x88", b"N"
        ),
    }
    write.write_zip(tmp_path / "w.bin", write.state_dict(entries), {"0": values.tobytes()})
    stored = {name: tensor.read() for name, tensor in read_torch_bin(tmp_path / "w.bin").items()}
    assert all(array.flags.c_contiguous for array in stored.values())
    table = values.reshape(3, 4)
    np.testing.assert_array_equal(stored["all"], table)
    np.testing.assert_array_equal(stored["transposed"], table.T)
    np.testing.assert_array_equal(stored["slice"], table[1:, 1:3])
    np.testing.assert_array_equal(stored["parameter"], values)


def test_legacy_view_is_a_part_of_its_storage(tmp_path: Path) -> None:
    view = write.group(write.text("part"), write.integer(2), write.integer(3))
    entries = {"part": write.tensor(write.storage("0", 6, "FloatStorage", view), (3,), (1,))}
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(write.legacy_bytes(write.state_dict(entries), {"0": (6, values.tobytes())}))
    np.testing.assert_array_equal(read_torch_bin(tmp_path / "w.bin")["part"].read(), [2, 3, 4])


class Touch:
    """Unpickled by Python, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.path),)


@FORMATS
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path: Path, legacy: bool, protocol: int) -> None:
    marker = tmp_path / "was-here"
    pickled = pickle.dumps({"w": Touch(marker)}, protocol)
    if legacy:
        (tmp_path / "w.bin").write_bytes(write.legacy_bytes(pickled, {}))
    else:
        write.write_zip(tmp_path / "w.bin", pickled, {})
    with pytest.raises(ValueError, match=r"w\.bin cannot be read as weights"):
        read_torch_bin(tmp_path / "w.bin")
    assert not marker.exists()
    pickle.loads(pickled)
    assert marker.exists(), "the pickle is harmless, so this test shows nothing"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "FloatStorage.from_file"),
        ("torch._utils", "_rebuild_tensor"),
        ("collections", "OrderedDict.update"),
        ("collections", "defaultdict"),
        ("kdistill.formats.torch_pickle", "load"),
    ],
)
def test_only_listed_names_are_known(tmp_path: Path, module: str, name: str) -> None:
    write.write_zip(tmp_path / "w.bin", write.state_dict({"w": write.call(write.named(module, name))}), {})
    with pytest.raises(ValueError, match="could run code"):
        read_torch_bin(tmp_path / "w.bin")


BAD_TENSORS = {
    "reaches past the storage": write.tensor(FLOAT, (2, 4), (3, 1)),
    "begins past the storage": write.tensor(FLOAT, (1,), (1,), offset=6),
    "negative offset": write.tensor(FLOAT, (2,), (1,), offset=-1),
    "negative stride": write.tensor(FLOAT, (2,), (-1,), offset=3),
    "negative size": write.tensor(FLOAT, (-1, -6), (1, 1)),
    "repeats one element": write.tensor(FLOAT, (10**9, 10**9), (0, 0)),
    "size beyond any integer": write.tensor(FLOAT, (2**62, 2**62), (1, 1)),
    "fewer strides than sizes": write.tensor(FLOAT, (2, 3), (1,)),
    "absurd storage": write.tensor(write.storage("0", 10**15), (6,), (1,)),
    "negative storage": write.tensor(write.storage("0", -6), (6,), (1,)),
    "absent storage": write.tensor(write.storage("1", 6), (6,), (1,)),
    "storage of no known type": write.tensor(write.storage("0", 6, "QInt8Storage"), (6,), (1,)),
    "tensor instead of a storage": write.tensor(write.tensor(FLOAT, (6,), (1,)), (6,), (1,)),
    "view outside its storage": write.tensor(
        write.storage("0", 6, "FloatStorage", write.group(write.text("v"), write.integer(4), write.integer(3))),
        (3,),
        (1,),
    ),
    "number": write.integer(3),
    "nested dict": b"}",
    "storage alone": FLOAT,
    "parameter of a number": write.call(
        write.named("torch._utils", "_rebuild_parameter"), write.integer(1), b"\x88", b"N"
    ),
    "storage class called": write.call(write.named("torch", "FloatStorage"), write.integer(10**15)),
}


@FORMATS
@pytest.mark.parametrize("value", BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_impossible_tensor_is_an_error_before_memory_is_taken(tmp_path: Path, legacy: bool, value: bytes) -> None:
    pickled = write.state_dict({"w": value})
    if legacy:
        (tmp_path / "w.bin").write_bytes(write.legacy_bytes(pickled, {"0": (6, ONES)}))
    else:
        write.write_zip(tmp_path / "w.bin", pickled, {"0": ONES})
    assert peak_memory_of_failure(tmp_path / "w.bin") < 1 << 20


def test_shape_and_strides_of_different_length() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        StoredTensor("F32", (2, 3), (1,), 0, np.zeros(24, np.uint8))


def peak_memory_of_failure(path: Path, match: str = "cannot be read as weights") -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            read_torch_bin(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BAD_PICKLES = {
    "empty": (b"", "ends in the middle|opcode"),
    "no stop": (b"\x80\x02}", "ends in the middle|opcode"),
    "stop on nothing": (b"\x80\x02.", "empty stack"),
    "mark as value": (b"\x80\x02(.", "empty stack"),
    "pop to no mark": (b"\x80\x02t.", "a mark that is not there"),
    "unknown memo": (b"\x80\x02hA.", "the object 65, which it has not made"),
    "list as state": (b"\x80\x02].", "holds a list; expected a state dict"),
    "dict that holds itself": (b"\x80\x02}q\x00" + write.text("w") + b"h\x00s.", "'w' is a dict"),
    "list that holds itself": (b"\x80\x02]q\x00h\x00a.", "holds a list"),
    "deep tuple as key": (b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.", "a tuple as a key"),
    "deep tuple": (b"\x80\x02)" + b"\x85" * 200_000 + b".", "holds a tuple"),
    "key without value": (b"\x80\x02}(Nu.", "a key without a value"),
    "string longer than the file": (b"\x80\x02X\xff\xff\xff\x7fabc.", "ends in the middle"),
    "not UTF-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "utf-8"),
    "endless operations": (b"\x80\x02" + b"}" * 2_000_000 + b".", "more than 1000000 operations"),
    "attributes of a tensor": (b"\x80\x02" + write.tensor(FLOAT, (6,), (1,)) + b"}b.", "fills a TensorRef"),
    "two storages under one key": (
        write.state_dict(
            {
                "a": write.tensor(FLOAT, (6,), (1,)),
                "b": write.tensor(write.storage("0", 3, "DoubleStorage"), (3,), (1,)),
            }
        ),
        "disagree",
    ),
    "frames of protocol 4": (pickle.dumps({}, 4), "opcode"),
}


@FORMATS
@pytest.mark.parametrize(("pickled", "match"), BAD_PICKLES.values(), ids=BAD_PICKLES.keys())
def test_malformed_or_cyclic_pickle_is_an_error(tmp_path: Path, legacy: bool, pickled: bytes, match: str) -> None:
    if legacy:
        (tmp_path / "w.bin").write_bytes(write.legacy_bytes(pickled, {"0": (6, ONES)}))
    else:
        write.write_zip(tmp_path / "w.bin", pickled, {"0": ONES})
    with pytest.raises(ValueError, match=rf"w\.bin cannot be read as weights saved by torch: .*({match})"):
        read_torch_bin(tmp_path / "w.bin")


def good_pickle() -> bytes:
    return write.state_dict({"w": write.tensor(FLOAT, (6,), (1,))})


def test_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    bomb = np.zeros(1 << 24, np.uint8).tobytes()
    write.write_zip(tmp_path / "w.bin", good_pickle(), {"0": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "w.bin").stat().st_size < 1 << 17
    assert peak_memory_of_failure(tmp_path / "w.bin", "compressed") < 1 << 20


def test_zip_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    write.write_zip(path, good_pickle(), {"0": ONES, "1": ONES})
    data = bytearray(path.read_bytes())
    first, second = data.find(b"PK\x03\x04", data.find(b"byteorder")), data.rfind(b"PK\x03\x04")
    entry = data.rfind(b"PK\x01\x02")  # of the last member: let it begin where the one before it does
    assert struct.unpack_from("<I", data, entry + 42)[0] == second
    struct.pack_into("<I", data, entry + 42, first)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="overlap"):
        read_torch_bin(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_zip_member_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write.write_zip(tmp_path / "w.bin", good_pickle(), {"0": ONES})
    with zipfile.ZipFile(tmp_path / "w.bin", "a") as archive:
        archive.writestr("archive/data/0", ONES)
    with pytest.raises(ValueError, match="twice"):
        read_torch_bin(tmp_path / "w.bin")


@pytest.mark.parametrize("size", [0, 20, 28])
@FORMATS
def test_storage_of_another_length_is_refused(tmp_path: Path, legacy: bool, size: int) -> None:
    data = bytes(size)
    if legacy:
        (tmp_path / "w.bin").write_bytes(write.legacy_bytes(good_pickle(), {"0": (6, data)}))
    else:
        write.write_zip(tmp_path / "w.bin", good_pickle(), {"0": data})
    with pytest.raises(ValueError, match="storage"):
        read_torch_bin(tmp_path / "w.bin")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<html>not found</html>", "opcode"),
        (write.LEGACY_HEADER.replace(b"\xe9\x03", b"\xea\x03"), "1002"),
        (write.legacy_bytes(good_pickle(), {"0": (7, ONES)}), "another length"),
        (write.legacy_bytes(good_pickle(), {"0": (6, ONES)}, little_endian=False), "big-endian"),
        (write.legacy_bytes(good_pickle(), {}), "list of storages"),
        (write.legacy_bytes(good_pickle(), {"0": (6, ONES), "1": (6, ONES)}), "list of storages"),
    ],
)
def test_file_of_another_kind_says_so(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_torch_bin(tmp_path / "w.bin")


def test_big_endian_zip_is_refused(tmp_path: Path) -> None:
    write.write_zip(tmp_path / "w.bin", good_pickle(), {"0": ONES}, byteorder="big")
    with pytest.raises(ValueError, match="big-endian"):
        read_torch_bin(tmp_path / "w.bin")


@FORMATS
def test_every_truncation_is_an_error(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.bin"
    write.write_arrays(path, write.random_arrays(), legacy=legacy)
    data = path.read_bytes()
    for size in range(1, len(data), 3):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"w\.bin"):
            read_torch_bin(path)


@FORMATS
def test_damaged_bytes_never_raise_anything_but_value_error(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.bin"
    write.write_arrays(path, write.random_arrays(), legacy=legacy)
    assert damage_and_read(path, read_torch_bin) > 100
