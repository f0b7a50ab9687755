"""A model's tensors by name: views of its flat arrays, and what fits into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..system.names import listing
from .architecture import Names

Flat = NDArray[np.float32]
_OLD_SUFFIXES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_LISTED = 4  # names in a message
EMBEDDINGS = ("embeddings.word", "embeddings.position", "embeddings.type")


class Tensor(NamedTuple):
    """A named tensor's place in the flat arrays; `decay`: weight decay applies to it.

    `name` is that of a checkpoint, `canonical` the core's.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    decay: bool
    canonical: str

    @property
    def size(self) -> int:
        """The number of its values."""
        return int(np.prod(self.shape))


class TensorViews(Mapping[str, Flat]):
    """The tensors of a flat array by name: views of the right shape, made on request.

    Called, it gives the arrays one by one: `for array in model.parameters()`, as in torch.

    Args:
        flat: the array, or a function that gives it at each access, so that views are up to date.
        layout: the tensors.
    """

    def __init__(self, flat: Flat | Callable[[], Flat], layout: Sequence[Tensor]) -> None:
        self.layout = layout
        self._flat = flat
        self._tensors = {tensor.name: tensor for tensor in layout}

    def __getitem__(self, name: str) -> Flat:
        tensor = self._tensors[name]
        shape, offset = tensor.shape, tensor.offset
        flat = self._flat() if callable(self._flat) else self._flat
        return flat[offset : offset + int(np.prod(shape))].reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __call__(self) -> Iterator[Flat]:
        return iter(self.values())


def by_canonical_name(layout: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors under the core's names, which are the same for every architecture."""
    return [tensor._replace(name=tensor.canonical) for tensor in layout]


def without_wrappers(name: str) -> str:
    """Return a tensor's name without the modules that wrap a model.

    These are "module" of torch's DataParallel, "_orig_mod" of torch.compile, wherever they stand, and a "model" in
    front, as trainers of others have it.
    """
    parts = [part for part in name.split(".") if part not in ("module", "_orig_mod")]
    return ".".join(parts[1:] if parts[:1] == ["model"] else parts)


def named_in(name: str, shapes: Mapping[str, Any], candidates: Callable[[str], Sequence[str]]) -> str | None:
    """Return the parameter that a name in a file or a state dict stands for, or None.

    It is understood with and without the architecture's prefix (`architecture.Names`), with LayerNorm's gamma and beta
    of transformers before 1.0, and below modules that wrap the model.

    Args:
        name: the name.
        shapes: has the names of the model's parameters as keys.
        candidates: name in a file -> the names that it can stand for.
    """
    for old, new in _OLD_SUFFIXES.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    bare = without_wrappers(name)
    return next((each for each in (*candidates(name), *candidates(bare)) if each in shapes), None)


def is_constant(name: str) -> bool:
    """Return whether a tensor counts positions, or is a buffer of zeros, which files of older transformers have."""
    return name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))


class IncompatibleKeys(NamedTuple):
    """The names that `load_state_dict` did not find, and those that the model does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def count_parameters(layout: Sequence[Tensor], exclude_embeddings: bool = False) -> int:
    """Return the number of parameters, with or without the embeddings of words, positions and token types."""
    shapes = (tensor.shape for tensor in layout if not (exclude_embeddings and tensor.canonical in EMBEDDINGS))
    return sum(int(np.prod(shape)) for shape in shapes)


class FittingArrays(NamedTuple):
    """The arrays of a state dict that have a place in a model, by name, and the names that do not fit."""

    arrays: dict[str, NDArray[Any]]
    keys: IncompatibleKeys


def fitting_arrays(
    state_dict: Mapping[str, Any], layout: Sequence[Tensor], strict: bool, names: Names
) -> FittingArrays:
    """Return the arrays of `state_dict` that `layout` has a place for.

    Names are understood as in a file, see `named_in`. Constants (`is_constant`) and copies of tied weights are left
    out.

    Raises:
        ValueError: a name is missing or unknown (with `strict`) or there twice, or an array has another shape than the
            parameter.
        TypeError: an array does not hold real numbers.
    """
    shapes = {tensor.name: tensor.shape for tensor in layout}
    found: dict[str, str] = {}
    unexpected = []
    for given in state_dict:
        name = named_in(given, shapes, names.candidates)
        if name is None:
            unexpected += [] if is_constant(given) or without_wrappers(given) in names.copies else [given]
        elif name in found:
            raise ValueError(f"state_dict has {name!r} twice, as {found[name]!r} and as {given!r}; expected it once")
        else:
            found[name] = given
    keys = IncompatibleKeys([name for name in shapes if name not in found], unexpected)
    if strict and (keys.missing_keys or keys.unexpected_keys):
        raise ValueError(
            f"state_dict lacks {listing(keys.missing_keys, _LISTED)} and has the unknown "
            f"{listing(keys.unexpected_keys, _LISTED)}; expected the names of named_parameters(), or pass strict=False "
            "to take what fits"
        )
    arrays = {name: _array(name, state_dict[found[name]], shapes[name]) for name in shapes if name in found}
    return FittingArrays(arrays, keys)


def _array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"state_dict[{name!r}] is {array.dtype}; expected real numbers")
    if array.shape != shape:
        raise ValueError(f"state_dict[{name!r}] has shape {array.shape}; expected {shape}")
    return array
