"""Weights of a model directory: found, mapped, renamed to canonical names and checked before memory is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..formats.int8 import Int8Rows, Int8Tensor, with_scales
from ..formats.mapped_tensor import StoredTensor
from ..formats.onnx_file import read_onnx
from ..formats.safetensors import read_safetensors, write_safetensors
from ..formats.torch_bin import read_torch_bin
from ..hub import shard_names
from ..system.files import read_json_object
from .architecture import Names
from .parameters import named_in, without_wrappers

Stored = StoredTensor | Int8Tensor
"""A tensor in a file."""
GOLDEN = "golden."
"""What the names of an artefact's golden logits begin with, which are no weights; see `golden.Golden`."""
WEIGHTS_FILE = "model.safetensors"
# In the order of preference of transformers, which reads no ONNX; each index stands for the shards it lists.
WEIGHTS_FILES = (
    WEIGHTS_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "onnx/model.onnx",
    "model.onnx",
)
_OTHER_READERS = {".bin": read_torch_bin, ".onnx": read_onnx}


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, NDArray[np.float32]]):
    """A mapping from canonical names to float32 C-contiguous arrays, which are read on access.

    An array is read-only where it is a view of the mapped file.

    Attributes:
        tensors: canonical name -> tensor in the file.
        ignored: names in the file that the model does not use, such as those of another head.
        missing: names of the head's tensors that the file lacks.
        mismatched: canonical name -> shape in the file, of the tensors that `ignore_mismatched_sizes` left out.
        left_out: names in the file of the tensors of `unread_layers`.
    """

    tensors: Mapping[str, Stored]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name].read()

    def fill(self, name: str, values: NDArray[np.float32]) -> None:
        """Write a tensor to `values`, an array of its shape."""
        tensor = self.tensors[name]
        if isinstance(tensor, Int8Tensor):
            tensor.fill(values)
        else:
            values[...] = tensor.read()

    def int8_rows(self, name: str) -> Int8Rows | None:
        """Return a tensor that the file has in int8 as it is there; None for others."""
        tensor = self.tensors.get(name)
        return tensor.rows() if isinstance(tensor, Int8Tensor) else None

    def release(self, name: str) -> None:
        """Give back the memory of a tensor's part of the mapped file, after its values were copied."""
        self.tensors[name].release()

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def read_weights(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    names: Names,
    *,
    unread_layers: range = range(0),
    ignore_mismatched_sizes: bool = False,
) -> Weights:
    """Find and check the weights in `directory` for a model with these parameters.

    Accepts safetensors and torch's pytorch_model.bin, in one file or in shards, and ONNX files of weights with names
    (`read_onnx`), of float64, float32, float16, bfloat16 or, in safetensors, of int8 beside scales (`formats.int8`),
    under the names that `parameters.named_in` understands.

    Args:
        directory: where the files are.
        shapes: canonical name -> shape of each parameter.
        names: what the model calls its tensors.
        unread_layers: the layers of the file that the model is to do without.
        ignore_mismatched_sizes: leave out tensors of another shape instead of raising.

    Raises:
        FileNotFoundError: `directory` has no weights, or not all shards.
        ValueError: a file is damaged or hostile, a shape or type differs, or a weight outside of the head is
            missing.
    """
    path = _find_weights(directory)
    stored = _read_shards(path) if path.name.endswith(".index.json") else _read_file(path)
    found: dict[str, Stored] = {}
    ignored = []
    for name, tensor in stored.items():
        canonical = named_in(name, shapes, names.candidates)
        if canonical is None:
            ignored += [] if without_wrappers(name) in names.copies else [name]
        elif canonical in found:
            raise ValueError(f"{path} has two tensors for {canonical!r}; one of them is {name!r}")
        else:
            found[canonical] = tensor
    mismatched = {name: tensor.shape for name, tensor in found.items() if tensor.shape != tuple(shapes[name])}
    if mismatched and not ignore_mismatched_sizes:
        raise ValueError(_why_mismatched(path, mismatched, shapes, names.prefixes("head.output")))
    for name, tensor in found.items():
        if not tensor.is_float:
            raise ValueError(f"{path} has {name!r} as {tensor.element_type}; expected floating-point numbers")
    of_layers = {name: layer for name in ignored if (layer := _layer_of(name, names)) is not None}
    unread = {*map(str, unread_layers)}
    left_out = [name for name, layer in of_layers.items() if layer in unread]
    extra_layers = [name for name in of_layers if name not in left_out]
    if extra_layers:
        raise ValueError(
            f"{path} has {extra_layers[0]!r}, for which the configuration has no place; check that both are of one "
            "model"
        )
    missing = [name for name in shapes if name not in found]
    head = names.prefixes("head.")
    lost = [name for name in missing if not name.startswith(head)]
    if lost:
        raise ValueError(
            f"{path} lacks {len(lost)} of {len(shapes)} weights, the first of them {lost[0]!r}"
            + (f"; it has names such as {ignored[0]!r}" if ignored else "")
        )
    fitting = {name: tensor for name, tensor in found.items() if name not in mismatched}
    useless = tuple(name for name in ignored if name not in of_layers)
    return Weights(fitting, useless, tuple(missing), mismatched, tuple(left_out))


