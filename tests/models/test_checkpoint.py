"""Weights of a model directory: found, renamed, checked; and safetensors files that are not what they say."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from support import weight_files as write
from support.damage import damage_and_read

from kdistill.formats.safetensors import read_safetensors
from kdistill.models.architectures.bert import BERT
from kdistill.models.checkpoint import read_weights, write_weights
from kdistill.models.head_names import SEQUENCE

Arrays = dict[str, NDArray[Any]]
NAMES = BERT.names(SEQUENCE)
SHAPES = {
    "bert.embeddings.word_embeddings.weight": (7, 4),
    "bert.embeddings.LayerNorm.weight": (4,),
    "bert.embeddings.LayerNorm.bias": (4,),
    "bert.encoder.layer.0.attention.self.query.weight": (4, 4),
    "bert.pooler.dense.weight": (4, 4),
    "classifier.weight": (2, 4),
}


@pytest.fixture
def arrays() -> Arrays:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def save_safetensors(directory: Path, arrays: Arrays) -> None:
    save_file(arrays, directory / "model.safetensors")


def save_zip(directory: Path, arrays: Arrays) -> None:
    write.write_arrays(directory / "pytorch_model.bin", arrays, legacy=False)


def save_legacy(directory: Path, arrays: Arrays) -> None:
    write.write_arrays(directory / "pytorch_model.bin", arrays, legacy=True)


def save_sharded(directory: Path, arrays: Arrays) -> None:
    weight_map = {}
    for index, name in enumerate(arrays):
        weight_map[name] = f"model-{index % 2 + 1:05}-of-00002.safetensors"
    for shard in set(weight_map.values()):
        save_file({name: arrays[name] for name in arrays if weight_map[name] == shard}, directory / shard)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def save_sharded_bin(directory: Path, arrays: Arrays) -> None:
    weight_map = {name: f"pytorch_model-{index}.bin" for index, name in enumerate(arrays)}
    for name, shard in weight_map.items():
        write.write_arrays(directory / shard, {name: arrays[name]}, legacy=bool(len(name) % 2))
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


SAVERS = [save_safetensors, save_zip, save_legacy, save_sharded, save_sharded_bin]
every_format = pytest.mark.parametrize("save", SAVERS, ids=lambda save: save.__name__.removeprefix("save_"))
Save = Callable[[Path, Arrays], None]


@every_format
def test_all_formats_give_the_same_weights(tmp_path: Path, arrays: Arrays, save: Save) -> None:
    save(tmp_path, arrays)
    weights = read_weights(tmp_path, SHAPES, NAMES)
    assert set(weights) == set(SHAPES)
    assert len(weights) == len(SHAPES)
    assert (weights.ignored, weights.missing) == ((), ())
    for name, array in arrays.items():
        assert weights[name].dtype == np.float32
        assert weights[name].flags.c_contiguous
        np.testing.assert_array_equal(weights[name], array)


@every_format
def test_old_names_other_heads_and_buffers(tmp_path: Path, arrays: Arrays, save: Save) -> None:
    """A checkpoint of pretraining as TensorFlow's were converted: gamma and beta, heads of its own, no classifier."""
    del arrays["classifier.weight"]
    old = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): arrays[name] for name in arrays}
    heads = {"cls.predictions.bias": np.ones(7, np.float32), "bert.embeddings.position_ids": np.arange(5)[None]}
    save(tmp_path, old | heads)
    weights = read_weights(tmp_path, SHAPES, NAMES)
    assert sorted(weights.ignored) == ["bert.embeddings.position_ids", "cls.predictions.bias"]
    assert weights.missing == ("classifier.weight",)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array)


@every_format
def test_names_without_prefix(tmp_path: Path, arrays: Arrays, save: Save) -> None:
    save(tmp_path, {name.removeprefix("bert."): array for name, array in arrays.items()})
    weights = read_weights(tmp_path, SHAPES, NAMES)
    assert weights.missing == weights.ignored == ()
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array)


@every_format
def test_half_and_double_precision_become_float32(tmp_path: Path, arrays: Arrays, save: Save) -> None:
    arrays["classifier.weight"] = arrays["classifier.weight"].astype(np.float16)
    arrays["bert.pooler.dense.weight"] = arrays["bert.pooler.dense.weight"].astype(np.float64)
    save(tmp_path, arrays)
    weights = read_weights(tmp_path, SHAPES, NAMES)
    for name, array in arrays.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], array.astype(np.float32))


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def adding(name: str, array: NDArray[Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: array}


MISFITS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "lost weight": (
        without("bert.embeddings.LayerNorm.bias"),
        "lacks 1 of 6 weights, .*'bert.embeddings.LayerNorm.bias'",
    ),
    "other classifier": (adding("classifier.weight", np.ones((3, 4), np.float32)), r"\(3, 4\).*expects \(2, 4\)"),
    "transposed": (adding("bert.embeddings.word_embeddings.weight", np.ones((4, 7), np.float32)), r"\(4, 7\)"),
    "integers": (adding("classifier.weight", np.ones((2, 4), np.int64)), "as I64; expected floating-point"),
    "two names": (adding("embeddings.LayerNorm.gamma", np.ones(4, np.float32)), "two tensors for 'bert.emb.*weight'"),
    "more layers": (adding("bert.encoder.layer.1.output.dense.bias", np.ones(4, np.float32)), r"encoder\.layer\.1\."),
    "another model": (
        lambda arrays: {f"ro{name}": arrays[name] for name in arrays},
        "lacks 4 of 6 .* such as 'robert.*'",
    ),
}


