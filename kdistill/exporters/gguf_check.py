"""A written GGUF file, read again with the package gguf and compared with what was to be in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def check_written(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Return the reader and its version, which found every tensor again.

    Args:
        path: of the file.
        tensors: what it was made of, by GGUF's names, finite.

    Raises:
        RuntimeError: a tensor has another name or shape, or numbers that rounding to its type does not explain.
    """
    from importlib.metadata import version

    from gguf import GGUFReader, quants

    found = {each.name: each for each in GGUFReader(path).tensors}
    if found.keys() != tensors.keys():
        raise _wrong(f"it has the tensors {sorted(found)}, expected {sorted(tensors)}")
    for name, expected in tensors.items():
        kind = found[name].tensor_type
        values = np.asarray(quants.dequantize(found[name].data, kind), np.float32)
        if values.shape != expected.shape:
            raise _wrong(f"{name} has the shape {values.shape}, expected {expected.shape}")
        beyond = np.abs(values - expected) > _rounding(expected, kind.name)
        if beyond.any():
            place = tuple(int(index) for index in np.argwhere(beyond)[0])
            raise _wrong(f"{name}{list(place)} is {values[place]:g}, expected {expected[place]:g} in {kind.name}")
    return f"gguf {version('gguf')}"


def _rounding(values: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Return how far a type's numbers may be from those that they stand for."""
    if kind == "F32":
        return np.zeros_like(values)
    if kind == "F16":
        return np.abs(values) * np.float32(2**-11) + np.float32(2**-25)
    # Q8_0: half of a block's step, which is a 127th of its largest number, and in 127 steps what rounding a step to
    # float16 adds; a thousandth more for float32.
    largest = np.abs(values.reshape(-1, 32)).max(axis=1)
    most = largest * np.float32((0.5 / 127 + 2**-11) * 1.001) + np.float32(127 * 2**-25)
    return np.repeat(most, 32).reshape(values.shape)


def _wrong(what: str) -> RuntimeError:
    return RuntimeError(f"the written gguf file is wrong: {what}; nothing was written")
