"""`Auxiliary`: parameters that are trained beside a model and are no part of it, such as the projections of a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..system.threads import aligned_zeros, get_num_threads, read_only

Flat = NDArray[np.float32]


class _Slot(NamedTuple):
    """The parameters and AdamW's moments after one step, and the gradients that the next one reads."""

    parameters: Flat
    m: Flat
    v: Flat
    gradients: Flat

    def state(self) -> dict[str, Flat]:
        """Return the parameters and the moments, by name."""
        return {"parameters": self.parameters, "m": self.m, "v": self.v}


class Auxiliary:
    """Matrices with gradients and AdamW's moments, which an `AdamW` updates in the step of its model.

    What holds is a function of the optimiser's count of steps: a step writes its results beside those of the step
    before, and counting it makes them hold, with gradients of zero. So an interrupt, wherever it comes, finds model and
    matrices at one step, and nothing is left to do after it.

    Args:
        matrices: the initial values by name, float32.
        learning_rate: multiplies that of the model, >= 0.
    """

    def __init__(self, matrices: Mapping[str, NDArray[np.float32]], learning_rate: float = 1.0) -> None:
        self.learning_rate = learning_rate
        self._shapes = {name: matrix.shape for name, matrix in matrices.items()}
        size = sum(matrix.size for matrix in matrices.values())
        self._slots = [_Slot(*(aligned_zeros(size) for _ in _Slot._fields)) for _ in range(2)]
        self._steps_done: Callable[[], int] = lambda: 0
        for name, view in self._views(self._slots[0].parameters).items():
            view[:] = matrices[name]

    def follow(self, steps_done: Callable[[], int]) -> None:
        """Let this count say which step's results hold."""
        self._steps_done = steps_done

    @property
    def _present(self) -> _Slot:
        return self._slots[self._steps_done() % 2]

    @property
    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """The matrices by name, read-only."""
        return self._views(read_only(self._present.parameters))

    @property
    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Views of their gradients, to be added to."""
        return self._views(self._present.gradients)

    @property
    def flat_gradients(self) -> Flat:
        """All gradients as one array."""
        return self._present.gradients

    @property
    def size(self) -> int:
        """How many numbers the matrices have together."""
        return self._present.gradients.size

    def gradient_norm(self) -> float:
        """Return the Euclidean norm of all gradients, summed in float64."""
        return math.sqrt(float(np.square(self._present.gradients, dtype=np.float64).sum()))

    def scale_gradients(self, factor: float) -> None:
        """Multiply all gradients."""
        gradients = self._present.gradients
        gradients *= np.float32(factor)

    def zero_grad(self) -> None:
        """Set the gradients to zero."""
        for slot in self._slots:
            slot.gradients.fill(0)

    def prepare_step(self, t: int, constants: tuple[float, float, float, float, float]) -> None:
        """Compute what holds once the t-th step is counted, t - 1 being done.

        Args:
            t: from 1.
            constants: learning rate of the model, beta1, beta2, eps and weight decay.
        """
        now, then = self._slots[(t - 1) % 2], self._slots[t % 2]
        for target, source in zip(then.state().values(), now.state().values(), strict=True):
            target[:] = source
        then.gradients.fill(0)
        own = (constants[0] * self.learning_rate, *constants[1:])
        _core.adamw(then.parameters, now.gradients, then.m, then.v, own, t, get_num_threads())

    def state_dict(self) -> dict[str, Flat]:
        """Return copies of "parameters", "m" and "v" as they hold."""
        return {name: array.copy() for name, array in self._present.state().items()}

    def load_state_dict(self, state: Mapping[str, Flat], steps_done: int) -> None:
        """Restore what `state_dict` returned after so many steps.

        Raises:
            ValueError: an array has another size.
        """
        self.zero_grad()  # those that a step has read are among them
        for name, target in self._slots[steps_done % 2].state().items():
            if state[name].shape != target.shape:
                raise ValueError(
                    f"the projections' {name} has shape {state[name].shape}; expected {target.shape}, as matches are"
                )
            target[:] = state[name]

    def _views(self, flat: Flat) -> dict[str, NDArray[np.float32]]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            end = start + math.prod(shape)
            views[name] = flat[start:end].reshape(shape)
            start = end
        return views