def weights_stamp(directory: Path) -> list[tuple[int, ...]]:
    """Return by what the files of weights differ from others that take their place: inode, size and time of change.

    Raises:
        FileNotFoundError: there are none, or not all shards.
    """
    path = _find_weights(directory)
    files = [path.with_name(name) for name in shard_names(path)] if path.name.endswith(".index.json") else [path]
    return [(found.st_ino, found.st_size, found.st_mtime_ns) for found in (file.stat() for file in files)]


def write_weights(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Write `arrays` by name as safetensors, atomically, to `path`, or to model.safetensors if that is a directory."""
    path = Path(path)
    write_safetensors(path / WEIGHTS_FILE if path.is_dir() else path, arrays, {"format": "pt"})


def _find_weights(directory: Path) -> Path:
    """Return the file of weights in `directory`, or the index of its shards."""
    for name in WEIGHTS_FILES:
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"{directory} has no weights; expected one of {', '.join(WEIGHTS_FILES)}")


def _read_file(path: Path) -> Mapping[str, Stored]:
    if path.suffix in _OTHER_READERS:
        return _OTHER_READERS[path.suffix](path)
    tensors = with_scales(path, read_safetensors(path))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(GOLDEN)}


def _read_shards(index: Path) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    for name in shard_names(index):
        shard = index.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(f"{index} lists {name!r}, which is not there")
        tensors = _read_file(shard)
        twice = tensors.keys() & stored.keys()
        if twice:
            raise ValueError(f"{shard} has {min(twice)!r}, which another shard has too")
        stored |= tensors
    absent = read_json_object(index)["weight_map"].keys() - stored.keys()
    if absent:
        raise ValueError(f"{index} lists {min(absent)!r}, which none of its shards has")
    return stored


def _layer_of(name: str, names: Names) -> str | None:
    """Return the number of the layer that a tensor in a file belongs to, as it is written; None outside layers."""
    for each in names.candidates(without_wrappers(name)):
        for beginning in names.prefixes("layer."):
            if each.startswith(beginning):
                return each.removeprefix(beginning).partition(".")[0]
    return None


def _why_mismatched(
    path: Path,
    mismatched: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    classifier: tuple[str, ...],
) -> str:
    """Return an error message about the most telling tensor: one of the classifier only if all others fit."""
    name = min(mismatched, key=lambda name: name.startswith(classifier))
    message = f"{path} has {name!r} of shape {mismatched[name]}; the configuration expects {tuple(shapes[name])}"
    if not name.startswith(classifier):
        return message
    return (
        f"{message}: the file's classifier has {mismatched[name][0]} labels, and the model is to have "
        f"{shapes[name][0]}. Leave num_labels, id2label and label2id as they are to use it, or pass "
        "ignore_mismatched_sizes=True (--ignore-mismatched-sizes) to begin with a new classifier"
    )
