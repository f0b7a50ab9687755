"""Words of a text are hidden, and the model predicts them: masked language modelling.

The labels are the hidden words. As logits over the vocabulary are too large to keep, the outputs of an evaluation are
two scores of each token: its cross-entropy, and 1 where the word is the model's first choice, else 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.label_names import Where
from ..data.labels import NO_LABEL
from ..data.ragged import Ragged, units
from ..losses.weights import LabelWeights
from ..metrics.perplexity import perplexity
from ..metrics.prediction import Labels, Logits
from ..models.head_names import MASKED
from ..models.heads import MaskedLanguageModel
from ..models.model import Model
from .base import Answers, Task, usage_of_pipeline

_LOSS, _RIGHT = 0, 1  # columns of the scores


def _scores(model: Model, batch: Batch, labels: Labels) -> NDArray[np.float32]:
    assert isinstance(model, MaskedLanguageModel)
    return model.masked_scores(batch, labels)


def _mean_loss(
    logits: Any, labels: Any, *, label_smoothing: float = 0.0, label_weights: LabelWeights | None = None
) -> tuple[float, Logits]:
    """Return the mean loss of the scored words; `logits` are scores, which have no gradient."""
    found = units(logits)
    return float(found[:, _LOSS].mean(dtype=np.float64)), np.zeros_like(found)


def _no_loss_of_scores(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a language model learns from its teacher in each step, see MaskedLanguageModel.masked_loss")


def _scores_of(scores: Ragged, labels: Ragged) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return units(scores), units(labels)


def _perplexity(answers: Answers) -> float:
    loss, _ = _mean_loss(answers.logits, None)
    return perplexity(loss)


def _accuracy(answers: Answers) -> float:
    return float(answers.predicted[:, _RIGHT].mean(dtype=np.float64))


def _masked_tokens(answers: Answers) -> float:
    return len(answers.true)


def _taught(labels: Labels) -> NDArray[np.bool_]:
    return np.asarray(labels != NO_LABEL)


def _no_column(labels: Sequence[Any], id2label: Any, where: Where, class_names: Sequence[str] = ()) -> NoReturn:
    raise TypeError("a language model reads no labels: they are the words that are hidden from it")


def _no_answers(*_: Logits) -> NoReturn:
    raise TypeError("scores of hidden words are no answers; `pipeline('fill-mask')` gives the words that are expected")


TASK = Task(
    name=MASKED,
    pipeline_tag="fill-mask",
    description=lambda names: "It predicts words that are hidden in a text.",
    read_labels=_no_column,
    names_labels=False,
    one_label=False,
    label_loss=_mean_loss,
    teacher_loss=_no_loss_of_scores,
    predicted_and_true=_scores_of,
    metrics={"perplexity": _perplexity, "accuracy": _accuracy, "masked_tokens": _masked_tokens},
    default_metrics=("perplexity", "accuracy", "masked_tokens"),
    best_metric="perplexity",
    card_metric="perplexity",
    right_rows=None,
    constant=None,
    score_function="none",
    answers=_no_answers,
    divergence=_no_answers,
    per_token=True,
    taught=_taught,
    outputs=_scores,
    option=MASKED,
    usage=usage_of_pipeline("fill", 'fill(f"Anna lives in {fill.tokenizer.mask_token}.")'),
    learns_from="trained to predict hidden words",
    rows_are="blocks of text with hidden words",
    loss_is="The loss is the mean cross-entropy of the hidden words, which are the same in every evaluation, and the "
    "perplexity its exponential.",
)
