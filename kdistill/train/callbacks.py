"""Callbacks, which watch and steer a training run, with the events of `transformers.TrainerCallback`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..system.files import json_text
from .arguments import TrainingArguments
from .state import TrainerState, packed, unpacked


@dataclass
class TrainerControl:
    """Decisions about the next actions of the trainer; a callback may change them.

    Attributes:
        should_training_stop: whether to end the run.
        should_epoch_stop: whether to end the epoch; its remaining steps count as passed.
        should_log, should_evaluate, should_save: whether to do so after the present step.
    """

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_log: bool = False
    should_evaluate: bool = False
    should_save: bool = False


@runtime_checkable
class ExportableState(Protocol):
    """A callback with a state that a resumed run restores: the JSON-ready values in `state()["attributes"]`."""

    def state(self) -> dict[str, Any]: ...


Callback = Any
"""A `TrainerCallback`, or another object with some of its methods, such as a callback written for transformers."""


class TrainerCallback:
    """A base class for callbacks: override the events you need.

    Each event gets (args, state, control) and the keyword arguments `model`, `processing_class` and `optimizer` (None
    outside of training); `on_log` gets `logs`, and `on_evaluate` and `on_predict` get `metrics`. An event may change
    `control` or return another one.
    """

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the creation of the trainer."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the beginning of training, before the first step."""

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the end of training, also by an error or Ctrl-C."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the beginning of an epoch. A run resumed inside an epoch calls it before its own first step."""

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the end of an epoch, before its log, evaluation and checkpoint; also when training stops midway."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the beginning of an optimiser step."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the end of a batch, except the last of a step, when gradients are accumulated."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the gradients of a step: they are clipped, and the parameters not yet updated."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the update of a step: the parameters are updated, and the gradients not yet zero."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the end of an optimiser step; `control` holds what the strategies have decided."""

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the end of a batch of an evaluation or a prediction."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the end of an evaluation, whose figures are `metrics`."""

    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to the end of a prediction, whose figures are `metrics`."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to a new checkpoint."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """React to `logs`, the entry just added to `state.log_history`, also outside of training."""

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """React to the beginning of an upload to the hub."""


EVENTS = tuple(name for name in vars(TrainerCallback) if name.startswith("on_"))
"""The events of a run."""


