"""Objectives: the loss of each batch, and the preparation that it needs before the first one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.ragged import Outputs
from ..metrics.prediction import Labels, Logits
from ..models.configuration import Config
from ..models.heads import MaskedLanguageModel
from ..models.model import Tap
from ..tasks.base import Task
from ..text.tokenizer import PreTrainedTokenizerFast
from .arguments import TrainingArguments
from .auxiliary import Auxiliary
from .own_metrics import ComputeMetrics
from .plan import RowIndices
from .world import ALONE, World


class LossPart(NamedTuple):
    """A part of a loss: the name that it is logged under, and its mean over so many rows."""

    name: str
    mean: float
    rows: int


class BatchLoss(NamedTuple):
    """The mean loss of a micro-batch, its gradient by the logits, (B, num_labels) float32, and its parts.

    Of a model that answers for each token the gradient is (tokens, num_labels).
    """

    loss: float
    dlogits: Logits
    parts: list[LossPart]


class LearnedLoss(NamedTuple):
    """The mean loss of a micro-batch whose gradient the model has already, and its parts.

    `inner` is what the losses on what lies inside the model add to the loss of the whole step, by their own shares.
    """

    loss: float
    parts: list[LossPart]
    inner: float = 0.0


Inside = Mapping[Tap, NDArray[np.float32]]
"""What lies inside an encoder, or d loss / d of it, by tap; see `Model.forward`."""


class TapLoss(NamedTuple):
    """What a micro-batch's losses on taps add to the loss of its step, the gradient of that by tap, and the parts."""

    loss: float
    gradients: Inside
    parts: list[LossPart]


NO_TAP_LOSS = TapLoss(0.0, {}, [])


class RunLength(NamedTuple):
    """How many optimiser steps a run and an epoch of it have."""

    max_steps: int
    steps_per_epoch: int


class InnerLoss(Protocol):
    """The loss of one run on what lies inside the model, beside that of its outputs.

    Attributes:
        auxiliary: what it trains beside the model; None: nothing.
        taps: what the present step reads inside the model; empty: nothing.
        prediction_weight: what the loss of the outputs is multiplied by in the present step.
    """

    auxiliary: Auxiliary | None
    taps: tuple[Tap, ...]
    prediction_weight: float

    def begin_step(self, step: int, lengths: NDArray[np.int64]) -> None:
        """Set the attributes for a step, counted from 0, on rows of so many tokens."""

    def __call__(self, batch: Batch, taps: Inside, rows: RowIndices) -> TapLoss:
        """Return the loss of a micro-batch of the step, and add its gradient to that of `auxiliary`.

        `rows` are its rows' places in the training data. Raises FloatingPointError when it is not finite.
        """


class RunData(NamedTuple):
    """The rows of a run: those that its steps read, those that it is evaluated on, and what measures more on these.

    All processes of `world` have the same ones.
    """

    train: Dataset
    eval: Dataset | None
    compute_metrics: ComputeMetrics | None = None
    world: World = ALONE


class Objective(Protocol):
    """The purpose of a run: a loss, and what it needs before the first step.

    All trials of a search share one; what differs between them is in `args`.

    Attributes:
        needs_labels: whether every training row must have a label.
    """

    needs_labels: bool

    def adapt(self, config: Config) -> Config:
        """Return the config of a model to train, with what this objective settles. Raises ValueError if it cannot."""

    def reader(self, tokenizer: PreTrainedTokenizerFast | None, config: Config) -> PreTrainedTokenizerFast | None:
        """Return the tokenizer that rows are read with, of the tokenizer and the config of the model to train."""

    def needs_texts(self, reader: PreTrainedTokenizerFast | None, config: Config) -> bool:
        """Return whether rows that `reader` reads must keep their texts, for a model of this config."""

    def rows_to_learn_from(self, dataset: Dataset, args: Any, tokenizer: PreTrainedTokenizerFast | None) -> Dataset:
        """Return the rows that the steps read: those of `dataset`, and others that are made of them."""

    def why_no_copies(self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast | None) -> str:
        """Return why no augmented copies can be made of the rows, as a clause; empty where they can."""

    def rows_to_measure(self, dataset: Dataset, args: Any) -> Dataset:
        """Return rows to evaluate on, with what this objective compares the answers with beside their labels."""

    def fingerprint(self) -> dict[str, str]:
        """Return a hash of everything beside the rows that the model learns from, by name."""

    def keep(self, settled: Mapping[str, Any], args: Any) -> None:
        """Take over what `settled` returned in an earlier process of the run; empty where there was none."""

    def prepare(self, data: RunData, args: Any, config: Config) -> None:
        """Do what must be done once before the first step."""

    def settled(self) -> dict[str, Any]:
        """Return what `prepare` has decided, ready for JSON: another process of the run does not decide anew."""

    def figures(self) -> dict[str, float]:
        """Return what `prepare` measured, for the run's results."""

    def inner_loss(self, config: Config, args: Any, length: RunLength) -> InnerLoss | None:
        """Return the loss of a new run on what lies inside a model of this config; None where there is none.

        Raises ValueError for one that does not fit the model or the run.
        """

    def args_of_step(self, args: Any, step: int, length: RunLength) -> Any:
        """Return the arguments as they are in a step, counted from 0, where schedules change them."""

    def __call__(self, logits: Outputs, labels: Labels, rows: RowIndices, *, args: Any, task: Task) -> BatchLoss:
        """Return loss and gradient of a micro-batch; `rows` are its rows' places in the training data.

        The logits are a `Ragged` where the model answers for each token.

        Raises FloatingPointError when the loss is not finite.
        """

    def learn_hidden_words(
        self,
        model: MaskedLanguageModel,
        batch: Batch,
        words: Labels,
        *,
        share: float,
        args: Any,
        inner: InnerLoss | None = None,
    ) -> LearnedLoss:
        """Add the gradient of `share` times a micro-batch's loss to the model's, and return the loss.

        Of a language model, whose logits are too many to be handed on: this takes the place of the call.

        Args:
            model: the language model.
            batch: with words hidden.
            words: the hidden ones, see `MaskedLanguageModel.masked_loss`.
            share: the micro-batch's share of the hidden words of its step.
            args: the training arguments.
            inner: the loss on what lies inside the model, if there is one.

        Raises:
            FloatingPointError: the loss is not finite. All gradients are then 0.
        """


class Supervised:
    """Learn the labels."""

    needs_labels = True

    def adapt(self, config: Config) -> Config:
        """Return the config as it is."""
        return config

    def reader(self, tokenizer: PreTrainedTokenizerFast | None, config: Config) -> PreTrainedTokenizerFast | None:
        """Return the model's tokenizer."""
        return tokenizer

    def needs_texts(self, reader: PreTrainedTokenizerFast | None, config: Config) -> bool:
        """Return that tokens are enough."""
        return False

    def rows_to_learn_from(
        self, dataset: Dataset, args: TrainingArguments, tokenizer: PreTrainedTokenizerFast | None
    ) -> Dataset:
        """Return the rows as they are."""
        return dataset

    def why_no_copies(self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast | None) -> str:
        """Return that nobody labels copies."""
        return "there is no teacher to label copies"

    def rows_to_measure(self, dataset: Dataset, args: TrainingArguments) -> Dataset:
        """Return the rows as they are."""
        return dataset

    def fingerprint(self) -> dict[str, str]:
        """Return no hash: the rows are all that is learned from."""
        return {}

    def keep(self, settled: Mapping[str, Any], args: TrainingArguments) -> None:
        """Take over nothing."""

    def prepare(self, data: RunData, args: TrainingArguments, config: Config) -> None:
        """Prepare nothing: rows and labels are there."""

    def settled(self) -> dict[str, Any]:
        """Return that nothing was decided."""
        return {}

    def figures(self) -> dict[str, float]:
        """Return no figures."""
        return {}

    def inner_loss(self, config: Config, args: TrainingArguments, length: RunLength) -> InnerLoss | None:
        """Return that there is none."""
        return None

    def args_of_step(self, args: TrainingArguments, step: int, length: RunLength) -> TrainingArguments:
        """Return the arguments as they are."""
        return args

    def __call__(
        self, logits: Outputs, labels: Labels, rows: RowIndices, *, args: TrainingArguments, task: Task
    ) -> BatchLoss:
        """Return the loss of the labels, see `Task.label_loss`."""
        return BatchLoss(*task.label_loss(logits, labels, label_smoothing=args.label_smoothing_factor), [])

    def learn_hidden_words(
        self,
        model: MaskedLanguageModel,
        batch: Batch,
        words: Labels,
        *,
        share: float,
        args: TrainingArguments,
        inner: InnerLoss | None = None,
    ) -> LearnedLoss:
        """Learn the hidden words."""
        smoothing = args.label_smoothing_factor
        found = model.masked_loss(batch, words, train=True, label_smoothing=smoothing, share=share)
        return LearnedLoss(found.loss, [])
