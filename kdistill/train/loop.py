"""The training loop: rows -> batch -> forward -> loss -> backward -> clip -> AdamW, then logs and evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.ragged import Outputs, outputs_of, take_rows
from ..metrics.prediction import Labels
from ..models.model import Model
from .arguments import TrainingArguments
from .callbacks import Events
from .gradient_sum import GradientSum
from .objective import NO_TAP_LOSS, BatchLoss, InnerLoss, Inside, LearnedLoss, LossPart
from .optim import AdamW, clip_grad_norm_
from .plan import EpochPlan, RowIndices
from .resume_points import FLAGS, ResumePoints
from .schedules import LearningRate, get_scheduler
from .state import TrainerState, packed, unpacked
from .world import ALONE, World

MOST_ROWS_NAMED = 8
_RATE = "lr_scheduler"  # its name among the callbacks' states
LossFunction = Callable[[Outputs, Labels, RowIndices], BatchLoss]
"""(logits, labels, rows' places in the data) -> loss and gradient of a micro-batch. See `objective.Objective`."""
LearnHiddenWords = Callable[[Batch, Labels, float], LearnedLoss]
"""(batch with words hidden, the words, share of the step) -> loss, once its gradient is the model's. See there."""


class Checkpoints(Protocol):
    """The place where a training saves the state that it can be resumed from."""

    def begin(self) -> None:
        """Prepare the place. It is called when nothing is left to do before the first step."""

    def save(self, optimizer: AdamW, state: TrainerState) -> None:
        """Write a checkpoint."""

    def save_interrupted(self, optimizer: AdamW, state: TrainerState) -> None:
        """Write a checkpoint of the latest step, unless `save` has written one of it."""


class Training:
    """The steps of a run that are left, and after each what is due: logs, evaluations, checkpoints.

    Args:
        optimizer: that of the model to train.
        dataset: the training rows.
        plan: which of them each step reads.
        state: where the run stands; `run` carries it on.
        args: the training arguments.
        loss: of a micro-batch.
        learn_hidden_words: what takes its place where `dataset` hides words.
        inner: the loss on what lies inside the model, if there is one; `optimizer` has what it trains beside it.
        evaluate: measures the model and returns the metrics; None without rows to evaluate on.
        log: adds an entry to the log.
        events: calls the callbacks, whose `control` decides what is due.
        checkpoints: None saves nothing, even when a callback asks for it.
        begin_step: called with the rows of each step before it.
        world: the processes that train together. What a callback of rank 0 decides holds for all, and so do the
            metrics that rank 0 gets of an evaluation.
    """

    def __init__(
        self,
        optimizer: AdamW,
        dataset: Dataset,
        plan: EpochPlan,
        state: TrainerState,
        args: TrainingArguments,
        *,
        loss: LossFunction,
        learn_hidden_words: LearnHiddenWords | None = None,
        inner: InnerLoss | None = None,
        evaluate: Callable[[], dict[str, float]] | None,
        log: Callable[[dict[str, float]], None],
        events: Events,
        checkpoints: Checkpoints | None = None,
        begin_step: Callable[[RowIndices], object] = lambda rows: None,
        world: World = ALONE,
    ) -> None:
        if dataset.masking is not None:
            seed, probability = args.get_data_seed(), args.mlm_probability
            dataset = replace(dataset, masking=replace(dataset.masking, seed=seed, mlm_probability=probability))
        self._optimizer, self._dataset, self._plan, self._state, self._args = optimizer, dataset, plan, state, args
        self._loss, self._evaluate, self._log, self._events = loss, evaluate, log, events
        self._learn_hidden_words, self._inner = learn_hidden_words, inner
        self._checkpoints, self._begin_step, self._world = checkpoints, begin_step, world
        self._total = GradientSum(optimizer.model, optimizer.auxiliary, world)
        self._rate: LearningRate
        self._points: ResumePoints | None = None

    def run(self) -> None:
        """Train to the end of the run, or until a callback stops it; the model then has its average, if there is one.

        Raises:
            FloatingPointError: loss or gradient are not finite; it names step and rows. The parameters are as before
                the step.
            ValueError: an evaluation that is asked for has no rows, or not the metric that chooses the best weights.
        """
        state, args = self._state, self._args
        self._rate = get_scheduler(
            args.lr_scheduler_type,
            args.get_warmup_steps(state.max_steps),
            state.max_steps,
            lr=args.learning_rate,
            scheduler_specific_kwargs=args.scheduler_kwargs(),
        )
        for kept in state.callback_states.get(_RATE, []):
            self._rate.load_state(unpacked(kept))
        if args.eval_on_start and not state.steps_passed:
            if self._evaluate is None:
                raise ValueError("eval_dataset is None; expected rows to evaluate on")
            self._evaluate()
        if self._checkpoints is not None:
            self._checkpoints.begin()
        started = time.monotonic() - state.train_runtime
        if args.enable_jit_checkpoint:
            self._points = ResumePoints(self._optimizer, state, self._events, self._callback_states, started)
        within_epoch = self._finish_latest_step()
        self._agree()
        while state.steps_passed < state.max_steps and not (self._events.control.should_training_stop or state.stopped):
            if not within_epoch:
                self._begin_epoch()
            within_epoch = False
            for rows in self._plan.rows_of_epoch(*divmod(state.steps_passed, self._plan.steps_per_epoch)):
                self._optimizer.lr = self._rate.at(state.global_step)
                grad_norm = self._step(rows)
                state.train_runtime = time.monotonic() - started
                if self._after_step(grad_norm):
                    break
            self._agree()
        state.stopped = state.steps_passed < state.max_steps
        self._optimizer.use_average()

    def keep(self) -> None:
        """Leave a checkpoint of the latest step, when an interrupt ends the run, with `enable_jit_checkpoint`.

        The model gets its trained parameters again, if it has others.
        """
        latest = None if self._points is None else self._points.latest()
        if latest is not None and self._checkpoints is not None:
            self._optimizer.give_back()
            self._checkpoints.save_interrupted(self._optimizer, latest)

    def _agree(self) -> None:
        """Let the flags of the callbacks be those of rank 0."""
        control = self._events.control
        for name, flag in self._world.share({name: getattr(control, name) for name in FLAGS}).items():
            setattr(control, name, flag)

    def _begin_epoch(self) -> None:
        self._events.control.should_epoch_stop = False
        self._events("on_epoch_begin")

    def _finish_latest_step(self) -> bool:
        """Do what an interrupt has left undone after the latest step. Returns whether its epoch goes on."""
        state, events = self._state, self._events
        left, state.unfinished = state.unfinished, {}
        if "event" not in left:
            return False
        self._begin_epoch()
        self._optimizer.lr = left["learning_rate"]
        if left["event"] == "on_epoch_end":
            events.control.should_training_stop = state.stopped
            events("on_epoch_end")
            self._do_what_is_due(left["grad_norm"])
            return False
        for name in FLAGS:
            setattr(events.control, name, left["control"][name])
        state.global_step -= 1  # which counts a step after this event
        events("on_optimizer_step")
        state.global_step += 1
        return not self._after_step(left["grad_norm"])

    def _step(self, rows: RowIndices) -> float:
        """Do one step and count it. Returns the gradient's norm before clipping."""
        self._events("on_step_begin")
        self._begin_step(rows)
        if self._inner is not None:
            self._inner.begin_step(self._state.steps_passed, self._dataset.lengths[rows])
        try:
            step = training_step(
                self._optimizer,
                self._dataset,
                rows,
                batch_size=self._args.per_device_train_batch_size,
                max_grad_norm=self._args.max_grad_norm,
                loss=self._loss,
                learn_hidden_words=self._learn_hidden_words,
                inner=self._inner,
                epoch=self._state.steps_passed // self._plan.steps_per_epoch,
                on_event=self._events,
                before_update=self._note_step,
                total=self._total,
                world=self._world,
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self._state.global_step + 1}: {error}") from error
        self._state.add_step(step.loss, step.parts)
        return step.grad_norm

    def _note_step(self, step: StepResult) -> None:
        if self._points is not None:
            self._points.before_update(step.loss, step.grad_norm, step.parts)

    def _after_step(self, grad_norm: float) -> bool:
        """Do what is due after a step. Returns whether the epoch is over."""
        state, events, steps_per_epoch = self._state, self._events, self._plan.steps_per_epoch
        state.epoch = state.steps_passed / steps_per_epoch
        events("on_step_end")
        self._agree()
        if events.control.should_epoch_stop:
            state.skipped_steps += -state.steps_passed % steps_per_epoch
            state.epoch = state.steps_passed / steps_per_epoch
        ends = events.control.should_training_stop or state.steps_passed % steps_per_epoch == 0
        if ends:
            events("on_epoch_end")
            self._agree()
        self._do_what_is_due(grad_norm, within_epoch=not ends)
        if events.control.should_training_stop and not ends:  # an evaluation may have asked for it
            events("on_epoch_end")
            self._do_what_is_due(grad_norm)
        return ends or events.control.should_training_stop

    def _do_what_is_due(self, grad_norm: float, *, within_epoch: bool = False) -> None:
        state, args, events = self._state, self._args, self._events
        due = events.control.should_log or events.control.should_evaluate or events.control.should_save
        if events.control.should_log and state.global_step > state.logged_step:
            losses = state.mean_losses_since_log()
            self._log({**losses, "grad_norm": grad_norm, "learning_rate": self._optimizer.lr})
        if events.control.should_evaluate and self._evaluate is not None:
            metric = best_metric(self._world.share(self._evaluate()), args)
            self._agree()
            self._rate.follow(metric)
            is_best = state.take_if_better(metric, bool(args.greater_is_better))
            if is_best and (args.load_best_model_at_end or args.save_strategy == "best"):
                events.control.should_save = True
        if events.control.should_save and self._checkpoints is not None:
            state.stopped = events.control.should_training_stop and state.steps_passed < state.max_steps
            state.stateful_callbacks = self._callback_states()
            if within_epoch and state.stopped:
                rate = self._optimizer.lr
                state.unfinished = {"event": "on_epoch_end", "grad_norm": grad_norm, "learning_rate": rate}
            self._checkpoints.save(self._optimizer, state)
            state.unfinished = {}
            events("on_save")
        events.control.should_log = events.control.should_evaluate = events.control.should_save = False
        if due and self._points is not None and not (within_epoch and events.control.should_training_stop):
            self._points.after_due()

    def _callback_states(self) -> dict[str, list[dict[str, Any]]]:
        """Return the states of the callbacks, and that of a learning rate that has one."""
        states = self._events.handler.states()
        if kept := self._rate.state():
            states[_RATE] = [packed(kept)]
        return states


def best_metric(metrics: dict[str, float], args: TrainingArguments) -> float:
    """Return the metric that `metric_for_best_model` names. Raises ValueError where the metrics hold no such number."""
    name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
    if name not in metrics:
        raise ValueError(
            f"metric_for_best_model is {args.metric_for_best_model!r}; the evaluation gives "
            f"{', '.join(metrics)}; compute_metrics adds others (kdistill.choose_metrics)"
        )
    if not isinstance(metrics[name], int | float):
        raise ValueError(
            f"metric_for_best_model is {args.metric_for_best_model!r}, which is not a number: {metrics[name]!r}"
        )
    return float(metrics[name])


class StepResult(NamedTuple):
    """Mean loss over the rows of a step, the gradient's norm before clipping, and the means of the loss's parts."""

    loss: float
    grad_norm: float
    parts: dict[str, float]


class _Learned(NamedTuple):
    """What a micro-batch adds to the loss of its step, and the parts of its own loss."""

    loss: float
    parts: list[LossPart]


def training_step(
    optimizer: AdamW,
    dataset: Dataset,
    rows: RowIndices,
    *,
    batch_size: int,
    max_grad_norm: float,
    loss: LossFunction,
    learn_hidden_words: LearnHiddenWords | None = None,
    inner: InnerLoss | None = None,
    epoch: int = 0,
    on_event: Callable[[str], object],
    before_update: Callable[[StepResult], object] = lambda result: None,
    total: GradientSum | None = None,
    world: World = ALONE,
) -> StepResult:
    """Update the optimiser's model once from `rows`, in micro-batches of `batch_size`.

    Each micro-batch's gradient counts by its share of the rows, or of the tokens that take part where these have the
    labels, so that the update is that of one large batch. A `max_grad_norm` of 0 clips nothing. `on_event` is called
    with the names of the callbacks' events inside of a step, and `before_update` with the result, just before the
    parameters change. Where the data set hides words, `learn_hidden_words` gets those of this epoch, counted from 0.
    With `inner` the gradient and the loss have its part too, by the share of what each of its losses averages over.
    The processes of a `world` take turns at the micro-batches, whose gradients `total` adds up in their order; it may
    be kept from step to step.

    Raises FloatingPointError, which names rows, when loss or gradient are not finite; the parameters are then as
    before.
    """
    model = optimizer.model
    hides = dataset.masking is not None
    of_step, places = (dataset.masked(rows, epoch), np.arange(len(rows))) if hides else (dataset, rows)
    parts = max(of_step.parts(places), 1)
    tokens_before = np.concatenate(([0], np.cumsum(dataset.lengths[rows])))
    starts = range(0, len(rows), batch_size)

    def learn(start: int) -> _Learned:
        """Add the gradient of the micro-batch that begins with this row of the step to the model's."""
        micro, here = rows[start : start + batch_size], places[start : start + batch_size]
        share = of_step.parts(here) / parts
        batch, labels = of_step.batch(here)
        model.tokens_in_step = int(tokens_before[start])
        if hides:
            assert learn_hidden_words is not None
            try:
                found = learn_hidden_words(batch, labels, share)
            except FloatingPointError as error:
                raise _not_finite("loss", micro) from error
        else:
            found = _learned_from_logits(model, batch, labels, micro, share, loss, dataset, inner)
        if start + batch_size < len(rows):
            on_event("on_substep_end")
        return _Learned(share * found.loss + found.inner, found.parts)

    if world.size == 1 and len(starts) == 1:
        learned = [learn(0)]
    else:
        total = total or GradientSum(model, optimizer.auxiliary, world)
        total.begin()
        learned = []
        for first in range(0, len(starts), world.size):
            turn = starts[first : first + world.size]
            mine = learn(turn[world.rank]) if world.rank < len(turn) else None
            learned += total.add(mine, len(turn))
        total.hand_over()
    mean_loss, sums = 0.0, dict[str, tuple[float, int]]()
    for of in learned:
        mean_loss += of.loss
        for name, mean, count in of.parts:
            if count:
                of_part, rows_before = sums.get(name, (0.0, 0))
                sums[name] = (of_part + mean * count, rows_before + count)
    grad_norm = clip_grad_norm_(model, max_grad_norm or math.inf, auxiliary=optimizer.auxiliary)
    if not math.isfinite(grad_norm):
        raise _not_finite("gradient", rows)
    result = StepResult(mean_loss, grad_norm, {name: of_part / count for name, (of_part, count) in sums.items()})
    on_event("on_pre_optimizer_step")
    clear_gradients = model.zero_grad  # a bound method is an object, too
    before_update(result)
    optimizer.step()
    on_event("on_optimizer_step")
    clear_gradients()
    return result  # made before the step: once the parameters have moved, nothing can fail for want of memory


def _learned_from_logits(
    model: Model,
    batch: Batch,
    labels: Labels,
    rows: RowIndices,
    share: float,
    loss: LossFunction,
    dataset: Dataset,
    inner: InnerLoss | None,
) -> LearnedLoss:
    """Add the gradient of `share` times a micro-batch's loss, which its logits give, and return the loss.

    With that of `inner`, which is scaled by the shares that it knows.
    """
    taps: Inside
    if inner is None or not inner.taps:
        values, taps = model.forward(batch, train=True), {}
    else:
        values, taps = model.forward(batch, train=True, taps=inner.taps)
    logits = outputs_of(values, batch.starts, model.per_token)
    try:
        found = loss(logits, labels, rows)
    except FloatingPointError as error:
        bad = _rows_without_finite_loss(loss, dataset, logits, rows)
        raise _not_finite("loss", bad) from error
    if inner is None:
        model.backward(found.dlogits * np.float32(share))
        return LearnedLoss(found.loss, found.parts)
    weight = inner.prediction_weight
    try:
        inside = inner(batch, taps, rows) if taps else NO_TAP_LOSS
    except FloatingPointError as error:
        raise _not_finite("loss", rows) from error
    model.backward(found.dlogits * np.float32(weight * share), inside.gradients)
    return LearnedLoss(weight * found.loss, [*found.parts, *inside.parts], inside.loss)


def _rows_without_finite_loss(loss: LossFunction, dataset: Dataset, logits: Outputs, rows: RowIndices) -> RowIndices:
    bad = []
    for place in range(len(rows)):
        one = rows[place : place + 1]
        try:
            loss(take_rows(logits, [place]), dataset.batch(one)[1], one)
        except FloatingPointError:
            bad.append(place)
    return rows[bad]


def _not_finite(what: str, rows: RowIndices) -> FloatingPointError:
    named = ", ".join(map(str, rows[:MOST_ROWS_NAMED]))
    others = f" and {len(rows) - MOST_ROWS_NAMED} others" if len(rows) > MOST_ROWS_NAMED else ""
    return FloatingPointError(
        f"the {what} is not finite, from row{'s' * (len(rows) > 1)} {named}{others} of the training data "
        "(the first is row 0). The parameters are those before this step; lower learning_rate, or look for NaN in the "
        "weights that training began with"
    )