class CallbackHandler:
    """The callbacks of one trainer, in the order of their calls.

    Attributes:
        control: the control as the latest call left it.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = [_instance(callback) for callback in callbacks]
        self.control = TrainerControl()

    def add(self, callback: Callback) -> None:
        """Append a callback; a class is instantiated. Raises `TypeError` for what cannot be one."""
        self.callbacks.append(_instance(callback))

    def pop(self, callback: Callback) -> Callback | None:
        """Remove and return the callback, or the first instance of a class, or return None if it is not there."""
        for found in self.callbacks:
            if found is callback or (isinstance(callback, type) and isinstance(found, callback)):
                self.callbacks.remove(found)
                return found
        return None

    def copied(self) -> CallbackHandler:
        """Return a handler for another run, with shallow copies of the callbacks."""
        return CallbackHandler(copy.copy(callback) for callback in self.callbacks)

    def call(self, event: str, args: TrainingArguments, state: TrainerState, **kwargs: Any) -> None:
        """Call `event` of each callback that has it; a control that one returns replaces the present one.

        The first callback that raises ends the calls, except for on_train_end, where callbacks close what they opened:
        there the first error is raised after all calls, with a note on each further one.
        """
        control, errors = self.control, []
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is None:
                continue
            try:
                control = method(args, state, control, **kwargs) or control
            except Exception as error:
                if event != "on_train_end":
                    raise
                errors.append(error)
        self.control = control
        for other in errors[1:]:
            errors[0].add_note(f"{event} of another callback failed too: {type(other).__name__}: {other}")
        if errors:
            raise errors[0]

    def states(self) -> dict[str, list[dict[str, Any]]]:
        """Return the states of the callbacks that have one, by class name, in the order of the callbacks.

        Values are `packed`; an attribute that JSON cannot hold is left out with a warning.
        """
        result: dict[str, list[dict[str, Any]]] = {}
        for callback in self._with_state():
            name, kept = type(callback).__name__, {}
            for attribute, value in callback.state()["attributes"].items():
                try:
                    json_text(value)
                except (TypeError, ValueError):
                    warnings.warn(
                        f"{attribute} of {name} is of type {type(value).__name__}, which a checkpoint cannot hold: a "
                        "resumed run begins with another one",
                        stacklevel=3,
                    )
                else:
                    kept[attribute] = packed(value)
            result.setdefault(name, []).append(kept)
        return result

    def load_states(self, states: dict[str, list[dict[str, Any]]]) -> None:
        """Restore the states that `states` returned, class by class, in the order of the callbacks."""
        left = {name: iter(attributes) for name, attributes in states.items()}
        for callback in self._with_state():
            for name, value in next(left.get(type(callback).__name__, iter(())), {}).items():
                setattr(callback, name, unpacked(value))

    def _with_state(self) -> Iterable[ExportableState]:
        """Return those that are an `ExportableState`; asking for the protocol would take longer, in every step."""
        return (callback for callback in self.callbacks if callable(getattr(callback, "state", None)))


class Events:
    """Calls the callbacks of one run and shows them its arguments, its state and, by keyword, what else is given."""

    def __init__(self, handler: CallbackHandler, args: TrainingArguments, state: TrainerState, **shown: Any) -> None:
        self.handler = handler
        self._args, self._state, self._shown = args, state, shown

    @property
    def control(self) -> TrainerControl:
        """The flags that decide what is done next, as the callbacks left them."""
        return self.handler.control

    def __call__(self, event: str, **kwargs: Any) -> None:
        """Call `event` of all callbacks."""
        self.handler.call(event, self._args, self._state, **self._shown, **kwargs)


# Trackers of transformers, which need its trainer and PyTorch -> the value of report_to that does the same.
_TRACKERS_ELSEWHERE = {"TensorBoardCallback": "tensorboard", "WandbCallback": "wandb", "MLflowCallback": "mlflow"}


def _instance(callback: Callback) -> Callback:
    """Return the callback, or an instance of it when it is a class. Raises `TypeError` for what cannot be one."""
    kind = callback if isinstance(callback, type) else type(callback)
    if kind.__module__.startswith("transformers.integrations"):
        reporter = _TRACKERS_ELSEWHERE.get(kind.__name__)
        instead = f"report_to={reporter!r}" if reporter else "a TrainerCallback of yours that logs in on_log"
        raise TypeError(f"callbacks has {kind.__name__} of transformers, which needs its trainer; expected {instead}")
    made = callback() if isinstance(callback, type) else callback
    if isinstance(made, str) or not any(hasattr(made, event) for event in EVENTS):
        raise TypeError(
            f"callbacks has {made!r} ({type(made).__name__}); expected a TrainerCallback, or another object with one "
            "of its methods, such as on_log"
        )
    return made


class DefaultFlowCallback(TrainerCallback):
    """The callback that applies the strategies of the arguments: when to log, evaluate and save. It comes first."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Apply strategies by steps. After the last step everything is due."""
        step = state.global_step
        last = state.steps_passed >= state.max_steps
        control.should_training_stop |= last

        def is_due(strategy: str, every: int) -> bool:
            return strategy == "steps" and (last or step % every == 0)

        control.should_log |= is_due(args.logging_strategy, state.logging_steps)
        control.should_log |= args.logging_first_step and step == 1
        control.should_evaluate |= is_due(args.eval_strategy, state.eval_steps) and args.eval_delay <= step
        control.should_save |= is_due(args.save_strategy, state.save_steps)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply strategies by epochs."""
        control.should_log |= args.logging_strategy == "epoch"
        control.should_evaluate |= args.eval_strategy == "epoch" and args.eval_delay <= state.epoch
        control.should_save |= args.save_strategy == "epoch"


class EarlyStoppingCallback(TrainerCallback):
    """A callback that stops training when `metric_for_best_model` has stopped improving.

    Use it with `load_best_model_at_end` to keep the best weights.

    Args:
        early_stopping_patience: stop after this many evaluations in a row without an improvement.
        early_stopping_threshold: an improvement must be larger than this.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise `ValueError` for a run that never evaluates, and warn if it will not keep the best weights."""
        if args.eval_strategy == "no":
            raise ValueError("eval_strategy is 'no'; expected 'epoch' or 'steps' for EarlyStoppingCallback")
        if not args.load_best_model_at_end:
            warnings.warn(
                "EarlyStoppingCallback without load_best_model_at_end: the weights of the last step are kept, not the "
                "best ones",
                stacklevel=2,
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count evaluations that do not improve on the best one, and stop training after too many."""
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        metric = kwargs["metrics"].get(name)
        if metric is None:
            return  # an evaluation with another metric_key_prefix; during training the trainer raises without it
        gain = 0.0 if state.best_metric is None else metric - state.best_metric
        gain = gain if args.greater_is_better else -gain
        if state.best_metric is None or gain > self.early_stopping_threshold:
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run restores."""
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }
