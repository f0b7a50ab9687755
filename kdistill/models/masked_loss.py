"""The loss of hidden words: a pass of a language model up to the product with its vocabulary, then its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..data.batch import Batch
from ..data.label_values import NO_LABEL
from ..losses.kinds import LEAST_TEMPERATURE, MOST_TEMPERATURE, refuse_rows
from ..system.threads import get_num_threads
from .model import Tap
from .parameters import Flat


class MaskedLoss(NamedTuple):
    """The loss of a language model.

    Attributes:
        loss: the mean over the tokens with a label.
        hard: mean cross-entropy against the labels.
        soft: mean loss against the teacher (0 without one).
        tokens: how many tokens have a label.
    """

    loss: float
    hard: float
    soft: float
    tokens: int


def words_of(labels: ArrayLike | None, batch: Batch) -> NDArray[Any]:
    """Return labels of a language model as an array, None as those of no token.

    Raises ValueError unless there is one for each token.
    """
    if labels is None:
        return np.full(batch.ids.shape, NO_LABEL)
    words = np.asarray(labels)
    if words.dtype.kind not in "iu" or words.shape != batch.ids.shape:
        raise ValueError(
            f"labels are {words.dtype} of shape {words.shape}; expected whole numbers of shape {batch.ids.shape}, "
            "one for each token of the packed batch"
        )
    return words


def check_mixture(alpha: float, temperature: float, label_smoothing: float) -> None:
    """Raise ValueError for a number out of range."""
    for name, value in (("alpha", alpha), ("label_smoothing", label_smoothing)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; expected a number from 0 to 1")
    if not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature is {temperature}; expected a number from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}"
        )


class MaskedPass:
    """What a language model has computed of a batch, all but the product with its vocabulary. It gives its loss once.

    So a loss on what lies inside the encoder can be computed in between, and its gradients go back with those of the
    words. Any later pass of the model discards this one.

    Args:
        core: the model's core, after a forward pass that left the outputs out.
        words: a word for each token of the batch, (N,), or -100; the pass was of the tokens that have one.
        taps: the arrays that were asked for, float32, by tap.

    Attributes:
        rows: the tokens with a label, int64, ascending places in the packed batch.
        taps: as given.
    """

    def __init__(self, core: _core.Model, words: NDArray[Any], taps: Mapping[Tap, Flat]) -> None:
        self._core = core
        self.rows = np.flatnonzero(words != NO_LABEL).astype(np.int64)
        self._labels = words[self.rows].astype(np.int64)
        self.taps = taps

    def loss(
        self,
        *,
        teacher: MaskedPass | None = None,
        alpha: float = 0.5,
        temperature: float = 4.0,
        label_smoothing: float = 0.0,
        share: float = 1.0,
        gradients: Mapping[Tap, Flat] | None = None,
    ) -> MaskedLoss:
        """Return the mean loss of the tokens that have a label; of a training pass add its gradient to `gradients`.

        The arguments that `MaskedLanguageModel.masked_loss` has are as there.

        Args:
            teacher: the pass of another language model, of the same vocabulary, over the same batch and labels.
            gradients: d loss / d array of some of the taps, of a loss of the caller's on them. They are added as they
                are: `share` is not applied to them.

        Raises:
            ValueError, FloatingPointError: as there; also for gradients of other taps or shapes, or of a pass that does
                not train.
            TypeError: `teacher` is a pass of the same model.
            RuntimeError: the loss was asked for before, or the model has done another pass since.
        """
        check_mixture(alpha, temperature, label_smoothing)
        if teacher is not None and teacher._core is self._core:
            raise TypeError("teacher is a pass of the same model; expected one of another model, or None")
        return self._loss((alpha, temperature, label_smoothing), teacher=teacher, share=share, gradients=gradients)

    def scores(self) -> NDArray[np.float32]:
        """Return float32 (M, 2) of the M tokens with a label, see `MaskedLanguageModel.masked_scores`."""
        scores = np.zeros((len(self.rows), 2), np.float32)
        self._loss((1.0, 1.0, 0.0), scores=scores)
        return scores

    def _loss(
        self,
        mixture: tuple[float, float, float],
        *,
        teacher: MaskedPass | None = None,
        share: float = 1.0,
        scores: NDArray[np.float32] | None = None,
        gradients: Mapping[Tap, Flat] | None = None,
    ) -> MaskedLoss:
        loss, hard, soft, not_finite, named = self._core.softmax_loss(
            self._labels,
            *mixture,
            get_num_threads(),
            teacher=None if teacher is None else teacher._core,
            share=share,
            scores=scores,
            gradients=gradients,
        )
        if not_finite:
            places, count = tuple(int(self.rows[i]) for i in named), len(self.rows)
            refuse_rows(not_finite, places, count, more=not_finite > len(named), what="tokens")
        return MaskedLoss(loss, hard, soft, len(self.rows))