@every_format
@pytest.mark.parametrize(("change", "match"), MISFITS.values(), ids=MISFITS.keys())
def test_weights_of_another_model(
    tmp_path: Path, arrays: Arrays, save: Save, change: Callable[[Arrays], Arrays], match: str
) -> None:
    save(tmp_path, change(arrays))
    with pytest.raises(ValueError, match=match):
        read_weights(tmp_path, SHAPES, NAMES)


@every_format
def test_sizes_that_differ_can_be_left_out(tmp_path: Path, arrays: Arrays, save: Save) -> None:
    save(tmp_path, arrays)
    shapes = SHAPES | {"classifier.weight": (3, 4)}
    with pytest.raises(
        ValueError,
        match=r"'classifier\.weight' of shape \(2, 4\).* 2 labels.* 3\. .*ignore_mismatched_sizes=True",
    ):
        read_weights(tmp_path, shapes, NAMES)
    weights = read_weights(tmp_path, shapes, NAMES, ignore_mismatched_sizes=True)
    assert weights.mismatched == {"classifier.weight": (2, 4)}
    assert set(weights) == set(SHAPES) - {"classifier.weight"}
    assert weights.missing == ()
    both = shapes | {"bert.pooler.dense.weight": (5, 4)}
    with pytest.raises(ValueError, match=r"'bert\.pooler\.dense\.weight' of shape \(4, 4\)"):
        read_weights(tmp_path, both, NAMES)


def test_safetensors_go_before_bin(tmp_path: Path, arrays: Arrays) -> None:
    save_safetensors(tmp_path, arrays)
    save_zip(tmp_path, {name: array + 1 for name, array in arrays.items()})
    np.testing.assert_array_equal(
        read_weights(tmp_path, SHAPES, NAMES)["classifier.weight"], arrays["classifier.weight"]
    )


def test_directory_without_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no weights; expected one of model\.safetensors"):
        read_weights(tmp_path, SHAPES, NAMES)


def test_missing_shard(tmp_path: Path, arrays: Arrays) -> None:
    save_sharded(tmp_path, arrays)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists 'model-00002-of-00002\..*which is not there"):
        read_weights(tmp_path, SHAPES, NAMES)


def test_shards_that_differ_from_their_index(tmp_path: Path, arrays: Arrays) -> None:
    save_sharded(tmp_path, arrays)
    shards = sorted(tmp_path.glob("*.safetensors"))
    first = load_file(shards[0])
    save_file(dict(list(first.items())[1:]), shards[0])
    with pytest.raises(ValueError, match="which none of its shards has"):
        read_weights(tmp_path, SHAPES, NAMES)
    save_file(first | load_file(shards[1]), shards[1])
    save_file(first, shards[0])
    with pytest.raises(ValueError, match="which another shard has too"):
        read_weights(tmp_path, SHAPES, NAMES)


def test_written_weights_are_safetensors(tmp_path: Path, arrays: Arrays) -> None:
    from safetensors import safe_open

    arrays["classifier.weight"] = arrays["classifier.weight"].T.copy().T  # not C-contiguous
    arrays["scalar"] = np.array(3.0, np.float32)
    write_weights(tmp_path, arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)


def test_weights_can_be_written_over_the_file_they_are_mapped_from(tmp_path: Path, arrays: Arrays) -> None:
    save_safetensors(tmp_path, arrays)
    weights = read_weights(tmp_path, SHAPES, NAMES)
    write_weights(tmp_path / "model.safetensors", weights)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array)
        np.testing.assert_array_equal(read_weights(tmp_path, SHAPES, NAMES)[name], array)


def test_float32_is_mapped_and_not_copied(tmp_path: Path) -> None:
    big = np.arange(1 << 20, dtype=np.float32)
    save_file({"classifier.weight": big}, tmp_path / "model.safetensors")
    tracemalloc.start()
    try:
        weights = read_weights(tmp_path, {"classifier.weight": big.shape}, NAMES)
        result = weights["classifier.weight"]
        assert tracemalloc.get_traced_memory()[1] < big.nbytes / 8
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(result, big)
    assert not result.flags.writeable


