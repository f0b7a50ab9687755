"""The files that a model was loaded from, which give its weights again where it holds them packed alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ..formats.int8 import Int8Rows
from .checkpoint import weights_stamp
from .parameters import Flat, Tensor

Filling = Callable[[Tensor], AbstractContextManager[Flat]]
TakeInt8 = Callable[[Tensor, Int8Rows], None]


class Fill(Protocol):
    """Fills all tensors of a model from files; see `loading.load_parameters`."""

    def __call__(self, filling: Filling, take_int8: TakeInt8 | None) -> None: ...


class WeightFiles:
    """The weights of a directory, as long as they are the ones that were there at first.

    Args:
        directory: of the model.
        fill: fills the tensors from it.
    """

    def __init__(self, directory: Path, fill: Fill) -> None:
        self._directory, self._fill = directory, fill
        self._stamp = weights_stamp(directory)

    def read(self, filling: Filling, take_int8: TakeInt8 | None = None) -> None:
        """Fill the tensors, with the warnings that files give."""
        self._fill(filling, take_int8)

    def read_again(self, filling: Filling, take_int8: TakeInt8 | None = None) -> None:
        """Fill the tensors once more. What is to be said of the files was said before.

        Raises:
            FileNotFoundError: the files are gone.
            RuntimeError: they were changed since.
        """
        if weights_stamp(self._directory) != self._stamp:
            raise RuntimeError(
                f"{self._directory} has other weights than when the model was loaded from it, and they are to be read "
                "again, since the model holds its weights packed alone; load it again"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._fill(filling, take_int8)
