"""Metrics of tags: how many are right, and precision, recall and F1 of the entities that they mark, as `seqeval`.

An entity is right when its borders and its type are. seqeval (github.com/chakki-works/seqeval) reads entities out of
tags as the script of CoNLL-2000 does: `B-`, `I-`, `E-`, `S-` and `O`, in IOB1, IOB2 or BIOES.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .classification import Classes

OUTSIDE = "O"
"""The tag of a token outside of any entity."""
ENTITY_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
"""A tag of an entity: its place in it, and the entity's type."""


class Tagged(NamedTuple):
    """The tags of examples.

    Attributes:
        classes: the tag of each token.
        starts: int64 (examples + 1,), where the tokens of each example begin.
        names: of the tags.
    """

    classes: Classes
    starts: NDArray[np.int64]
    names: tuple[str, ...]

    def sentences(self) -> list[list[str]]:
        """Return the names of the tags of each example."""
        tags = np.array(self.names, dtype=object)[self.classes.ids].tolist()
        return [tags[start:end] for start, end in pairwise(self.starts.tolist())]


def have_entities(names: Sequence[str]) -> bool:
    """Return whether tags mark entities: all are `O` or have a prefix such as `B-`, and one has."""
    return all(name == OUTSIDE or ENTITY_TAG.fullmatch(name) for name in names) and set(names) != {OUTSIDE}


def seqeval_is_there() -> bool:
    """Return whether the package seqeval is installed."""
    return importlib.util.find_spec("seqeval") is not None


def tag_accuracy(predicted: Tagged, true: Tagged) -> float:
    """Return the share of tokens whose tag is right."""
    return float((predicted.classes.ids == true.classes.ids).mean())


def right_examples(predicted: Tagged, true: Tagged) -> NDArray[np.bool_]:
    """Return which examples have every tag right, bool (examples,)."""
    wrong = np.concatenate(([0], np.cumsum(predicted.classes.ids != true.classes.ids)))
    return np.asarray(np.diff(wrong[true.starts]) == 0)


def entity_precision(predicted: Tagged, true: Tagged) -> float:
    """Return the share of predicted entities that are right; 0 without any."""
    return _score("precision", "micro", predicted, true)


def entity_recall(predicted: Tagged, true: Tagged) -> float:
    """Return the share of true entities that are found; 0 without any."""
    return _score("recall", "micro", predicted, true)


def entity_f1(predicted: Tagged, true: Tagged) -> float:
    """Return the harmonic mean of `entity_precision` and `entity_recall`."""
    return _score("f1", "micro", predicted, true)


def entity_precision_macro(predicted: Tagged, true: Tagged) -> float:
    """Return the mean of the precision over the types of entities."""
    return _score("precision", "macro", predicted, true)


def entity_recall_macro(predicted: Tagged, true: Tagged) -> float:
    """Return the mean of the recall over the types of entities."""
    return _score("recall", "macro", predicted, true)


def entity_f1_macro(predicted: Tagged, true: Tagged) -> float:
    """Return the mean of F1 over the types of entities."""
    return _score("f1", "macro", predicted, true)


def _score(name: str, average: str, predicted: Tagged, true: Tagged) -> float:
    try:
        from seqeval import metrics
    except ImportError as error:
        raise ImportError(
            f"the metric {name} of entities needs the package seqeval; install kdistill[seqeval], or measure accuracy "
            "(--metrics accuracy, --metric-for-best-model accuracy)"
        ) from error
    function: Any = getattr(metrics, f"{name}_score")
    with warnings.catch_warnings():  # of scikit-learn, about types without an entity, which count as 0
        warnings.simplefilter("ignore")
        return float(function(true.sentences(), predicted.sentences(), average=average, zero_division=0))
