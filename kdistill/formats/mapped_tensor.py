"""A tensor inside a mapped file: described and checked first, read on request."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

# Element types by their names in safetensors, and the NumPy type of the bytes. NumPy has no bfloat16: its bits are the
# upper half of a float32.
ELEMENT_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor:
    """A view of the bytes of one storage, as torch defines it.

    Args:
        element_type: a key of `ELEMENT_TYPES`.
        shape: of the tensor.
        strides: in elements, one for each axis.
        offset: of the first element, in elements.
        storage: uint8, the bytes of a whole number of elements.

    Raises:
        ValueError: the view reaches outside the storage or has more elements than it.
    """

    element_type: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides):
            raise ValueError(f"shape {self.shape} and strides {self.strides} differ in length")
        if min((*self.shape, *self.strides, self.offset), default=0) < 0:
            raise ValueError(f"shape {self.shape}, strides {self.strides} or offset {self.offset} is negative")
        held = self.storage.nbytes // ELEMENT_TYPES[self.element_type].itemsize
        size = math.prod(self.shape)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        # A view larger than its storage repeats elements; reading it could take any amount of memory.
        if size > held or (size and last >= held):
            raise ValueError(
                f"shape {self.shape} with strides {self.strides} from element {self.offset} does not fit a storage of "
                f"{held} elements"
            )

    @property
    def is_float(self) -> bool:
        """True if the elements are floating-point numbers, which `read` needs."""
        return self.element_type in _FLOATS

    def read(self) -> NDArray[np.float32]:
        """Return the values as C-contiguous, aligned float32.

        The array is a read-only view of the mapped file where the file holds them in this form, and a copy otherwise.

        Raises:
            ValueError: the elements are not floating-point numbers.
        """
        if not self.is_float:
            raise ValueError(f"holds {self.element_type}; expected one of {', '.join(_FLOATS)}")
        view = self.elements()
        if self.element_type == "BF16":
            widened = np.zeros((*self.shape, 2), np.dtype("<u2"))
            widened[..., 1] = view
            return widened.view("<f4").reshape(self.shape)
        return np.require(view, np.float32, ["C", "A"])

    def elements(self) -> NDArray[Any]:
        """Return the elements as they are stored, a read-only view of the mapped file (bfloat16: its bits)."""
        elements = ELEMENT_TYPES[self.element_type]
        if not math.prod(self.shape):
            return np.empty(self.shape, elements)
        flat = self.storage.view(elements)[self.offset :]
        strides = tuple(stride * elements.itemsize for stride in self.strides)
        return as_strided(flat, self.shape, strides, writeable=False)

    def release(self) -> None:
        """Give the mapped file's memory back to the system, after the values were copied; later reads load it again."""
        owner: Any = self.storage
        while isinstance(owner, (np.ndarray, memoryview)):
            owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
        if isinstance(owner, mmap.mmap):
            owner.madvise(mmap.MADV_DONTNEED)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a C-contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def map_file(path: Path) -> NDArray[np.uint8]:
    """Return a read-only memory map of a file as uint8. Raises `ValueError` for an empty file or a Git LFS pointer."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if data[: len(_LFS_POINTER)].tobytes() == _LFS_POINTER:
        raise ValueError(f"{path} is a Git LFS pointer, not the file it stands for; fetch it with `git lfs pull`")
    return data
