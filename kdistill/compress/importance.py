"""How much a model's attention heads and feed-forward units matter for its loss on rows."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import Dataset, OnProgress
from ..data.ragged import outputs_of
from ..models.heads import MaskedLanguageModel
from ..models.model import Model
from ..models.parameters import TensorViews, by_canonical_name
from ..tasks.registry import task_for
from ..train.objective import Objective

_EPOCH = 0  # whose hidden words a language model is asked for


class Importance(NamedTuple):
    """What the parts of each layer that has weights of its own matter: float64 (heads,) and (units,) of each."""

    heads: list[NDArray[np.float64]]
    units: list[NDArray[np.float64]]


def importance(
    model: Model, rows: Dataset, objective: Objective, args: Any, progress: OnProgress | None = None
) -> Importance:
    """Return what each head and unit matters: the mean over rows of |d loss / d m|, where m = 1 is a factor of it.

    For heads this is Michel et al. (arXiv:1905.10650, section 4.1), for feed-forward units FastFormers
    (arXiv:2010.13382, structured pruning), each by the first-order estimate of Molchanov et al. (arXiv:1611.06440) of
    how much the loss changes without it. The product that reads a head or a unit is linear in it: y = W (m * x) + b. So

        d loss / d m_j = sum over tokens of x_j d loss / d x_j = sum over i of W_ij d loss / d W_ij,

    with the sum over the columns of a head. Signs differ between rows, so each row has a pass of its own; dropout is
    off.

    Args:
        model: a model in float32; it is left as it is.
        rows: training rows, all of which are read.
        objective: whose loss it is, ready for these rows (`Objective.prepare`).
        args: the training arguments that the objective reads.
        progress: called after each row.

    Raises:
        FloatingPointError: the loss of a row is not finite.
    """
    copy, task = _without_dropout(model), task_for(model.config, rows.labels)
    shapes = model.config.layer_shapes()[: 1 if model.config.one_layer else None]
    found = Importance([np.zeros(of.heads) for of in shapes], [np.zeros(of.feed_forward) for of in shapes])
    weights = copy.tensors
    for row in range(len(rows)):
        copy.zero_grad()
        one = np.array([row])
        if rows.masking is not None:
            hidden = rows.masked(one, _EPOCH)
            batch, words = hidden.batch([0])
            objective.learn_hidden_words(cast(MaskedLanguageModel, copy), batch, words, share=1.0, args=args)
        else:
            batch, labels = rows.batch(one)
            logits = outputs_of(copy.forward(batch, train=True), batch.starts, copy.per_token)
            copy.backward(objective(logits, labels, one, args=args, task=task).dlogits)
        gradients = TensorViews(copy.flat_gradients, by_canonical_name(copy.layout))
        for layer, shape in enumerate(shapes):
            for sums, name, parts in (
                (found.heads[layer], "output", shape.heads),
                (found.units[layer], "down", shape.feed_forward),
            ):
                weight, gradient = (of[f"layer.{layer}.{name}"] for of in (weights, gradients))
                by_column = np.einsum("ij,ij->j", weight, gradient, dtype=np.float64)
                sums += np.abs(by_column.reshape(parts, -1).sum(axis=1))
        if progress is not None:
            progress(row + 1, len(rows))
    for sums in (*found.heads, *found.units):
        sums /= len(rows)
    return found


def _without_dropout(model: Model) -> Model:
    """Return a copy of a model that drops nothing while it is trained."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", *model.config.more_dropouts)
    return type(model).from_tensors(model.config.replace(**dict.fromkeys(names, 0.0)), model.tensors)