def test_unaligned_tensors(tmp_path: Path) -> None:
    """A header of odd length and a tensor of one byte put every float at an odd address."""
    values = np.arange(3, dtype="<f4")
    header = {
        "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
        "w": {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]},
    }
    for padding in range(4):
        text = json.dumps(header).encode() + b" " * padding
        (tmp_path / "w").write_bytes(write.safetensors_bytes(text, b"\1" + values.tobytes()))
        result = read_safetensors(tmp_path / "w")["w"].read()
        assert result.flags.aligned
        np.testing.assert_array_equal(result, values)


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    upper_halves = np.array([0x3F80, 0xC020, 0x0001, 0x7F80, 0x8000], "<u2")
    header = {"w": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}
    (tmp_path / "w").write_bytes(write.safetensors_bytes(header, upper_halves.tobytes()))
    result = read_safetensors(tmp_path / "w")["w"].read()
    np.testing.assert_array_equal(result, np.array([1.0, -2.5, 2.0**-133, np.inf, -0.0], np.float32))
    assert np.signbit(result[4])


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BODY = bytes(16)
BAD_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "seven bytes": (b"1234567", "truncated"),
    "header beyond the end": (b"\xff" * 8 + b"{}", "states a header of 18446744073709551615 bytes"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "not JSON": (write.safetensors_bytes(b"{'a'}"), "not valid JSON"),
    "not UTF-8": (write.safetensors_bytes(b'{"\xff": 1}'), "not valid JSON"),
    "deep JSON": (write.safetensors_bytes(b"[" * 100_000), "not valid JSON"),
    "list": (write.safetensors_bytes(b"[]"), "JSON list as header"),
    "a name twice": (write.safetensors_bytes(b'{"a": {}, "a": {}}'), "occurs twice"),
    "number as entry": (write.safetensors_bytes({"a": 3}), "lacks a well-formed"),
    "no shape": (write.safetensors_bytes({"a": {"dtype": "F32", "data_offsets": [0, 16]}}, BODY), "lacks"),
    "negative size": (write.safetensors_bytes({"a": entry([-4], 0, 16)}, BODY), "lacks a well-formed"),
    "fraction": (write.safetensors_bytes({"a": entry([4.0], 0, 16)}, BODY), "lacks a well-formed"),
    "three offsets": (write.safetensors_bytes({"a": entry([4], 0, 16) | {"data_offsets": [0, 8, 16]}}, BODY), "lacks"),
    "unknown type": (write.safetensors_bytes({"a": entry([4], 0, 16, "F8_E4M3")}, BODY), "dtype F8_E4M3"),
    "absurd shape": (write.safetensors_bytes({"a": entry([2**62, 4], 0, 16)}, BODY), "takes 73786976294838206464"),
    "shape smaller than its bytes": (write.safetensors_bytes({"a": entry([3], 0, 16)}, BODY), "takes 12 bytes"),
    "offsets reversed": (write.safetensors_bytes({"a": entry([4], 16, 0)}, BODY), "span -16"),
    "truncated": (write.safetensors_bytes({"a": entry([8], 0, 32)}, BODY), "truncated: its tensors take 32 bytes"),
    "oversized": (write.safetensors_bytes({"a": entry([2], 0, 8)}, BODY), "8 bytes after its last tensor"),
    "overlap": (write.safetensors_bytes({"a": entry([3], 0, 12), "b": entry([2], 8, 16)}, BODY), "overlaps"),
    "same bytes": (write.safetensors_bytes({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, BODY), "overlaps"),
    "gap": (write.safetensors_bytes({"a": entry([1], 0, 4), "b": entry([2], 8, 16)}, BODY), "bytes 4 to 8 that belong"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "match"), BAD_SAFETENSORS.values(), ids=BAD_SAFETENSORS.keys())
def test_bad_safetensors(tmp_path: Path, content: bytes, match: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.safetensors.*{match}"):
        read_weights(tmp_path, SHAPES, NAMES)


def test_absurd_header_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "w").open("wb") as file:
        file.write((1 << 36).to_bytes(8, "little"))
        file.truncate(1 << 37)  # a sparse file: it takes no room
    with pytest.raises(ValueError, match="states a header of 68719476736 bytes"):
        read_safetensors(tmp_path / "w")


def test_every_truncation_of_safetensors_is_an_error(tmp_path: Path, arrays: Arrays) -> None:
    save_safetensors(tmp_path, arrays)
    data = (tmp_path / "model.safetensors").read_bytes()
    for size in range(1, len(data)):
        (tmp_path / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            read_weights(tmp_path, SHAPES, NAMES)


def test_damaged_safetensors_never_raise_anything_but_value_error(tmp_path: Path) -> None:
    save_file(write.random_arrays(), tmp_path / "w")
    assert damage_and_read(tmp_path / "w", read_safetensors) > 100


def test_shared_teacher(shared_dir: Path) -> None:
    directory = shared_dir / "models" / "minilm-l6-sst2"
    expected = load_file(directory / "model.safetensors")
    weights = read_weights(directory, {name: array.shape for name, array in expected.items()}, NAMES)
    assert weights.ignored == weights.missing == ()
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array)
