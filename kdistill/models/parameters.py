"""A model's tensors by name: views of its flat arrays, and the methods of `torch.nn.Module` that go with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Flat = NDArray[np.float32]
_EMBEDDINGS = ("embeddings.word", "embeddings.position", "embeddings.type")


class Tensor(NamedTuple):
    """A named tensor's place in the flat arrays; `decay` says whether weight decay applies to it.

    `name` is that of a checkpoint, `canonical` the core's.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    decay: bool
    canonical: str


class TensorViews(Mapping[str, Flat]):
    """The tensors of a flat array by name: views of their own shape, made when asked for.

    flat: the array, or a function that gives it at each access, so that views are up to date.

    Called, it gives the arrays one by one: `for array in model.parameters()`, as in torch.
    """

    def __init__(self, flat: Flat | Callable[[], Flat], layout: Sequence[Tensor]) -> None:
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


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it had no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class NamedParameters(ABC):
    """What a model with named parameters can do, under the names of `torch.nn.Module`, in NumPy."""

    layout: Sequence[Tensor]
    frozen: bool

    @property
    @abstractmethod
    def parameters(self) -> TensorViews:
        """Named views of the parameters."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Flat]:
        """Gives the flat parameters for writing."""

    def named_parameters(self) -> Iterator[tuple[str, Flat]]:
        """Gives (name, view) of each parameter, as `parameters` shows them."""
        return iter(self.parameters.items())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Returns the number of parameters.

        Args:
            only_trainable: count those that can be trained: none of a frozen model.
            exclude_embeddings: leave out the embeddings of words, positions and token types.
        """
        if only_trainable and self.frozen:
            return 0
        counted = [
            tensor.shape for tensor in self.layout if not (exclude_embeddings and tensor.canonical in _EMBEDDINGS)
        ]
        return sum(int(np.prod(shape)) for shape in counted)

    def state_dict(self) -> dict[str, Flat]:
        """Returns a copy of each parameter by name, float32; training on does not change it."""
        return {name: view.copy() for name, view in self.named_parameters()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Sets parameters by name: all of them or, when anything does not fit, none.

        Args:
            state_dict: arrays, or what NumPy makes one of, such as tensors of torch on the CPU.
            strict: refuse missing and unknown names.

        Returns:
            The names that were missing, and those that the model does not have.

        Raises:
            ValueError: a name is missing or unknown (with `strict`), or an array has another shape than the parameter.
            TypeError: an array does not hold real numbers.
            RuntimeError: the model is frozen.
        """
        shapes = {tensor.name: tensor.shape for tensor in self.layout}
        keys = IncompatibleKeys(
            [name for name in shapes if name not in state_dict], [name for name in state_dict if name not in shapes]
        )
        if strict and (keys.missing_keys or keys.unexpected_keys):
            raise ValueError(
                f"state_dict lacks {_listed(keys.missing_keys)} and has the unknown {_listed(keys.unexpected_keys)}; "
                "expected the names of named_parameters(), or pass strict=False to take what fits"
            )
        arrays = {name: _array(name, state_dict[name], shapes[name]) for name in shapes if name in state_dict}
        with self.writing() as flat:
            views = TensorViews(flat, self.layout)
            for name, array in arrays.items():
                views[name][...] = array
        return keys

    def train(self, mode: bool = True) -> Self:
        """Returns the model as it is: dropout is a matter of the pass, `forward(batch, train=True)`."""
        return self

    def eval(self) -> Self:
        """Returns the model as it is: a call `model(...)` and `forward(batch)` never use dropout."""
        return self


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"


def _array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"state_dict[{name!r}] is {array.dtype}; expected real numbers")
    if array.shape != shape:
        raise ValueError(f"state_dict[{name!r}] has shape {array.shape}; expected {shape}")
    return array
