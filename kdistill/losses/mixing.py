"""The answers of several teachers as those of one, which teach the same.

With weights w_k that add up to 1 and the softened probabilities p_k = softmax(z_k / T) of the teachers' logits z_k, a
student learns from p = sum_k w_k p_k (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531, section 5, take the mean of an
ensemble). The logits t = T log p have softmax(t / T) = p, so that the loss of one teacher takes them as they are, at
the same temperature T. Nothing is lost against a weighted sum of the teachers' own losses, for

    sum_k w_k KL(p_k || q) = KL(p || q) + H(p) - sum_k w_k H(p_k),

where the entropies H do not depend on the student's q: both have one gradient. So have the squared error from the mean
of several numbers and the mean of the squared errors from each.

Weights by confidence multiply w_k by the probability that a teacher gives a row's label, or its most probable one where
there is none, and are divided by their sum over the teachers. With two teachers of equal weight that is what
confidence-aware distillation takes (CA-MKD: Zhang, Chen and Wang, 2022, arXiv:2201.00007, equation 3: with the
cross-entropies L_k of K teachers, (1 - exp(L_k) / sum_j exp(L_j)) / (K - 1)). With more its weights tend to 1 / K
however wrong a teacher is, and these do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.ragged import Outputs, Ragged, units

_Floats = NDArray[np.float64]


class Mixing(NamedTuple):
    """How answers of one kind become one.

    Attributes:
        mixed: (answers of each teacher, logarithms of their weights float64 (teachers, units), temperature) -> float64
            (units, K).
        log_confidence: (answers of a teacher, labels of a batch or None) -> float64 (units,); None where answers have
            no probabilities.
    """

    mixed: Callable[[Sequence[Any], _Floats, float], _Floats]
    log_confidence: Callable[[Any, Any], _Floats] | None


def mixed_answers(
    kind: Mixing,
    answers: Sequence[Outputs],
    weights: NDArray[np.float64],
    temperature: float,
    *,
    labels: Any = None,
    by_confidence: bool = False,
) -> Outputs:
    """Return the answers of several teachers as those of one, float32 like each of them.

    A row that a teacher has not answered, NaN, is answered by the others with weights that add up to 1 again; it is NaN
    where none has.

    Args:
        kind: what the answers are.
        answers: of each teacher for the same rows: float32 (rows, K), or `Ragged` of float32 (tokens, K).
        weights: of the teachers, float64 (teachers,), above 0.
        temperature: T, that of the loss.
        labels: of the rows, as the loss takes them; used `by_confidence` alone.
        by_confidence: whether a teacher's weight is multiplied by its confidence in each row.

    Raises:
        ValueError: `by_confidence`, and the answers have no probabilities.
    """
    given = np.stack([~np.isnan(units(of)).any(axis=1) for of in answers])
    filled = answers if given.all() else [_without_nan(of, there) for of, there in zip(answers, given, strict=True)]
    logs = np.repeat(np.log(weights)[:, None], given.shape[1], axis=1)
    if by_confidence:
        if kind.log_confidence is None:
            raise ValueError("weights by confidence are those of probabilities, and these answers are numbers")
        logs += np.stack([kind.log_confidence(of, labels) for of in filled])
    logs[~given] = -np.inf
    with np.errstate(invalid="ignore"):  # of rows that nobody answered
        logs -= np.logaddexp.reduce(logs, axis=0)
        values = kind.mixed(filled, logs, temperature).astype(np.float32)
    values[~given.any(axis=0)] = np.nan
    first = answers[0]
    return Ragged(values, first.starts) if isinstance(first, Ragged) else values


def _without_nan(of: Outputs, given: NDArray[np.bool_]) -> Outputs:
    values = np.where(given[:, None], units(of), np.float32(0))
    return Ragged(values, of.starts) if isinstance(of, Ragged) else values


def _doubles(of: Any) -> _Floats:
    return np.asarray(units(of), np.float64)


def _log_softmax(logits: _Floats) -> _Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _log_softmax_of_rows(logits: _Floats, starts: NDArray[np.int64]) -> _Floats:
    """Return the logarithms of a softmax over the tokens of each row, for each column."""
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    shifted = logits - np.maximum.reduceat(logits, starts[:-1])[rows]
    return np.asarray(shifted - np.log(np.add.reduceat(np.exp(shifted), starts[:-1]))[rows])


def _log_mean(logs: Sequence[_Floats], weights: _Floats) -> _Floats:
    """Return the logarithm of a weighted sum, given logarithms (units, K) and those of weights (teachers, units)."""
    return np.asarray(np.logaddexp.reduce(np.stack(logs) + weights[:, :, None], axis=0))


def _mixed_classes(answers: Sequence[Any], weights: _Floats, temperature: float) -> _Floats:
    return temperature * _log_mean([_log_softmax(_doubles(of) / temperature) for of in answers], weights)


def _mixed_indicators(answers: Sequence[Any], weights: _Floats, temperature: float) -> _Floats:
    """Return the logit of the mean probability of each label, T (log p - log(1 - p))."""
    soft = [_doubles(of) / temperature for of in answers]
    yes, no = ([-np.logaddexp(0, sign * of) for of in soft] for sign in (-1, 1))
    return np.asarray(temperature * (_log_mean(yes, weights) - _log_mean(no, weights)))


def _mixed_numbers(answers: Sequence[Any], weights: _Floats, temperature: float) -> _Floats:
    return np.asarray(np.einsum("tu,tuk->uk", np.exp(weights), np.stack([_doubles(of) for of in answers])))


def _mixed_spans(answers: Sequence[Any], weights: _Floats, temperature: float) -> _Floats:
    logs = [_log_softmax_of_rows(_doubles(of) / temperature, of.starts) for of in answers]
    return temperature * _log_mean(logs, weights)


def _confidence_of_classes(logits: Any, labels: Any) -> _Floats:
    logs = _log_softmax(_doubles(logits))
    surest = logs.max(axis=1)
    if labels is None:
        return np.asarray(surest)
    ids = np.asarray(units(labels))
    of_label = logs[np.arange(len(logs)), np.maximum(ids, 0)]
    return np.asarray(np.where(ids >= 0, of_label, surest))


def _confidence_of_indicators(logits: Any, labels: Any) -> _Floats:
    """Return the mean over the labels of the logarithm of the probability that each is as it is."""
    values = _doubles(logits)
    yes, no = -np.logaddexp(0, -values), -np.logaddexp(0, values)
    surest = np.maximum(yes, no)
    if labels is None:
        return np.asarray(surest.mean(axis=1))
    given = np.asarray(labels, np.float64).reshape(values.shape)
    known = np.where(np.isnan(given), 0, given)
    logs = np.where(np.isnan(given), surest, known * yes + (1 - known) * no)
    return np.asarray(logs.mean(axis=1))


def _confidence_of_spans(logits: Ragged, labels: Any) -> _Floats:
    """Return for each token the mean of the logarithms of the probabilities of its row's first and last token."""
    logs, first = _log_softmax_of_rows(_doubles(logits), logits.starts), logits.starts[:-1]
    of = np.maximum.reduceat(logs, first)
    if labels is not None:
        for column, places in enumerate(np.asarray(labels).T):
            there = places >= 0
            of[there, column] = logs[first[there] + places[there], column]
    return np.repeat(of.mean(axis=1), logits.lengths)


CLASSES = Mixing(_mixed_classes, _confidence_of_classes)
"""Logits of one of several classes."""
INDICATORS = Mixing(_mixed_indicators, _confidence_of_indicators)
"""Logits of labels that are there or not, each by itself."""
NUMBERS = Mixing(_mixed_numbers, None)
"""Numbers, of regressions and embeddings: their mean."""
SPANS = Mixing(_mixed_spans, _confidence_of_spans)
"""Logits of the tokens of a row, for the first and the last of an answer; a row has one weight."""
