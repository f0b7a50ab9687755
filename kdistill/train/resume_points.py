"""The moments of a run from which it can go on with the same bits, for the checkpoint that an interrupt leaves.

Parameters and optimiser change in one place only, AdamW's step, which is done whole or not at all. All else that a run
consists of is small: `TrainerState` and the states of the callbacks. So they are noted at two moments,

- before the optimiser's step, as they will be once it is done: everything that is due after it is still to be done;
- when what was due after a step (log, evaluation, checkpoint) is done,

and an interrupt, wherever it comes, finds parameters that belong to one of the latest two notes.

`TrainerState.unfinished` holds, by name,

    event           the first event that is still to be called after the latest step, "on_optimizer_step" or, when an
                    evaluation has ended the run within an epoch, "on_epoch_end"; absent when nothing is left to do
    grad_norm, learning_rate    of the latest step, for its log entry
    control         the flags that callbacks had set before the event
    callbacks       the states of the callbacks, where they differ from those of the latest checkpoint of a strategy
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from .callbacks import Events, TrainerControl
from .optim import AdamW
from .state import TrainerState

FLAGS = tuple(field.name for field in fields(TrainerControl))
CallbackStates = dict[str, list[dict[str, Any]]]


class _Point(NamedTuple):
    state: TrainerState
    entries: int
    """How many entries its log has: the list grows on."""


class ResumePoints:
    """The latest two points of a run.

    Args:
        optimizer: that of the model.
        state: where the run stands.
        events: whose `control` is noted.
        callback_states: returns the states of callbacks and learning rate, ready for JSON.
        started: the time, by `time.monotonic`, at which `state.train_runtime` would have been 0.
    """

    def __init__(
        self,
        optimizer: AdamW,
        state: TrainerState,
        events: Events,
        callback_states: Callable[[], CallbackStates],
        started: float,
    ) -> None:
        self._optimizer, self._state, self._events = optimizer, state, events
        self._callback_states, self._started = callback_states, started
        self._points: tuple[_Point, ...] = ()

    def before_update(self, loss: float, grad_norm: float, parts: dict[str, float]) -> None:
        """Note the point that the run reaches with the optimiser's step, which comes next."""
        state, control = self._state.copied(), self._events.control
        state.add_step(loss, parts)
        state.train_runtime = time.monotonic() - self._started
        self._note(
            state,
            event="on_optimizer_step",
            grad_norm=grad_norm,
            learning_rate=self._optimizer.lr,
            control={name: bool(getattr(control, name)) for name in FLAGS},
        )

    def after_due(self) -> None:
        """Note that everything is done that was due after the latest step."""
        state = self._state.copied()
        state.stopped = self._events.control.should_training_stop and state.steps_passed < state.max_steps
        self._note(state)

    def latest(self) -> TrainerState | None:
        """Return the state at the latest point that the parameters belong to; None before the first step."""
        for point in reversed(self._points):
            if point.state.global_step == self._optimizer.steps_done:
                point.state.log_history = point.state.log_history[: point.entries]
                return point.state
        return None

    def _note(self, state: TrainerState, **left: Any) -> None:
        state.unfinished = {**left, "callbacks": self._callback_states()}
        self._points = (*self._points[-1:], _Point(state, len(state.log_history)))
