"""Callbacks: code that watches and steers a training run, with the events of `transformers.TrainerCallback`."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .arguments import TrainingArguments
from .state import TrainerState


@dataclass
class TrainerControl:
    """What the trainer does next; a callback may change it.

    `should_log`, `should_evaluate` and `should_save` are for the present step, `should_epoch_stop` for the present
    epoch (the steps that are left of it count as passed), `should_training_stop` for the run.
    """

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_log: bool = False
    should_evaluate: bool = False
    should_save: bool = False


@runtime_checkable
class ExportableState(Protocol):
    """A callback that a resumed run gives its state back: what `state()["attributes"]` holds, as JSON-ready values."""

    def state(self) -> dict[str, Any]: ...


Callback = Any
"""A `TrainerCallback`, or anything else with some of its methods, such as a callback written for transformers."""


class TrainerCallback:
    """Override the events you need.

    Each is given (args, state, control) and, by keyword, `model`, `processing_class` and `optimizer` (None outside of
    training), with `logs` or `metrics` where there are any. It may change `control` or return another one.
    """

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called once, when the trainer is made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called once before the first step."""

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called when training ends, also by an error or Ctrl-C."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called before an epoch's first step, and by a resumed run before the first step that it does itself."""

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called after an epoch's last step, before what is due there; also when training stops inside of an epoch."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called before each optimiser step."""

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called after each batch but a step's last, when gradients are accumulated."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called when the gradients are clipped and the parameters not yet changed."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called when the parameters are changed and the gradients not yet zero."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called after each optimiser step, when `control` already says what is due."""

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called after each batch of an evaluation or a prediction."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called with `metrics` after each evaluation."""

    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called with `metrics` after each prediction."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called after each checkpoint."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> Any:
        """Called with `logs`, the entry just added to `state.log_history`; also outside of training."""

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> Any:
        """Called before each upload to the hub."""


class CallbackHandler:
    """The callbacks of one trainer, called in their order. `control` is the one that the latest of them left."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = [_instance(callback) for callback in callbacks]
        self.control = TrainerControl()

    def add(self, callback: Callback) -> None:
        """Add a callback, or an instance of a class of callbacks, as the last one."""
        self.callbacks.append(_instance(callback))

    def pop(self, callback: Callback) -> Callback | None:
        """Take out and return the callback, or the first one of a class; None when there is none."""
        for found in self.callbacks:
            if found is callback or (isinstance(callback, type) and isinstance(found, callback)):
                self.callbacks.remove(found)
                return found
        return None

    def copied(self) -> CallbackHandler:
        """The same callbacks for another run: copies, which share what is inside of them but not their attributes."""
        return CallbackHandler(copy.copy(callback) for callback in self.callbacks)

    def call(self, event: str, args: TrainingArguments, state: TrainerState, **kwargs: Any) -> None:
        """Call `event` of each callback that has it; a control that one returns takes the place of the one before."""
        control = self.control
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None:
                control = method(args, state, control, **kwargs) or control
        self.control = control

    def states(self) -> dict[str, list[dict[str, Any]]]:
        """The state of each callback that has one, by the name of its class, in the order of the callbacks."""
        result: dict[str, list[dict[str, Any]]] = {}
        for callback in self._with_state():
            result.setdefault(type(callback).__name__, []).append(callback.state()["attributes"])
        return result

    def load_states(self, states: dict[str, list[dict[str, Any]]]) -> None:
        """Give callbacks back the states that `states` returned for those of their class."""
        left = {name: iter(attributes) for name, attributes in states.items()}
        for callback in self._with_state():
            for name, value in next(left.get(type(callback).__name__, iter(())), {}).items():
                setattr(callback, name, value)

    def _with_state(self) -> Iterable[ExportableState]:
        return (
            callback
            for callback in self.callbacks
            if isinstance(callback, ExportableState) and callable(callback.state)
        )


class Events:
    """Calls the callbacks of one run and shows them its arguments, its state and, by keyword, what else is given."""

    def __init__(self, handler: CallbackHandler, args: TrainingArguments, state: TrainerState, **shown: Any) -> None:
        self.handler = handler
        self._args, self._state, self._shown = args, state, shown

    @property
    def control(self) -> TrainerControl:
        """What is to be done next, as the callbacks left it."""
        return self.handler.control

    def __call__(self, event: str, **kwargs: Any) -> None:
        """Call `event` of all callbacks."""
        self.handler.call(event, self._args, self._state, **self._shown, **kwargs)


def _instance(callback: Callback) -> Callback:
    return callback() if isinstance(callback, type) else callback


class DefaultFlowCallback(TrainerCallback):
    """Says what is due when, as the strategies of the arguments ask for; a trainer's first callback."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Strategies by steps; the run's last step is always due."""
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
        """Strategies by epochs."""
        control.should_log |= args.logging_strategy == "epoch"
        control.should_evaluate |= args.eval_strategy == "epoch" and args.eval_delay <= state.epoch
        control.should_save |= args.save_strategy == "epoch"


class EarlyStoppingCallback(TrainerCallback):
    """Stops the training when `metric_for_best_model` has not become better for some evaluations in a row.

    early_stopping_patience: how many evaluations. early_stopping_threshold: by how much, more than this, an evaluation
    must beat the best one before it. The weights that are kept are the best ones with `load_best_model_at_end`.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises `ValueError` for a run that never evaluates."""
        if args.eval_strategy == "no":
            raise ValueError("eval_strategy is 'no'; expected 'epoch' or 'steps' for EarlyStoppingCallback")
        if not args.load_best_model_at_end:
            warnings.warn(
                "EarlyStoppingCallback without load_best_model_at_end: the weights of the last step are kept, not the "
                "best ones",
                stacklevel=2,
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Counts evaluations that are no better than the best one before them."""
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        metric = kwargs["metrics"].get(name)
        if metric is None:
            return  # an evaluation under another prefix; one of the training without it is an error there
        gain = 0.0 if state.best_metric is None else metric - state.best_metric
        gain = gain if args.greater_is_better else -gain
        if state.best_metric is None or gain > self.early_stopping_threshold:
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }
