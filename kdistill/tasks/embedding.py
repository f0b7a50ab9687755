"""Each text has an embedding, which a teacher gives: there are no labels, but pairs of texts may have a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.labels import label_numbers
from ..data.sentence_rows import encode_sentences
from ..data.sentences import SentenceTargets
from ..losses.embeddings import MSE, embedding_loss
from ..losses.kinds import LossParts
from ..losses.mixing import NUMBERS
from ..losses.weights import LabelWeights
from ..metrics import divergence
from ..metrics.embeddings import cosines, mean_squared_error
from ..metrics.prediction import Labels, Logits
from ..metrics.regression import pearson, spearmanr
from ..models.head_names import ENCODER
from ..models.model import Model
from . import regression
from .base import Answers, Metric, Task


def _of_reference(measure: Callable[[Logits, Logits], float]) -> Metric:
    """Return a metric of the embeddings beside the teacher's, which is not defined without them."""

    def measured(answers: Answers) -> float | None:
        reference = answers.true.reference
        return None if reference is None else measure(answers.logits, reference())

    return measured


def _of_scores(correlation: Callable[[NDArray[np.float64], NDArray[np.float64]], float]) -> Metric:
    """Return a metric of the cosines of pairs beside their scores, which is not defined without pairs.

    As sentence-transformers' EmbeddingSimilarityEvaluator measures it.
    """

    def measured(answers: Answers) -> float | None:
        pairs = answers.true.pairs()
        if not len(pairs.scores):
            return None
        return correlation(cosines(answers.logits[pairs.first], answers.logits[pairs.second]), pairs.scores)

    return measured


def _label_loss(
    logits: Any, labels: SentenceTargets, *, label_smoothing: float = 0.0, label_weights: LabelWeights | None = None
) -> tuple[float, Logits]:
    """Return the mean squared error beside the teacher's embeddings, and its gradient; NaN without a teacher."""
    if labels.reference is None:
        return math.nan, np.zeros_like(logits)
    parts = embedding_loss(logits, labels.reference(), MSE)
    return parts.loss, parts.dlogits


def _teacher_loss(logits: Any, teacher_logits: Any, labels: Labels | None, *, loss: str, **others: Any) -> LossParts:
    return embedding_loss(logits, teacher_logits, loss)


@cache
def _with_loss(loss: str) -> Task:
    return replace(TASK, teacher_loss=partial(_teacher_loss, loss=loss))


def _usage(tag: str, name: str, model: Model) -> list[str]:
    return [
        "import kdistill as kd  # sentence-transformers loads it too: SentenceTransformer(...)",
        "",
        f'embed = kd.pipeline("{tag}", model={name}, pooling="model")',
        f'vectors = embed(["a text", "another text"])  # (2, {model.config.num_outputs})',
    ]


TASK = Task(
    name=ENCODER,
    pipeline_tag="feature-extraction",
    description=lambda names: "It gives a text an embedding, a vector close to those of texts that mean the same.",
    read_labels=label_numbers,
    names_labels=False,
    one_label=False,
    label_loss=_label_loss,
    teacher_loss=partial(_teacher_loss, loss=MSE),
    predicted_and_true=lambda logits, labels: (logits, labels),
    metrics={
        "mse": _of_reference(mean_squared_error),
        "cosine": _of_reference(lambda ours, theirs: float(cosines(ours, theirs).mean())),
        "spearman_cosine": _of_scores(spearmanr),
        "pearson_cosine": _of_scores(pearson),
    },
    default_metrics=("mse", "cosine", "spearman_cosine", "pearson_cosine"),
    best_metric="loss",
    card_metric="cosine",
    right_rows=None,
    constant=None,
    learns_from="trained on embeddings",
    rows_are="texts or pairs",
    loss_is="The loss is the mean squared error beside the teacher's embeddings.",
    score_function="none",
    answers=regression.TASK.answers,
    divergence=divergence.of_embeddings,
    nearness=lambda embeddings, reference: float(cosines(embeddings, reference).min()),
    mixing=NUMBERS,
    encode=encode_sentences,
    usage=_usage,
    with_loss=_with_loss,
)
