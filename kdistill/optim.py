"""AdamW, clipping by global norm, and the linear schedule; the arithmetic runs in the C core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdistill.model import BertForSequenceClassification
from kdistill.runtime import aligned_zeros, get_num_threads

_CONSTANTS = 6  # floats of one step's constants in the core


class AdamW:
    """AdamW (Loshchilov, Hutter, arXiv:1711.05101), as `torch.optim.AdamW` computes it.

        p -= lr * weight_decay * p
        m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
        p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)

    Weight decay applies to matrices; biases and LayerNorm have none.

    Args:
        model: the model to train. Its moments m and v are allocated at the first step.
        lr: learning rate, >= 0; may be set between steps.
        betas: decay of the two moments, each in [0, 1).
        eps: added to the root, >= 0.
        weight_decay: >= 0.

    Raises:
        ValueError: an argument is out of its range.
        RuntimeError: the model is frozen.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; expected a finite number of at least 0")
        for index, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{index}] is {beta}; expected a number in [0, 1)")
        if model.frozen:
            raise RuntimeError("the model is frozen (it serves as a teacher); it cannot be trained")
        self.model = model
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self._t = 0
        self._m = self._v = aligned_zeros(0)
        # Word embeddings move late: how many steps each row has had, and the constants of the steps after `_base`.
        self._done = np.zeros(model.config.vocab_size, np.int32)
        self._base = 0
        self._history = np.zeros((0, _CONSTANTS), np.float32)

    def step(self) -> None:
        """Moves the parameters along the gradients, and begins the next effective batch of dropout.

        Rows of the word embeddings without a gradient are left for later: the model brings them up to date when it
        next reads them, with the same arithmetic as a step in time.
        """
        model = self.model
        core = model.trainable_core()
        if not self._m.size:
            self._m, self._v = aligned_zeros(model.num_flat), aligned_zeros(model.num_flat)
        model.follow(self)
        if self._t == self._base + len(self._history):
            grown = np.zeros((max(256, 2 * len(self._history)), _CONSTANTS), np.float32)
            grown[: len(self._history)] = self._history
            self._history = grown
        constants = (self.lr, self.betas[0], self.betas[1], self.eps, self.weight_decay)
        # Whatever can fail, for want of memory, comes before the parameters move.
        t, optimizer_step = self._t + 1, model.optimizer_step + 1
        core.adamw_step(self._state(t), constants, get_num_threads())
        self._t, model.optimizer_step, model.tokens_in_step = t, optimizer_step, 0

    def _state(self, t: int) -> tuple[Any, ...]:
        return self._m, self._v, self._done, self._history, self._base, t

    def catch_up(self, ids: NDArray[np.int32] | None = None) -> None:
        """Does the steps that rows of the word embeddings have missed; the model calls it before it reads them.

        Args:
            ids: int32, the words; default all of them.
        """
        if self._t == self._base:
            return
        self.model.core.catch_up(self._state(self._t), ids, get_num_threads())
        if ids is None:
            self._base = self._t

    def zero_grad(self) -> None:
        """Sets the model's gradients to zero."""
        self.model.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Returns {"step": int, "m": flat float32, "v": flat float32}; the arrays are copies, up to date."""
        self.catch_up()
        return {"step": self._t, "m": self._m.copy(), "v": self._v.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: the moments are not of this model's size.
        """
        size = self.model.num_flat if state["step"] else 0  # the first step makes them
        for name in ("m", "v"):
            if state[name].size not in (size, self.model.num_flat):
                raise ValueError(f"{name} has {state[name].size} values; this model's optimiser has {size}")
        self.catch_up()
        moments = [aligned_zeros(state[name].size) for name in ("m", "v")]
        for moment, name in zip(moments, ("m", "v"), strict=True):
            moment[:] = state[name]
        self._m, self._v = moments
        self._t = self._base = int(state["step"])
        self._done[:] = self._t


def clip_grad_norm_(model: BertForSequenceClassification, max_norm: float) -> float:
    """Scales all gradients so that their common Euclidean norm is at most `max_norm`, in place.

    As `torch.nn.utils.clip_grad_norm_` (Pascanu, Mikolov, Bengio, arXiv:1211.5063, algorithm 1), with its 1e-6 in
    the divisor.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: `max_norm` is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}; expected a number above 0")
    core = model.trainable_core()
    norm = core.gradient_norm(get_num_threads())
    factor = max_norm / (norm + 1e-6)
    if factor < 1:
        core.scale_gradients(factor, get_num_threads())
    return norm


def get_linear_schedule_with_warmup(num_warmup_steps: int, num_training_steps: int) -> Callable[[int], float]:
    """Returns the multiplier of the learning rate as a function of the step, counted from 0.

    It rises linearly from 0 to 1 over the warm-up and then falls linearly to 0 at `num_training_steps`.
    """

    def multiplier(step: int) -> float:
        if step < num_warmup_steps:
            return step / max(1, num_warmup_steps)
        return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

    return multiplier
