"""AdamW and clipping by global norm; the arithmetic runs in the C core."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..models.model import Model, check_model
from ..system.foreign import package_of
from ..system.threads import aligned_zeros, get_num_threads
from .auxiliary import Auxiliary

_PIECE = 1 << 22  # parameters copied between two looks for signals


class AdamW:
    """AdamW (Loshchilov, Hutter, arXiv:1711.05101), as `torch.optim.AdamW` computes it.

        p -= lr * weight_decay * p
        m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
        p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    Weight decay applies to matrices; biases and LayerNorm have none.

    With an `ema_decay` it also keeps an exponential moving average of the parameters. The average begins with the
    parameters before the first step, and after each step

        average += (1 - min(ema_decay, (1 + t) / (10 + t))) * (p - average),  t = 0, 1, ...

    as TensorFlow's `ExponentialMovingAverage(ema_decay, num_updates=t)`. Updates of word embeddings that are postponed
    (see `step`) enter the average as if they had been done in time.

    Args:
        model: the model to train. Its moments m and v are allocated at the first step.
        lr: learning rate, >= 0; may be set between steps.
        betas: decay of the two moments, each in [0, 1).
        eps: added to the root, >= 0.
        weight_decay: >= 0.
        ema_decay: in [0, 1); 0 for no average.
        auxiliary: parameters beside the model, updated in the same step at a learning rate of their own; the average
            leaves them out.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: `model` is something else, such as its parameters.
        RuntimeError: the model is frozen.
    """

    def __init__(
        self,
        model: Model,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        ema_decay: float = 0.0,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        if not isinstance(model, Model) and package_of(model) is None:
            raise TypeError(f"model is a {type(model).__name__}; expected the model itself, not its parameters")
        check_model("model", model)
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; expected a finite number of at least 0")
        for name, value in (("betas[0]", betas[0]), ("betas[1]", betas[1]), ("ema_decay", ema_decay)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; expected a number in [0, 1)")
        if model.frozen:
            raise model.frozen_error("it cannot be trained")
        self.model = model
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.auxiliary = auxiliary
        self._m = self._v = aligned_zeros(0)
        self._average: NDArray[np.float32] | None = None
        self._trained: NDArray[np.float32] | None = None  # the trained parameters, while the model has others
        # Updates of word embeddings are postponed. _done: steps done of each row and, as the last entry, of all other
        # tensors. _history: the constants of each step after `_base`, with which a row catches up.
        self._layout = model.layout
        self._done = np.zeros(model.config.vocab_size + 1, np.int32)
        self._base = 0
        self._history = np.zeros((0, _core.ADAMW_CONSTANTS), np.float32)
        if auxiliary is not None:
            auxiliary.follow(lambda: self._t)

    @property
    def steps_done(self) -> int:
        """Steps done; one that a signal interrupts is done and counted, or neither."""
        return self._t

    @property
    def _t(self) -> int:
        return int(self._done[-1])

    def step(self) -> None:
        """Update the parameters by their gradients, and begin the next effective batch of dropout.

        Updates of word-embedding rows without a gradient are postponed: the model applies them when it next reads the
        rows, with bits identical to those of an update in time.
        """
        model = self.model
        if self._layout is not model.layout and self._layout != model.layout:
            raise RuntimeError(
                "the model's token embeddings were resized after this optimiser was made; make the optimiser after "
                "resize_token_embeddings"
            )
        core = model.trainable_core()
        if not self._m.size:
            # The zeros are written now, so that the system provides the memory here, where signals are answered, and
            # not during the first step in the core, where they are not.
            zeros = np.broadcast_to(np.float32(0), model.num_flat)
            self._m, self._v = _aligned_copy(zeros), _aligned_copy(zeros)
        model.track_pending_updates(self)
        if self.ema_decay and self._average is None:
            self._average = _aligned_copy(model.flat_parameters)
        if self._t == self._base + len(self._history):
            grown = np.zeros((max(256, 2 * len(self._history)), _core.ADAMW_CONSTANTS), np.float32)
            grown[: len(self._history)] = self._history
            self._history = grown
        share = 1 - min(self.ema_decay, (1 + self._t) / (10 + self._t))
        constants = (self.lr, self.betas[0], self.betas[1], self.eps, self.weight_decay, share)
        # Everything that may run out of memory comes before the parameters change.
        if self.auxiliary is not None:
            self.auxiliary.prepare_step(self._t + 1, constants[:5])
        model.has_new_layers = False
        t, position = self._t + 1, (model.optimizer_step, model.tokens_in_step)
        state, threads = self._state(t), get_num_threads()
        model.optimizer_step, model.tokens_in_step = model.optimizer_step + 1, 0
        try:
            core.adamw_step(state, constants, threads)
        except BaseException:
            if self._t != t:  # otherwise the step is done, and this is a signal that arrived during it
                model.optimizer_step, model.tokens_in_step = position
            raise

    def _state(self, t: int) -> tuple[Any, ...]:
        return self._m, self._v, self._average, self._done, self._history, self._base, t

    def catch_up(self, ids: NDArray[np.int32] | None = None) -> None:
        """Apply the postponed updates of word-embedding rows; the model calls it before it reads them.

        Args:
            ids: int32, the rows (default: all).
        """
        if self._t == self._base:
            return
        self.model.core.catch_up(self._state(self._t), ids, get_num_threads())
        if ids is None:
            self._base = self._t

    def zero_grad(self) -> None:
        """Set the gradients of the model, and of what is trained beside it, to zero."""
        self.model.zero_grad()
        if self.auxiliary is not None:
            self.auxiliary.zero_grad()

    def use_average(self) -> bool:
        """Give the model the average in place of the trained parameters, until `give_back`.

        Returns whether it has been done here: not without an average, nor while the model has other parameters.
        """
        if self._average is None or self._trained is not None:
            return False
        self.set_aside()
        with self.model.writing() as parameters:
            parameters[:] = self._average
        return True

    def set_aside(self) -> None:
        """Keep the trained parameters, if they are not kept yet, so that the model may be given others."""
        if self._trained is None:
            self._trained = _aligned_copy(self.model.flat_parameters)

    def give_back(self) -> None:
        """Give the model the trained parameters again, if it has others. An interrupted call can be repeated."""
        if self._trained is not None:
            with self.model.writing() as parameters:
                parameters[:] = self._trained
            self._trained = None

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the state, after applying postponed updates.

        Returns:
            {"step": int, "m": float32 (num_flat,), "v": float32 (num_flat,)}, with "average": float32 (num_flat,) if
            there is one, and "auxiliary": that of `Auxiliary.state_dict`, if there is one. Before the first step the
            arrays are empty, but for the latter.
        """
        self.catch_up()
        state: dict[str, Any] = {"step": self._t, "m": _aligned_copy(self._m), "v": _aligned_copy(self._v)}
        if self._average is not None:
            state["average"] = _aligned_copy(self._average)
        if self.auxiliary is not None:
            state["auxiliary"] = self.auxiliary.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            ValueError: an array does not have this model's size, or there are other parameters beside it.
        """
        if ("auxiliary" in state) != (self.auxiliary is not None):
            found = "state has" if "auxiliary" in state else "this optimiser has"
            raise ValueError(f"{found} parameters beside the model, and the other has none; expected the same for both")
        size = self.model.num_flat if state["step"] else 0  # the first step makes them
        arrays = {name: state[name] for name in ("m", "v", "average") if name in state}
        for name, array in arrays.items():
            if array.size not in (size, self.model.num_flat):
                raise ValueError(f"{name} has {array.size} values; this model's optimiser has {size}")
        self.catch_up()
        if self.auxiliary is not None:
            self.auxiliary.load_state_dict(state["auxiliary"], int(state["step"]))
        self._m, self._v = _aligned_copy(arrays["m"]), _aligned_copy(arrays["v"])
        self._average = _aligned_copy(arrays["average"]) if "average" in arrays and self.ema_decay else None
        self._base = int(state["step"])
        self._done[:] = self._base


@contextmanager
def averaged(optimizer: AdamW | None) -> Iterator[None]:
    """Give the optimiser's model its average in place of its parameters inside the block, to evaluate or save it.

    Without an optimiser or an average the model stays as it is. Do not train inside the block.
    """
    exchanged = optimizer is not None and optimizer.use_average()
    try:
        yield
    finally:
        if exchanged:
            assert optimizer is not None
            optimizer.give_back()


def _aligned_copy(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy in pieces, between which signals are answered: new memory of BERT-base's size takes a second to arrive."""
    copy = aligned_zeros(array.size)
    for start in range(0, array.size, _PIECE):
        copy[start : start + _PIECE] = array[start : start + _PIECE]
    return copy


def clip_grad_norm_(model: Model, max_norm: float, *, auxiliary: Auxiliary | None = None) -> float:
    """Scale all gradients in place so that their common Euclidean norm is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_` (Pascanu, Mikolov, Bengio, arXiv:1211.5063, algorithm 1), with its 1e-6 in
    the divisor.

    Args:
        model: the model with the gradients.
        max_norm: above 0.
        auxiliary: parameters beside it, whose gradients count too.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: `max_norm` is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}; expected a number above 0")
    check_model("model", model)
    core = model.trainable_core()
    norm = core.gradient_norm(get_num_threads())
    if auxiliary is not None:
        norm = math.hypot(norm, auxiliary.gradient_norm())
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        core.scale_gradients(factor, get_num_threads())
        if auxiliary is not None:
            auxiliary.scale_gradients(factor)
    return norm
